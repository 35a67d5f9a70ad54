"""Requests and replies as messages, values as bytes."""
