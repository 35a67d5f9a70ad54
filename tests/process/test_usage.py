"""What a machine has and what processes use of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from snakepit_ray.process import usage
from snakepit_ray.process.shared_memory import NAME


@pytest.mark.parametrize(("said", "expected"), [("1000000\n", 1_000_000), ("max\n", None), (None, None)])
def test_a_container_has_what_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: int | None
) -> None:
    limit = tmp_path / "memory.max"
    if said is not None:
        limit.write_text(said)
    monkeypatch.setattr(usage, "CGROUP_LIMITS", (str(limit),))
    assert usage.machine_memory() == (expected or psutil.virtual_memory().total)


MAPPING = """
import os
from snakepit_ray.process import usage
from snakepit_ray.process.shared_memory import NAME, SharedMemory
memory = SharedMemory(1 << 24)
print(usage.mapped(os.getpid(), NAME))
memory.write(0, b"x" * 8_000_000)
print(usage.mapped(os.getpid(), NAME))
memory.close()
print(usage.mapped(os.getpid(), NAME))
"""


def test_what_is_mapped_of_a_shared_memory_is_known() -> None:
    # In a process of its own: other tests have such memory in this one.
    said = subprocess.run([sys.executable, "-c", MAPPING], capture_output=True, text=True, check=True).stdout
    before, written, closed = map(int, said.split())
    assert before == 0
    assert 8_000_000 <= written <= 8_400_000
    assert closed == 0
    assert usage.mapped(2**22 + 1, NAME) == 0  # no such process
