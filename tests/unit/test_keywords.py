"""The keywords of calls and of `start` as types: their names and their types are those that are checked at
run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from snakepit_ray.config import Affinity, CallOptions, CircuitBreakerConfig, PoolConfig
from snakepit_ray.config.keywords import CallSettings, PoolSettings, SessionCallSettings
from snakepit_ray.errors import ConfigError

# One of each type that a keyword may have, and some that none has.
EXAMPLES: list[Any] = [
    None,
    True,
    1,
    2_000_000,
    0.5,
    "10s",
    "2GiB",
    "python",
    "text",
    Path("text"),
    {"a": 1},
    {"a": "b"},
    {"failures": 5},
    CircuitBreakerConfig(),
    Affinity.HINT,
    *("process", "thread", "spread", "pack", "error", "marker", "hint", "strict_queue", "auto", "off"),
    *("memory", "sqlite:/var/sessions.db"),
    *(b"bytes", ["list"], 1j, object()),
]


def members(hint: Any) -> tuple[Any, ...]:
    """The types that a union has."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(member for one in get_args(hint) for member in members(one))
    return (hint,)


def fits(value: Any, member: Any) -> bool:
    """Whether a value is of a type, as far as a type checker knows: an int is a float."""
    if member is Any:
        return True
    if get_origin(member) is Literal:
        return value in get_args(member) and type(value) is str
    kind = get_origin(member) or member
    return isinstance(value, (int, float) if kind is float else kind)


def accepted(build: Any, key: str) -> list[Any]:
    """The examples that are taken at run time."""
    taken = []
    for value in EXAMPLES:
        try:
            build(**{key: value})
        except ConfigError:
            continue
        taken.append(value)
    return taken


CASES = [
    *((PoolSettings, PoolConfig, field.name) for field in fields(PoolConfig)),
    *((CallSettings, CallOptions, field.name) for field in fields(CallOptions)),
]


@pytest.mark.parametrize(
    ("typed", "build", "key"), CASES, ids=lambda value: value if type(value) is str else ""
)
def test_a_keyword_has_the_types_that_are_accepted_and_no_other(typed: Any, build: Any, key: str) -> None:
    kinds = members(get_type_hints(typed)[key])
    taken = accepted(build, key)
    untyped = [value for value in taken if not any(fits(value, kind) for kind in kinds)]
    assert untyped == [], "a checker would call an error what is none"
    unused = [kind for kind in kinds if not any(fits(value, kind) for value in taken)]
    assert unused == [], "a checker would let through what is always an error"


@pytest.mark.parametrize(
    ("typed", "build", "key"), CASES, ids=lambda value: value if type(value) is str else ""
)
def test_what_is_kept_can_be_given_again(typed: Any, build: Any, key: str) -> None:
    kinds = members(get_type_hints(typed)[key])
    kept = members(get_type_hints(build)[key])
    assert (NoneType in kinds) == (NoneType in kept) or Any in kinds
    default = getattr(build(), key)
    assert any(fits(default, kind) for kind in kinds)
    for kind in kept:
        names = any(get_origin(one) is Literal for one in kinds)  # kept as text, given by name
        assert kind in kinds or Any in kinds or (kind is str and names) or get_origin(kind) is Mapping


def test_the_names_are_those_of_the_settings_and_options() -> None:
    assert PoolSettings.__optional_keys__ == {field.name for field in fields(PoolConfig)}
    calls = {field.name for field in fields(CallOptions)}
    assert CallSettings.__optional_keys__ == calls
    assert SessionCallSettings.__optional_keys__ == calls - {"session"}
    for typed in (PoolSettings, CallSettings, SessionCallSettings):
        assert not typed.__required_keys__
