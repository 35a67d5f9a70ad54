"""What a node remembers of the requests of one worker, also after the worker's process was killed."""

from snakepit_ray.ledger.entry import Entry
from snakepit_ray.ledger.layout import HERE
from snakepit_ray.ledger.ledger import Ledger
from snakepit_ray.ledger.outcomes import LARGEST
from snakepit_ray.ledger.states import ALL, NOT_BEGUN, UNKNOWN, Begun, Ended, Plain, State

__all__ = [
    "ALL",
    "HERE",
    "LARGEST",
    "NOT_BEGUN",
    "UNKNOWN",
    "Begun",
    "Ended",
    "Entry",
    "Ledger",
    "Plain",
    "State",
]
