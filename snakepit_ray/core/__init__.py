"""Decisions as values: facts, `now` (seconds) and random numbers come in, what is to be done goes out.

Rule: nothing in here imports ray, grpc, asyncio, a clock, random, os, threads or files, so that every
policy can be tested by its properties and simulated in milliseconds.
"""
