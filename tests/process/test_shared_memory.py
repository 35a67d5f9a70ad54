"""Memory that is shared with a child: what a view keeps, what a drop gives back, what nobody can
take away."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

import pytest

from snakepit_ray.process.shared_memory import SharedMemory

SIZE = 1 << 20


def test_views_show_what_was_written_and_are_read_only() -> None:
    memory = SharedMemory(SIZE)
    memory.write(4096, b"hello")
    view = memory.view(4096, 5, lambda: None)
    assert bytes(view) == b"hello" and view.readonly
    memory.write(4096, memoryview(b"HELLO"))
    assert bytes(view) == b"HELLO"
    memory.close()
    memory.close()
    assert bytes(view) == b"HELLO"  # a view that lives stays good


def test_the_end_of_the_last_look_is_told_once() -> None:
    memory, dead = SharedMemory(SIZE), []
    view = memory.view(0, 100, lambda: dead.append("a"))
    part = view[10:20]
    del view
    gc.collect()
    assert not dead
    del part
    assert dead == ["a"]
    memory.close()


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, 0), (0, SIZE + 1), (SIZE, 1), (SIZE - 1, 2)])
def test_a_view_outside_is_refused(offset: int, size: int) -> None:
    memory = SharedMemory(SIZE)
    with pytest.raises(ValueError, match="of a shared memory of"):
        memory.view(offset, size, lambda: None)
    memory.close()


def test_pages_exist_from_the_first_write_until_they_are_dropped() -> None:
    memory = SharedMemory(SIZE)
    assert memory.resident == 0
    memory.write(0, b"x" * 8192)
    assert memory.resident == 8192
    memory.drop(0, 4096)
    assert memory.resident == 4096
    assert bytes(memory.view(0, 2, lambda: None)) == b"\0\0"
    memory.close()


def test_a_child_reads_and_writes_it_and_cannot_make_it_smaller() -> None:
    memory = SharedMemory(SIZE)
    memory.write(0, b"ping")
    program = """
import os, sys
fd = int(sys.argv[1])
assert os.pread(fd, 4, 0) == b"ping"
os.pwrite(fd, b"pong", 0)
try:
    os.ftruncate(fd, 10)
except PermissionError:
    print("sealed")
"""
    said = subprocess.run(
        [sys.executable, "-c", program, str(memory.descriptor)],
        pass_fds=(memory.descriptor,),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "sealed\n"
    assert bytes(memory.view(0, 4, lambda: None)) == b"pong"
    memory.close()


def test_nothing_is_left_when_it_could_not_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(OSError, match="no"):
        SharedMemory(SIZE)
    assert len(os.listdir("/proc/self/fd")) == before
