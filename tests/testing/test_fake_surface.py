"""A fake pool has the public names of a real one, with the same signatures."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from snakepit_ray.client.forms import BatchCall, Call, SessionCall
from snakepit_ray.client.pool import Pool
from snakepit_ray.client.session import Session
from snakepit_ray.client.stream import ChunkRefs, SessionStreamCall, StreamCall
from snakepit_ray.testing import FakePool
from snakepit_ray.testing.fake import forms
from snakepit_ray.testing.fake.refs import FakeChunkRefs

PAIRS: list[tuple[type, type, set[str]]] = [
    (Pool, FakePool, {"calls", "fail", "get"}),  # what only a fake has
    (Call, forms.FakeCall, set()),
    (BatchCall, forms.FakeBatchCall, set()),
    (SessionCall, forms.FakeSessionCall, set()),
    (StreamCall, forms.FakeStreamCall, set()),
    (SessionStreamCall, forms.FakeSessionStreamCall, set()),
    (Session, forms.FakeSession, set()),
    (ChunkRefs, FakeChunkRefs, set()),
]
FORMS = {
    "execute": forms.FakeCall,
    "execute_batch": forms.FakeBatchCall,
    "execute_in_session": forms.FakeSessionCall,
    "execute_stream": forms.FakeStreamCall,
    "execute_in_session_stream": forms.FakeSessionStreamCall,
}
CALLED = ("__call__", "__enter__", "__exit__", "__iter__", "__next__", "__aiter__", "__anext__")


def public(kind: type) -> set[str]:
    """Names of a class and of its instances: forms of calls are attributes of a fake pool."""
    names = {name for name in dir(kind) if not name.startswith("_") or name in CALLED}
    return names | ({*FORMS} if kind is FakePool else set())


def parameters(member: Any) -> Any:
    """Names, kinds, defaults and types, and whether it is a coroutine; what it returns differs."""
    signature = inspect.signature(member)
    kinds = inspect.iscoroutinefunction(member), inspect.isasyncgenfunction(member)
    return list(signature.parameters.values()), kinds[0]


@pytest.mark.parametrize(("real", "fake", "more"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_names_and_the_signatures_are_the_same(real: type, fake: type, more: set[str]) -> None:
    assert public(fake) == public(real) | more
    for name in public(real):
        expected = inspect.getattr_static(real, name)
        if inspect.isfunction(expected):
            assert parameters(getattr(fake, name)) == parameters(expected), name
        elif name not in FORMS and name != "id":
            assert type(inspect.getattr_static(fake, name)) is type(expected), name


def test_the_forms_of_a_fake_pool_are_those_of_a_pool() -> None:
    with FakePool({"a": lambda: 1}) as pool:
        assert {name: type(getattr(pool, name)) for name in FORMS} == FORMS
        assert {name for name in vars(pool) if not name.startswith("_")} == {*FORMS}


@pytest.mark.parametrize("fake", [pair[1] for pair in PAIRS], ids=lambda kind: kind.__name__)
def test_every_public_name_of_a_fake_is_documented(fake: type) -> None:
    members = {name: inspect.getattr_static(fake, name, None) for name in public(fake) if name[0] != "_"}
    described = {name for name, member in members.items() if inspect.isfunction(member)}
    assert all(inspect.getdoc(getattr(fake, name)) for name in described)
