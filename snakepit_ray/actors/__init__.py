"""Thin Ray shells over plain classes: worker, router, and what a calling process knows of them."""
