"""HALT: what a callback of a stream returns to stop its producer. No Ray, for tests that have none."""

from __future__ import annotations

from enum import Enum


class Halt(Enum):
    """The type of HALT."""

    HALT = "halt"

    def __repr__(self) -> str:
        return "snakepit.HALT"


HALT = Halt.HALT  # what an on_chunk callback returns to stop the producer
