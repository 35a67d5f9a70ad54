"""Programs that commands make and run are kept with their sessions."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import snakepit_ray as snakepit
from snakepit_ray.errors import PayloadTooLarge
from snakepit_ray.testing import FakePool

call = snakepit.SessionHelpers.execute_program_command


def create_program(program_id: str = "", signature: str = "") -> Any:
    return {"program_id": program_id or "made", "signature": signature}


def execute_program(program_id: str, question: str, program_data: Any = None) -> Any:
    return [question, program_data]


COMMANDS = {"create_program": create_program, "execute_program": execute_program, "echo": lambda x: x}


@pytest.fixture
def pool() -> Any:
    with FakePool(COMMANDS) as one:
        yield one


def test_what_was_created_is_handed_to_what_executes_it(pool: Any) -> None:
    asked = {"program_id": "made", "question": "q"}
    assert call(pool, "s", "execute_program", asked) == ["q", None]
    made = call(pool, "s", "create_program", {"signature": "a -> b"})
    assert pool.sessions.get_program("s", "made") == made == {"program_id": "made", "signature": "a -> b"}
    assert call(pool, "s", "execute_program", asked) == ["q", made]
    assert call(pool, "other", "execute_program", asked) == ["q", None]
    assert call(pool, "s", "echo", {"x": 1}) == 1


@pytest.mark.parametrize("session", [None, "anonymous"])
def test_without_a_session_nothing_is_kept(pool: Any, session: str | None) -> None:
    call(pool, session, "create_program")
    assert pool.sessions.list() == []
    assert call(pool, session, "execute_program", {"program_id": "made", "question": "q"}) == ["q", None]


def test_a_program_that_cannot_be_kept_is_logged(
    pool: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PayloadTooLarge("too large")

    monkeypatch.setattr(type(pool.sessions), "store_program", refuse)
    with caplog.at_level(logging.WARNING, "snakepit_ray"):
        assert call(pool, "s", "create_program")["program_id"] == "made"
    assert "is not kept: too large" in caplog.text
