"""What a machine has and what processes use of it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from snakepit_ray.process import usage
from snakepit_ray.process.shared_memory import NAME, SharedMemory


@pytest.mark.parametrize(("said", "expected"), [("1000000\n", 1_000_000), ("max\n", None), (None, None)])
def test_a_container_has_what_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: int | None
) -> None:
    limit = tmp_path / "memory.max"
    if said is not None:
        limit.write_text(said)
    monkeypatch.setattr(usage, "CGROUP_LIMITS", (str(limit),))
    assert usage.machine_memory() == (expected or psutil.virtual_memory().total)


def test_what_is_mapped_of_a_shared_memory_is_known() -> None:
    memory = SharedMemory(1 << 24)
    assert usage.mapped(os.getpid(), NAME) == 0
    memory.write(0, b"x" * 8_000_000)
    assert 8_000_000 <= usage.mapped(os.getpid(), NAME) <= 8_400_000
    memory.close()
    assert usage.mapped(os.getpid(), NAME) == 0
    assert usage.mapped(2**22 + 1, NAME) == 0  # no such process
