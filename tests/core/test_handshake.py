"""What an interpreter may say of its commands' budgets."""

from __future__ import annotations

import json

import pytest

from snakepit_ray.core.worker.handshake import LONGEST_SECONDS, HandshakeError, Ready, parse_ready


def line(timeout: object) -> bytes:
    said = {"snakepit": 2, "address": "unix:/s", "pid": 1, "language": "x", "version": "1", "capacity": 1}
    return json.dumps({**said, "commands": {"slow": {"timeout": timeout}}}).encode()


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), -1, 0, 2**32 / 1000, 1e300])
def test_a_budget_that_cannot_travel_is_refused_at_the_start(timeout: float) -> None:
    with pytest.raises(HandshakeError, match=r"timeout of command 'slow' is .* at most 4,000,000"):
        parse_ready(line(timeout))


@pytest.mark.parametrize("timeout", [None, 0.001, 60, LONGEST_SECONDS])
def test_a_budget_that_can_is_taken(timeout: float | None) -> None:
    ready = parse_ready(line(timeout))
    assert isinstance(ready, Ready)
    assert ready.commands["slow"].timeout == timeout
