"""The ids of requests: `a1b2-7` is the seventh request of the calling process `a1b2`, `a1b2-7/0.10+5` five of
the items of that request, which is a batch.

Rules:
- An id travels as a string, and is composed once. A value of this module is for those who take one apart.
- No other module knows the signs in an id.
- The same part of a batch has the same id whenever it is sent; other items have another one, because a batch
  that comes again may be divided in another way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

PART = "/"  # in the id of a part and in no other: what asks for each request looks for it, and calls nothing
_NUMBER = "-"
_WHOLE_FORM = re.compile(r"([^-/]+)-(0|[1-9][0-9]*)")
_PART_FORM = re.compile(r"([^/]+)/(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\+([1-9][0-9]*)")


class RequestId(NamedTuple):
    """The id of a request. `caller`: of the process that made it; `number`: among the requests of that
    process."""

    caller: str
    number: int

    def __str__(self) -> str:
        return f"{self.caller}{_NUMBER}{self.number}"

    @classmethod
    def parse(cls, text: str) -> RequestId:
        """The id in its parts. Raises ValueError for what is none."""
        found = _WHOLE_FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"got {text!r}, expected the id of a request, such as 'a1b2-7'")
        return cls(found[1], int(found[2]))


class PartId(NamedTuple):
    """The id of a part of a batch: `size` items from number `first` on of the request that is number `source`
    of those that the batch came as. `whole`: the id of the batch."""

    whole: str
    source: int
    first: int
    size: int

    def __str__(self) -> str:
        return f"{self.whole}{PART}{self.source}.{self.first}+{self.size}"

    @classmethod
    def parse(cls, text: str) -> PartId:
        """The id in its parts. Raises ValueError for what is none."""
        found = _PART_FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"got {text!r}, expected the id of a part of a batch, such as 'a1b2-7/0.10+5'")
        return cls(found[1], int(found[2]), int(found[3]), int(found[4]))


def ids_of(caller: str) -> Callable[[], str]:
    """Gives the ids of one calling process, one after the other, the first with number 1; in any thread."""
    beginning, numbers = caller + _NUMBER, count(1)
    return lambda: f"{beginning}{next(numbers)}"


def whole_of(request_id: str) -> str:
    """The id of the batch that a request is a part of; its own where it is none."""
    return request_id.partition(PART)[0]


def caller_of(request_id: str) -> str:
    """The process that made the request."""
    return request_id.partition(_NUMBER)[0]


def made_by(callers: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of these processes made the request of an id, as a function of the id."""
    beginnings = tuple(caller + _NUMBER for caller in callers)
    return lambda request_id: request_id.startswith(beginnings)
