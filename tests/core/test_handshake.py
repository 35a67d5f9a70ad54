"""What an interpreter may say of its commands' budgets, and of the parts of the contract that it knows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from snakepit_ray.core.worker.handshake import (
    FEATURES,
    LONGEST_SECONDS,
    HandshakeError,
    Ready,
    StartFailure,
    parse_forker,
    parse_ready,
)

ROOT = Path(__file__).resolve().parents[2]


def line(timeout: object, **facts: object) -> bytes:
    said = {"snakepit": 2, "address": "unix:/s", "pid": 1, "language": "x", "version": "1", "capacity": 1}
    return json.dumps({**said, "commands": {"slow": {"timeout": timeout}}, **facts}).encode()


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), -1, 0, 2**32 / 1000, 1e300])
def test_a_budget_that_cannot_travel_is_refused_at_the_start(timeout: float) -> None:
    with pytest.raises(HandshakeError, match=r"timeout of command 'slow' is .* at most 4,000,000"):
        parse_ready(line(timeout))


@pytest.mark.parametrize("timeout", [None, 0.001, 60, LONGEST_SECONDS])
def test_a_budget_that_can_is_taken(timeout: float | None) -> None:
    ready = parse_ready(line(timeout))
    assert isinstance(ready, Ready)
    assert ready.commands["slow"].timeout == timeout


def test_features_that_nobody_knows_are_ignored() -> None:
    ready = parse_ready(line(1, features=["batches", "arena", "telepathy", 5]))
    assert isinstance(ready, Ready)
    assert ready.features == {"batches", "arena"}
    assert ready.lacks == {"streams", "refs"}


def test_an_interpreter_that_names_no_features_has_none() -> None:
    ready = parse_ready(line(1))
    assert isinstance(ready, Ready)
    assert (ready.features, ready.lacks) == (frozenset(), {"batches", "streams", "refs"})


@pytest.mark.parametrize("said", [None, "arena", {"arena": True}, 5])
def test_features_that_are_no_list_are_refused(said: object) -> None:
    with pytest.raises(HandshakeError, match="features, a list of names"):
        parse_ready(line(1, features=said))


def test_the_contract_lists_the_features() -> None:
    section = (ROOT / "bridge/README.md").read_text().partition("## 2. Ready")[2].partition("## 3. ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == FEATURES


def test_a_forker_is_ready_or_says_why_not() -> None:
    assert parse_forker(b'{"snakepit": 2, "pid": 7, "forker": true}') is None
    said = b'{"snakepit": 2, "error": {"stage": "fork", "type": "ValueError", "message": "threads"}}'
    assert parse_forker(said) == StartFailure("fork", "ValueError", "threads", "")


@pytest.mark.parametrize(
    "line", ["7", "{}", '{"snakepit": 2}', '{"snakepit": 2, "forker": 1}', '{"snakepit": 2, "error": 5}']
)
def test_what_a_forker_does_not_say_so_is_an_error(line: str) -> None:
    with pytest.raises(HandshakeError):
        parse_forker(line.encode())
