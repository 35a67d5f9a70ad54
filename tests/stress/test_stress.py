"""A worker under a seeded stress; `python -m tests.stress` runs many seeds, or one again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import RUN

SHORT = (3, 11)  # seeds: with and without overlap, one of them stopped early
STEPS = 120
LONG_SECONDS = float(os.environ.get("SNAKEPIT_STRESS_SECONDS", "300"))
LIMIT_SECONDS = 400.0  # for one seed


def _run(seed: int, steps: int) -> None:
    """A process of its own: what it leaves in memory, threads and descriptors is its own, too."""
    command = [sys.executable, "-m", "tests.stress", str(seed), "--steps", str(steps)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": RUN},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(LIMIT_SECONDS + 20)
@pytest.mark.parametrize("seed", SHORT)
def test_a_short_stress_leaves_true_outcomes_and_nothing_else(seed: int) -> None:
    _run(seed, STEPS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_long_stress_of_new_seeds() -> None:
    deadline, first = time.monotonic() + LONG_SECONDS, int(time.time())
    seeds = 0
    while time.monotonic() < deadline:
        _run(first + seeds, 250)
        seeds += 1
    print(f"{seeds} seeds from {first}")
