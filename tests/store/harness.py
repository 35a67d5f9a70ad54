"""Questions of tests to a store, and holders that do what they are told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from snakepit_ray.core.state.asked import Creation, Data, Ended, Get, Question
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.writes import Register, Set
from snakepit_ray.store.store import Store
from snakepit_ray.wire.codec.decoding import decode_value
from snakepit_ray.wire.codec.encoding import encode_value

POOL = Creation("pool", ttl=3600.0, limit=10_000)
_ops = itertools.count(1)


def op() -> str:
    """An op of its own."""
    return f"op-{next(_ops)}"


def data(value: Any) -> Data:
    encoded = encode_value(value)
    return Data(encoded.json, tuple(encoded.buffers))


def plain(found: Any) -> Any:
    """The value of a `Versioned` or of `Data`."""
    found = getattr(found, "value", found)
    return decode_value(found.json, found.buffers)


def register(name: str, type_: str, value: Any, **constraints: Any) -> Register:
    return Register(name, data(value), demanded(type_, constraints, name))


def assign(name: str, value: Any, expected: int | None = None) -> Set:
    return Set(name, data(value), expected)


async def ask(store: Store, question: Question) -> Any:
    """One answer. Raises it where it is an error."""
    (answer,) = await store.ask([question])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def value_of(store: Store, session: str, name: str) -> tuple[int, Any]:
    found = (await ask(store, Get(session, (name,)))).values[name]
    return found.version, plain(found)


class Copies:
    """A holder that lets go at once, or when it is told."""

    def __init__(self, store: Store, name: str, lets_go: bool = True) -> None:
        self.name = name
        self.store = store
        self.lets_go = lets_go
        self.recalled: list[Lease] = []
        self.ended: list[Ended] = []
        store.attach(name, self)

    def let_go(self, leases: Sequence[Lease]) -> None:
        self.recalled += leases
        if self.lets_go:
            self.store.released(leases)

    def sessions_ended(self, ended: Sequence[Ended]) -> None:
        self.ended += ended


class Clocks:
    """A monotonic clock and a wall clock, which go when they are told."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._at = time.time()  # processes that are killed take the real one

    def now(self) -> float:
        return self._now

    def at(self) -> float:
        return self._at

    def pass_(self, seconds: float) -> None:
        self._now += seconds
        self._at += seconds

    def step(self, seconds: float) -> None:
        """The wall clock is set."""
        self._at += seconds


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Asks again and again."""
    while not await condition():  # noqa: ASYNC110 - it is a question to somebody else
        await asyncio.sleep(0.01)


async def has_lease(store: Store, session: str, holder: str) -> bool:
    """Whether a question of the holder has got one."""
    return (await ask(store, Get(session, ("x",), holder=holder))).lease is not None
