"""What a pool keeps to while parts of it are killed under load. The witness's log says what ran."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from snakepit_ray.testing.accounting import StormResult
from snakepit_ray.testing.storm import Storm, witness_settings

pytestmark = pytest.mark.ray
MARGIN = 2  # kills that hit the moment before the command's first line or after its last


@pytest.fixture
def storm(start: Any, tmp_path: Path) -> Callable[..., StormResult]:
    """A pool of `size` witnesses, a storm over it, its end, and the result, which it prints."""

    def run(size: int, **settings: Any) -> StormResult:
        pool = start(size=size, **witness_settings(tmp_path / "log"))
        result = Storm(end_pool=True, **settings).run(pool)
        print(result.report())
        return result

    return run


def held(result: StormResult, kills: int) -> None:
    """Nothing is lost, comes twice or is left behind, every strike fell, and the pool is whole again."""
    assert result.wrong == (), result.report()
    assert sum(result.kills.values()) == kills, result.report()
    assert result.sent == result.answered + result.failures, result.report()


def held_without_failures(result: StormResult, kills: int) -> None:
    held(result, kills)
    assert result.failures == 0, result.report()


def failed_only_what_ran_there(result: StormResult, kills: int) -> None:
    """Each failure was running in what was killed, by the interpreter's own word. MARGIN: the command's first
    line comes a moment after its mark, and nobody keeps an answer before it arrives at the actor, a
    millisecond after the command's last line."""
    held(result, kills)
    assert result.unexplained == 0, result.report()
    assert result.failures <= kills, "one slot each: one failure each\n" + result.report()
    assert result.failures <= result.running_when_killed + MARGIN, result.report()


# ---- short ones: pools take longer to start than these storms, so one serves several -----------------------


def test_killed_interpreters_fail_only_what_they_ran_and_nothing_idempotent(
    start: Any, tmp_path: Path
) -> None:
    pool = start(size=4, **witness_settings(tmp_path / "log"))
    result = Storm(kills=4, seconds=3.0, idempotent=False, seed=1).run(pool)
    failed_only_what_ran_there(result, 4)
    result = Storm(kills=5, seconds=4.0, end_pool=True).run(pool)
    held_without_failures(result, 5)
    assert result.ran_again <= 5, "each kill has at most one run again"


def test_the_command_storms_a_running_pool(start: Any, tmp_path: Path) -> None:
    pool = start(size=2, **witness_settings(tmp_path / "log"))
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "snakepit_ray.cli", "chaos", pool.name, "--address", address]
    options = ["--kill", "actors", "--kills", "1", "--seconds", "2", "--json"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)  # and nothing else: Ray says to stdout that an actor has died
    assert (told["wrong"], told["failures"], told["lost"]) == ([], 0, 0)
    assert (told["kills"], told["sent"], told["ran_once"] + told["ran_again"]) == ({"actor": 1}, 20, 20)
    assert pool.execute("run", {"tag": "after"})["tag"] == "after", "it goes on"


# ---- long ones ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_60_interpreters_in_60_s_fail_no_idempotent_request(storm: Callable[..., StormResult]) -> None:
    held_without_failures(storm(8, kill="interpreters", kills=60, seconds=60.0), 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_60_interpreters_in_60_s_fail_only_what_they_ran(storm: Callable[..., StormResult]) -> None:
    result = storm(8, kill="interpreters", kills=60, seconds=60.0, idempotent=False, seed=1)
    failed_only_what_ran_there(result, 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_20_actors_fail_no_idempotent_request(storm: Callable[..., StormResult]) -> None:
    held_without_failures(storm(8, kill="actors", kills=20, seconds=60.0, seed=2), 20)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_20_actors_fail_only_what_they_ran(storm: Callable[..., StormResult]) -> None:
    result = storm(8, kill="actors", kills=20, seconds=60.0, idempotent=False, seed=3)
    failed_only_what_ran_there(result, 20)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_5_routers_fail_nothing(storm: Callable[..., StormResult]) -> None:
    held_without_failures(storm(8, kill="router", kills=5, seconds=40.0, idempotent=False, seed=4), 5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_for_3_minutes(storm: Callable[..., StormResult]) -> None:
    held_without_failures(storm(8, kill="everything", kills=90, seconds=180.0, seed=5), 90)
