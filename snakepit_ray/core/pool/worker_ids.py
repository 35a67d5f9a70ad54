"""The ids of workers: a pool's name and a number. Later workers have greater numbers."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = re.compile(r"0|[1-9][0-9]*")


class WorkerId(NamedTuple):
    """A worker's id in its parts; as a string it is what users see, such as "default-0"."""

    pool: str
    number: int

    def __str__(self) -> str:
        return f"{self.pool}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> WorkerId:
        """The id in its parts. Raises ValueError for what is none."""
        pool, _, number = text.rpartition("-")
        if not pool or not _NUMBER.fullmatch(number):
            raise ValueError(f"got {text!r}, expected the id of a worker, such as 'default-0'")
        return cls(pool, int(number))
