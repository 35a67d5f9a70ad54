"""When a storm strikes what, and when it sends: pure, from a seeded random number generator.

- The same seed gives the same plan, though not the same storm (where requests go is decided at random).
- A strike names its victim by a number in [0, 1), because who is alive is known only when it falls.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

from snakepit_ray.errors import ConfigError

T = TypeVar("T")


class Target(str, Enum):
    """What is killed."""

    INTERPRETER = "interpreter"
    ACTOR = "actor"
    ROUTER = "router"


MIXTURES: dict[str, tuple[tuple[Target, int], ...]] = {
    "interpreters": ((Target.INTERPRETER, 1),),
    "actors": ((Target.ACTOR, 1),),
    "router": ((Target.ROUTER, 1),),
    "everything": ((Target.INTERPRETER, 6), (Target.ACTOR, 3), (Target.ROUTER, 1)),
}


class Strike(NamedTuple):
    """One kill: seconds after the storm's beginning, what, and which of those that are alive then."""

    at: float
    target: Target
    choice: float

    def victim(self, alive: Sequence[T]) -> T:
        """Which of those alive it hits."""
        return alive[int(self.choice * len(alive))]


def plan_strikes(kill: str, kills: int, seconds: float, rng: random.Random) -> list[Strike]:
    """`kills` strikes spread over `seconds`, one at a random moment of each share. Raises ConfigError."""
    if kill not in MIXTURES:
        raise ConfigError(f"kill: got {kill!r}, expected one of {', '.join(MIXTURES)}", key="kill")
    bag = _bag(kill, kills, rng)
    share = seconds / max(1, kills)
    return [Strike((i + rng.random()) * share, target, rng.random()) for i, target in enumerate(bag)]


def _bag(kill: str, kills: int, rng: random.Random) -> list[Target]:
    """As many of each kind as its weight says, shuffled."""
    total = sum(weight for _, weight in MIXTURES[kill])
    bag = [target for target, weight in MIXTURES[kill] for _ in range(kills * weight // total)]
    bag += [MIXTURES[kill][0][0]] * (kills - len(bag))
    rng.shuffle(bag)
    return bag


def moments(rate: float, seconds: float, caller: int, callers: int) -> Iterator[float]:
    """When one of `callers` callers sends, so that all together send `rate` requests a second, evenly."""
    number = caller
    while number / rate < seconds:
        yield number / rate
        number += callers
