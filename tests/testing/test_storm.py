"""What a storm refuses before it begins, and what is sent; without Ray."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.cli import main
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import ConfigError, PoolSaturated
from snakepit_ray.testing import MISBEHAVING
from snakepit_ray.testing import sending as sending_module
from snakepit_ray.testing.sending import Callers, Load
from snakepit_ray.testing.storm import witness_log, witness_settings


def pool_of(**settings: Any) -> Any:
    config = PoolConfig.build(name="p", **settings)
    return SimpleNamespace(name="p", config=config)


def test_the_log_of_a_witness(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    assert witness_log(pool_of(**witness_settings(log))) == log
    assert witness_log(pool_of(adapter=MISBEHAVING, adapter_args={"path": str(log)})) == log


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"needs the witness.*'showcase'.*chaos --start"),
        ({"adapter": "/elsewhere/log.py:Log", "adapter_args": {"path": "/tmp/x"}}, "needs the witness"),
        (witness_settings("/nowhere/log"), "/nowhere/log, which cannot be read here"),
    ],
)
def test_a_pool_that_is_no_witness(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        witness_log(pool_of(**settings))


class Answers:
    """A pool of made-up outcomes, by the number at the end of the tag."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str]] = []

    async def call(self, command: str, args: dict[str, Any], **options: Any) -> Any:
        self.sent.append((time.monotonic(), args["tag"]))
        number = int(args["tag"].rpartition("-")[2])
        if number == 0:
            raise PoolSaturated("full")
        if number == 1:
            await asyncio.Event().wait()
        return {"tag": args["tag"]}


def test_callers_send_at_their_rate_and_bring_each_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending_module, "MARGIN_SECONDS", 0.1)
    answers: Any = Answers()
    load = Load("t", 100.0, 0.3, 0.0, 2, {"timeout": 0.2})
    callers = Callers(answers, load)
    began = time.monotonic()
    callers.start(began)
    outcomes = {outcome.tag: outcome for outcome in callers.join()}
    assert set(outcomes) == {f"t-{caller}-{number}" for caller in (0, 1) for number in range(15)}
    assert isinstance(outcomes["t-0-0"].error, PoolSaturated)
    lost = {tag for tag, outcome in outcomes.items() if outcome.answer is None and outcome.error is None}
    assert lost == {"t-0-1", "t-1-1"}
    assert outcomes["t-1-7"].answer == "t-1-7"
    assert all(at - began >= int(tag.rpartition("-")[2]) * 0.02 for at, tag in answers.sent), "not early"


def test_a_broken_caller_is_not_silent() -> None:
    class Broken:
        async def call(self, *args: Any, **options: Any) -> Any:
            return {}  # an answer without a tag

    broken: Any = Broken()
    callers = Callers(broken, Load("t", 10.0, 0.1, 0.0, 1, {"timeout": 1.0}))
    callers.start(time.monotonic())
    with pytest.raises(KeyError):
        callers.join()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "exactly one of the two"),
        (["pool", "--start"], "exactly one of the two"),
        (["--start", "--size", "0"], "--size: got 0, expected a number from 1"),
        (["--start", "--seconds", "0"], "--seconds: got 0, expected a number from 0.1"),
        (["pool", "--kills", "-1"], "--kills: got -1, expected a number from 0"),
    ],
)
def test_words_that_chaos_refuses(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *words]) == 1
    assert said in capsys.readouterr().err
