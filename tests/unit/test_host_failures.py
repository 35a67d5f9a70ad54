"""What a handler at the host raised, as the failure that travels to the interpreter."""

from __future__ import annotations

import json

import pytest

from snakepit_ray import errors
from snakepit_ray.errors import failure_to_error
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.failures import KINDS, MESSAGE_LIMIT, TRACEBACK_LIMIT, failure_of


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_an_error_of_ours_is_the_same_error_at_the_other_end(kind: type[errors.SnakepitError]) -> None:
    failure = failure_of(kind("why"))
    details = json.loads(failure.details_json)
    back = failure_to_error(failure.kind, failure.type, failure.message, "", "python", details)
    assert type(back) is kind and "why" in str(back)


def test_the_details_are_what_json_carries_of_the_public_attributes() -> None:
    error = errors.ToolNotFound("there is one", tool="a", available=["b"])
    error.odd, error._own = object(), 1  # type: ignore[attr-defined]
    assert json.loads(failure_of(error).details_json) == {"tool": "a", "available": ["b"]}
    assert failure_of(ValueError("x")).details_json == b""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unspeakable(), "<Unspeakable, and its __str__ raised RuntimeError>"),
        (ValueError("\ud800"), "\\ud800"),
        (KeyError("x"), "'x'"),
    ],
)
def test_whatever_it_is_it_can_be_written(error: Exception, words: str) -> None:
    failure = failure_of(error)
    assert (failure.kind, failure.type, failure.message) == (pb.Failure.COMMAND, type(error).__name__, words)
    assert failure.SerializeToString()


def test_a_failure_is_bounded_and_shows_where_it_was_raised() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("w" * 10 * MESSAGE_LIMIT)

    with pytest.raises(ValueError, match="www") as caught:
        deep(50)
    failure = failure_of(caught.value)
    assert (len(failure.message), len(failure.traceback)) == (MESSAGE_LIMIT, TRACEBACK_LIMIT)
    with pytest.raises(KeyError) as short:
        {}["x"]
    assert "test_a_failure_is_bounded" in failure_of(short.value).traceback


def test_what_a_command_elsewhere_raised_keeps_its_own_words() -> None:
    error = errors.CommandError.from_remote("TypeError", "in node", "at line 5", "node", "double")
    failure = failure_of(error)
    assert (failure.type, failure.message) == ("TypeError", "in node")
    assert (failure.traceback, failure.language) == ("at line 5", "node")
