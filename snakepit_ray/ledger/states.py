"""What the ledger answers about a request."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from snakepit_ray.ledger.layout import HERE

ALL = 2**63  # calls: begun, and nobody can tell how many of them


class Plain(Enum):
    """The two answers that say nothing more."""

    UNKNOWN = "no entry"
    NOT_BEGUN = "an entry, and nothing of the request has begun"


UNKNOWN: Final = Plain.UNKNOWN
NOT_BEGUN: Final = Plain.NOT_BEGUN


class Begun(NamedTuple):
    """Calls of the request have begun, or may have: `calls` of a batch's items, ALL where nobody can tell.
    `place`: where the request was sent, which may know more; HERE: to this worker's own interpreter."""

    calls: int
    place: int = HERE


class Ended(NamedTuple):
    """The request has ended with this outcome."""

    outcome: bytes


State: TypeAlias = Literal[Plain.UNKNOWN, Plain.NOT_BEGUN] | Begun | Ended
