"""What `help` says of every name that users have: what it does, and each thing that it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import snakepit_ray as snakepit
from snakepit_ray.client.chunk_refs import ChunkRefs
from snakepit_ray.client.forms import BatchCall, Call, SessionCall
from snakepit_ray.client.records import Change, FoundValues, PastValue, Variable, VersionedValue
from snakepit_ray.client.sessions import Sessions
from snakepit_ray.client.stream import SessionStreamCall, StreamCall
from snakepit_ray.client.variables import Variables
from snakepit_ray.client.watching import AsyncWatcher, Watcher
from snakepit_ray.config import CircuitBreakerConfig
from snakepit_ray.core.state.asked import SessionInfo, StoreStats
from snakepit_ray.port.messages import PoolStats, WorkerFacts
from snakepit_ray.testing import FakeChunkRefs, FakePool, FakeRef, RecordedCall

# What the public names hand out, beside themselves.
HANDED_OUT = [
    *(Call, BatchCall, SessionCall, StreamCall, SessionStreamCall, ChunkRefs, PoolStats, WorkerFacts),
    *(Sessions, SessionInfo, StoreStats, Variables, Variable, VersionedValue, PastValue, FoundValues),
    *(Change, Watcher, AsyncWatcher),
    *(CircuitBreakerConfig, FakePool, FakeRef, FakeChunkRefs, RecordedCall),
    *(snakepit.telemetry.attach, snakepit.telemetry.attach_many, snakepit.telemetry.Occurrence),
]
LIKE = re.compile(r"\b[Aa]s `|`\w+` for asyncio|Args[^.]*: as|in this session|are those of|other options")
OBVIOUS = {"self", "cls", "exc"}


def public() -> Iterator[tuple[str, Any]]:
    """Every class and function, and the public methods and properties of the classes, by name."""
    found = [getattr(snakepit, name) for name in snakepit.__all__] + HANDED_OUT
    for one in found:
        if inspect.isfunction(one):
            yield one.__qualname__, one
        elif inspect.isclass(one):
            yield one.__qualname__, one
            for name in vars(one):
                member = inspect.getattr_static(one, name)
                member = getattr(member, "__func__", getattr(member, "fget", member))
                if inspect.isfunction(member) and (name[0] != "_" or name == "__call__"):
                    yield f"{one.__qualname__}.{name}", member


NAMES = dict(public())


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    text = inspect.getdoc(NAMES[name])
    assert text
    first = text.split("\n\n")[0]
    assert first[0].isupper() or first[0] == "`"
    assert first.rstrip().endswith((".", ":")), first


@pytest.mark.parametrize("name", [name for name, one in NAMES.items() if inspect.isfunction(one)])
def test_it_says_what_it_takes(name: str) -> None:
    """By name, or by the name of what it is like: "As `pool.execute`"."""
    text = inspect.getdoc(NAMES[name]) or ""
    if re.search(
        r"\b[Aa]s `|`\w+` for asyncio|Args[^.]*: as|in this session|are those of|other options", text
    ):
        return
    takes = [
        parameter.name
        for parameter in inspect.signature(NAMES[name]).parameters.values()
        if parameter.name not in OBVIOUS and parameter.name[0] != "_"
    ]
    missing = [one for one in takes if not re.search(rf"\b{one}\b", text)]
    assert missing == [], text


def test_no_module_is_left_out() -> None:
    modules = {name for name in snakepit.__all__ if isinstance(getattr(snakepit, name), ModuleType)}
    assert modules == {"errors", "telemetry"}
    assert {getattr(snakepit, name) for name in snakepit.errors.__all__ if name[0].isupper()} <= {
        *NAMES.values()
    }
