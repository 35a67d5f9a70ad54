"""What interpreters said that they had begun: known when they are gone, taken for begun while they may
live."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snakepit_ray.process.journal import SLOTS, Journal
from snakepit_ray.process.marks import ALL, SPARE, WORD_BYTES
from snakepit_ray.process.node import node_directory
from tests.process.conftest import killed

# What a bridge does: stores to the words it is told, and keeps the file for as long as it lives.
CHILD = """
import mmap, os, sys
descriptor, *words = map(int, sys.argv[1:])
stored = memoryview(mmap.mmap(descriptor, 0)).cast("Q")
for word in words:
    stored[word] = 1
print("stored", flush=True)
sys.stdin.readline()
"""


@contextmanager
def child(descriptor: int, *words: int) -> Iterator[subprocess.Popen[str]]:
    one = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(descriptor), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
        text=True,
    )
    try:
        assert one.stdout is not None
        assert one.stdout.readline() == "stored\n"
        yield one
    finally:
        one.communicate("")


def taken(journal: Journal, request_id: str) -> int:
    """The word of a request that an interpreter is about to get."""
    mark = journal.record(request_id, marked=True)
    assert mark is not None
    return mark.word


def test_what_an_interpreter_began_and_what_not(tmp_path: Path) -> None:
    with_marks = Journal.open("w-0", tmp_path)
    begun, waits = taken(with_marks, "begun"), taken(with_marks, "waits")
    assert with_marks.record("of another language") is None
    with child(with_marks.marks.descriptor, begun):
        assert [with_marks.marks.begun(one) for one in (begun, waits, waits + 1)] == [1, 0, ALL]
    names = ("begun", "waits", "of another language", "never")
    assert [with_marks.started_before(name) for name in names] == [True, False, True, False]
    with_marks.close()
    after = Journal.open("w-0", tmp_path)
    assert [after.started_before(name) for name in names] == [True, False, True, False]
    assert [after.started_earlier(name) for name in names] == [True, False, True, False]
    after.close()


def test_what_may_still_begin_counts_as_begun(tmp_path: Path) -> None:
    """The process before is gone, its interpreter is not: it may begin the request at any time."""
    first = Journal.open("w-0", tmp_path)
    mark = taken(first, "waits")
    with child(first.marks.descriptor):
        first.close()
        second = Journal.open("w-0", tmp_path)
        assert not second.marks.settled and second.started_before("waits")
        own = taken(second, "own")
        assert not second.started_before("own"), "that one is in an interpreter of ours"
        assert second.started_before("waits"), "asking does not lose the lock"
    assert own == mark + 1
    assert second.marks.settled and not second.started_before("waits")
    second.close()


KILLED = """
import os, signal, sys
from snakepit_ray.process.journal import Journal
journal = Journal.open("w-0", sys.argv[1])
for i in range(20):
    journal.marks.set(journal.record(f"r-{i}", marked=True).word, i % 2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_marks(tmp_path: Path) -> None:
    killed(KILLED, tmp_path)
    after = Journal.open("w-0", tmp_path)
    assert [after.started_before(f"r-{i}") for i in range(20)] == [bool(i % 2) for i in range(20)]
    after.close()


@pytest.mark.parametrize("damage", ["gone", "short", "a link"])
def test_lost_marks_are_taken_for_begun(tmp_path: Path, damage: str) -> None:
    first = Journal.open("w-0", tmp_path)
    taken(first, "waits")
    first.close()
    path = node_directory(tmp_path) / "journals/w-0.marks"
    content = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(content[:-1])
    if damage == "a link":
        path.symlink_to(tmp_path / "precious")
    second = Journal.open("w-0", tmp_path)
    assert second.found and not second.marks.found
    assert second.started_before("waits")
    taken(second, "new")
    second.close()
    third = Journal.open("w-0", tmp_path)
    assert (third.started_before("waits"), third.started_before("new")) == (True, False)
    third.close()


def test_a_word_stays_its_owners_for_as_long_as_that_is_in_an_interpreter(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    owner = taken(one, "long")
    one.marks.set(owner, 7)
    others = [one.record(f"r-{number}", marked=True) for number in range(SLOTS)]
    assert others[-1] is None and None not in others[:-1], "all but the one that would have had its word"
    assert one.marks.begun(owner) == 7
    last = f"r-{SLOTS - 1}"
    assert one.started_before(last), "nobody says whether it has begun"
    assert (one.where(last), one.where("long")) == (0, 0)
    one.marks.give_back(owner)
    for mark in others[:-1]:
        assert mark is not None
        mark.give_back()
    assert None not in [one.record(f"more-{number}", marked=True) for number in range(SLOTS)]
    one.close()


def test_spare_words_are_apart_and_come_round(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    marks = [one.marks.take_spare() for _ in range(SPARE)]
    assert sorted(mark.word for mark in marks if mark is not None) == list(range(SLOTS, SLOTS + SPARE))
    assert one.marks.take_spare() is None, "every one is in an interpreter"
    mark = marks[5]
    assert mark is not None
    one.marks.set(mark.word, 5)
    assert mark.begun == 5
    mark.give_back()
    assert one.marks.take_spare() == mark and mark.begun == 0
    assert one.marks.words * WORD_BYTES == one.marks.path.stat().st_size == len(memory(one.marks.descriptor))
    one.close()


def memory(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, 0)


def test_a_polite_end_removes_them(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    one.remove()
    assert os.listdir(node_directory(tmp_path) / "journals") == []
    one.close()
    one.close()
