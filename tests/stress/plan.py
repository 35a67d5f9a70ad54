"""What one stress run does: a seed becomes settings, calls and disturbances. Pure: a seed can be repeated.

What a seed decides is what is asked, when, and what is killed. What it cannot decide is how the processes
interleave: a fault that a seed has shown may need several runs to come again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

PAUSES = (0.001, 0.003, 0.01, 0.03, 0.1)  # seconds between two actions; every third goes on at once
SIGNALS = ("KILL", "KILL", "TERM", "STOP", "STOP, CONT")
SPEED = (0, 0, 0, 0.001, 0.01, 0.05, 0.2)  # seconds that a command takes


@dataclass(frozen=True)
class Settings:
    """How the worker of a run is set up; times in seconds."""

    capacity: int
    overlap: bool
    is_stopped_early: bool  # while requests wait and run
    chaos: float  # probability of a disturbance after each action
    setup: float  # most that an interpreter's `setup` takes
    queue_limit: int | None
    max_requests: int | None
    ttl: float | None


@dataclass(frozen=True)
class Call:
    """One request. `array` is the number of bytes that go with it, `items` the calls of a batch."""

    id: str
    command: str
    args: dict[str, object] = field(default_factory=dict)
    budget: float = 8.0
    queue: float = 8.0
    session: str = ""
    idempotent: bool = False
    retries: int = 0
    cancelled_after: float | None = None
    array: int = 0
    fill: int = 0
    held: float = 0.0  # seconds for which the caller keeps the result
    items: tuple[dict[str, object], ...] = ()
    is_stream: bool = False
    packed: bool = False
    taken: int = 0  # chunks after which the consumer of a stream leaves
    is_slow: bool = False  # the consumer

    @property
    def bad_items(self) -> int | None:
        """Items that fail; None where one of them has wrong arguments, which counts differently."""
        if any("wrong" in item for item in self.items):
            return None
        return sum(bool(item["bad"]) for item in self.items)

    @property
    def tags(self) -> tuple[str, ...]:
        """What the adapter writes when it begins: one tag a call."""
        if self.items:
            return tuple(f"{self.id}#{index}" for index in range(len(self.items)))
        return (self.id,)


@dataclass(frozen=True)
class Recycle:
    """A planned replacement, of which an interpreter may be killed `then` seconds later."""

    then: float | None = None


@dataclass(frozen=True)
class Signal:
    """A signal to an interpreter; `continued` seconds later SIGCONT, where it is not None."""

    name: str
    victim: float  # in [0, 1): which of the interpreters that live then
    continued: float | None = None


@dataclass(frozen=True)
class Step:
    """Actions of one turn, and the seconds until the next."""

    actions: tuple[Call | Recycle | Signal, ...]
    pause: float


def settings_of(seed: int) -> Settings:
    """The settings of a seed."""
    choose = random.Random(f"settings {seed}").choice
    return Settings(
        capacity=choose((1, 4)),
        overlap=choose((True, False)),
        is_stopped_early=choose((True, False, False)),
        chaos=choose((0.0, 0.03, 0.1)),
        setup=choose((0.0, 0.0, 0.6)),
        queue_limit=choose((None, 20, 100)),
        max_requests=choose((None, None, 40)),
        ttl=choose((None, None, 3.0)),
    )


def steps_of(seed: int, count: int) -> Iterator[Step]:
    """`count` steps of a seed."""
    maker = _Maker(random.Random(f"steps {seed}"))
    chaos = settings_of(seed).chaos
    for _ in range(count):
        yield maker.step(chaos)


class _Maker:
    """Makes the calls of one run; their ids are unique in it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._number = 0

    def step(self, chaos: float) -> Step:
        kinds, weights = zip(*self._KINDS, strict=True)
        actions = list(self._chance.choices(kinds, weights)[0](self))
        if self._chance.random() < chaos:
            actions.append(self._disturbance())
        pause = 0.0 if self._chance.random() < 0.3 else self._chance.choice(PAUSES)
        return Step(tuple(actions), pause)

    def _call(self, command: str, **facts: object) -> Call:
        self._number += 1
        choose = self._chance.choice
        cancelled = self._chance.random() < 0.15
        given: dict[str, object] = {
            "budget": choose((0.05, 0.3, 1, 4, 8, 8, 8)),
            "queue": choose((0.05, 0.5, 8, 8, 8)),
            "cancelled_after": choose((0, 0, 0.0005, 0.002, 0.01, 0.05, 0.3)) if cancelled else None,
        }
        return Call(f"q{self._number}", command, **{**given, **facts})  # type: ignore[arg-type]

    def _session(self) -> str:
        return self._chance.choice(("", "", "", "s1", "s2"))

    def _plain(self) -> Iterator[Call]:
        for _ in range(self._chance.choice((1, 1, 1, 5, 20))):
            yield self._call("run", args={"seconds": self._chance.choice(SPEED)}, session=self._session())

    def _idempotent(self) -> Iterator[Call]:
        yield self._call(
            "idem",
            args={"seconds": self._chance.choice(SPEED)},
            idempotent=True,
            retries=self._chance.choice((0, 1, 3)),
            session=self._session(),
        )

    def _awaited(self) -> Iterator[Call]:
        seconds = self._chance.choice(SPEED)
        yield self._call("awaited", args={"seconds": seconds}, session=self._session())

    def _deaf(self) -> Iterator[Call]:
        yield self._call("holds_gil", args={"seconds": self._chance.choice((0.01, 0.1, 0.4))})

    def _cooperative(self) -> Iterator[Call]:
        yield self._call("cooperative", args={"seconds": self._chance.choice((0.05, 0.5, 2.0))})

    def _failing(self) -> Iterator[Call]:
        yield self._call(self._chance.choice(("raises", "asks_host")))

    def _array(self) -> Iterator[Call]:
        yield self._call(
            "array",
            args={"keep": self._chance.random() < 0.2},
            array=self._chance.choice((20_000, 300_000, 3_000_000, 30_000_000)),
            fill=self._chance.randrange(200),
            held=self._chance.choice((0, 0.05, 0.3)),
        )

    def _batch(self) -> Iterator[Call]:
        items: list[dict[str, object]] = [
            {"bad": self._chance.random() < 0.2, "seconds": self._chance.choice((0, 0, 0.01))}
            for _ in range(self._chance.choice((1, 3, 20)))
        ]
        if self._chance.random() < 0.2:
            items[self._chance.randrange(len(items))] = {"wrong": 1}
        yield self._call("item", items=tuple(items))

    def _stream(self) -> Iterator[Call]:
        choose = self._chance.choice
        args = {
            "count": choose((1, 30, 2000)),
            "size": choose((0, 0, 20_000)),
            "pause": choose((0, 0, 0.002)),
        }
        yield self._call(
            choose(("stream", "astream")),
            args=args,
            is_stream=True,
            packed=self._chance.random() < 0.7,
            taken=choose((1, 10, 10**9, 10**9)),
            is_slow=choose((True, False)),
            session=self._session(),
        )

    def _recycle(self) -> Iterator[Recycle]:
        yield Recycle()

    def _disturbance(self) -> Signal | Recycle:
        name = self._chance.choice((*SIGNALS, "recycle", "recycle, KILL"))
        if name.startswith("recycle"):
            return Recycle(self._chance.random() if "KILL" in name else None)
        name, _, continued = name.partition(", ")
        return Signal(name, self._chance.random(), self._chance.choice((0.05, 0.5)) if continued else None)

    _KINDS = (
        (_plain, 40),
        (_idempotent, 7),
        (_awaited, 7),
        (_deaf, 3),
        (_cooperative, 5),
        (_failing, 4),
        (_array, 13),
        (_batch, 8),
        (_stream, 10),
        (_recycle, 3),
    )
