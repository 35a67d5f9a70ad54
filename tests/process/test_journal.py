"""What one process recorded, the next one knows: against a model, through SIGKILL, with damaged files."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_ray.errors import ConfigError
from snakepit_ray.process import journal
from snakepit_ray.process.journal import SIZE, SLOTS, VERSION, WITHDRAW, Journal
from snakepit_ray.process.node import node_directory
from snakepit_ray.process.registry import Swept, register, sweep
from tests.process.conftest import GONE, killed, write_entry

NOTHING = Swept([], 0, [])
HOUR = 3600
quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reopened(old: Journal, base: Path, worker_id: str = "w-0") -> Journal:
    old.close()
    return Journal.open(worker_id, base)


def files(base: Path) -> list[str]:
    """All but the marks, whose tests are test_marks.py."""
    return sorted(name for name in os.listdir(node_directory(base) / "journals") if ".marks" not in name)


def make_older(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


# ---- what is remembered ---------------------------------------------------------------------------------


def test_what_was_recorded_had_started_before_whoever_recorded_it(tmp_path: Path) -> None:
    first = Journal.open("w-0", tmp_path)
    assert (first.found, first.damaged) == (False, False)
    assert not first.started_before("a")
    first.record("a")
    assert first.started_before("a")
    first.record("moved", 7)
    second = reopened(first, tmp_path)
    assert (second.found, second.damaged) == (True, False)
    assert (second.started_before("a"), second.started_before("b")) == (True, False)
    assert [second.where(one) for one in ("a", "moved", "never")] == [0, 7, 0]
    second.record("b")
    third = reopened(second, tmp_path)
    assert [third.started_before(one) for one in ("a", "b", "c", "")] == [True, True, False, False]
    other = Journal.open("w-1", tmp_path)
    assert not other.found and not other.started_before("a")
    third.close()
    third.close()
    other.close()


class AgainstModel(RuleBasedStateMachine):
    """Records, withdrawals and openings in any order; the model is the last SLOTS entries."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="journal-"))
        self.journal = Journal.open("w-0", self.base)
        # None: withdrawn; else the request and whether it has begun
        self.ring: deque[tuple[str, bool] | None] = deque(maxlen=SLOTS)
        self.count = self.last = 0

    @rule(
        ids=st.lists(
            st.tuples(st.text(max_size=5), st.sampled_from(["unknown", "begun", "not"])), max_size=20
        )
    )
    def record(self, ids: list[tuple[str, str]]) -> None:
        for one, fate in ids:
            mark = self.journal.record(one, marked=fate != "unknown")
            assert (mark is None) == (fate == "unknown")
            if mark is not None:
                self.journal.marks.set(mark.word, int(fate == "begun"))
                mark.give_back()
            self.ring.append((one, fate != "not"))

    @rule(many=st.integers(SLOTS // 2, SLOTS + 3))
    def record_many(self, many: int) -> None:
        for number in range(self.count, self.count + many):
            self.journal.record(f"many-{number}")
            self.ring.append((f"many-{number}", True))
        self.count += many

    @rule()
    def reopen(self) -> None:
        self.journal = reopened(self.journal, self.base)
        assert self.journal.found and not self.journal.damaged

    @rule(back=st.integers(1, 2 * WITHDRAW))
    def withdraw(self, back: int) -> None:
        newest = [one[0] for one in self.ring if one is not None][-back:]
        if newest:
            self.journal.withdraw(newest[0])
            places = [i for i, one in enumerate(self.ring) if one and one[0] == newest[0]]
            if len(self.ring) - places[-1] <= WITHDRAW:
                self.ring[places[-1]] = None

    @rule(candidate=st.integers(0, 10))
    def next_incarnation(self, candidate: int) -> None:
        number = self.journal.next_incarnation(candidate)
        assert number == max(candidate, self.last + 1)
        self.last = number

    @invariant()
    def agrees(self) -> None:
        known = {one[0] for one in self.ring if one is not None and one[1]}
        asked = {*(one[0] for one in self.ring if one), *(f"many-{i}" for i in range(0, self.count, 97)), "0"}
        wrong = {one for one in asked if self.journal.started_before(one) != (one in known)}
        assert not wrong

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.base)


AgainstModel.TestCase.settings = settings(stateful_step_count=15, deadline=None)
TestAgainstModel = AgainstModel.TestCase

KILLED = """
import os, signal, sys
from snakepit_ray.process.journal import Journal
journal = Journal.open("w-0", sys.argv[1])
for i in range(5000):
    journal.record(f"r-{i}")
journal.next_incarnation(17)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_that_it_recorded(tmp_path: Path) -> None:
    killed(KILLED, tmp_path)
    after = Journal.open("w-0", tmp_path)
    assert after.found and not after.damaged
    known = [after.started_before(f"r-{i}") for i in range(5000)]
    assert known == [False] * (5000 - SLOTS) + [True] * SLOTS
    assert after.next_incarnation(3) == 18
    after.close()


def test_a_crash_between_the_digest_and_the_cursor(tmp_path: Path) -> None:
    """The request was not handed over yet: known as started or not, and all others are as they were."""
    first = Journal.open("w-0", tmp_path)
    for i in range(10):
        first.record(f"r-{i}")
    first.record("crashed")
    first._words[journal.CURSOR] -= 1
    second = reopened(first, tmp_path)
    assert [second.started_before(f"r-{i}") for i in range(10)] == [True] * 10
    assert second.started_before("crashed")
    second.record("next")
    third = reopened(second, tmp_path)
    assert [third.started_before(f"r-{i}") for i in range(10)] == [True] * 10
    assert third.started_before("next") and not third.started_before("crashed")
    third.close()


@given(worker_id=st.text(min_size=1, max_size=20))
@quiet
def test_any_worker_has_a_file_of_its_own(tmp_path: Path, worker_id: str) -> None:
    one, plain = Journal.open(worker_id, tmp_path), Journal.open("plain", tmp_path)
    assert one.path.parent == plain.path.parent == node_directory(tmp_path) / "journals"
    one.remove()
    assert files(tmp_path) == (["plain.journal"] if worker_id != "plain" else [])
    one.close()
    plain.close()


# ---- incarnations ---------------------------------------------------------------------------------------


def test_incarnations_only_rise(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    assert [one.next_incarnation(number) for number in (0, 5, 5, 2, 100)] == [1, 5, 6, 7, 100]
    one = reopened(one, tmp_path)
    assert [one.next_incarnation(number) for number in (1, 100, 2**62)] == [101, 102, 2**62]
    one.close()


# ---- damage ---------------------------------------------------------------------------------------------


def whole(base: Path) -> bytes:
    one = Journal.open("w-0", base)
    one.record("a")
    one.close()
    return one.path.read_bytes()


def expect_fresh(base: Path) -> None:
    one = Journal.open("w-0", base)
    assert (one.found, one.damaged) == (False, True)
    assert not one.started_before("a") and one.next_incarnation(1) == 1
    one.record("b")
    one = reopened(one, base)
    assert (one.found, one.damaged, one.started_before("b")) == (True, False, True)
    assert files(base) == ["w-0.journal"], "nothing unfinished is left"
    one.close()


def words(*changes: tuple[int, int]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        edited = bytearray(data)
        for word, value in changes:
            struct.pack_into("=Q", edited, word * 8, value)
        return bytes(edited)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[:-1], lambda data: data + b"\0", lambda data: bytes(SIZE),
        words((0, 1)), words((1, VERSION + 1)), words((2, SLOTS + 1)),
        words((3, 2**64 - 1)), words((4, 2**64 - 1)),
    ],
    ids=["empty", "short", "long", "zeros", "magic", "version", "slots", "cursor", "incarnation"],
)  # fmt: skip
def test_a_damaged_journal_is_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = whole(tmp_path)
    (node_directory(tmp_path) / "journals/w-0.journal").write_bytes(damage(data))
    expect_fresh(tmp_path)


def test_what_is_no_file_is_replaced(tmp_path: Path) -> None:
    data = whole(tmp_path)
    path = node_directory(tmp_path) / "journals/w-0.journal"
    path.unlink()
    os.mkfifo(path)
    expect_fresh(tmp_path)
    precious = tmp_path / "precious"
    precious.write_bytes(data)
    path.unlink()
    path.symlink_to(precious)
    expect_fresh(tmp_path)
    assert precious.read_bytes() == data, "a link is not followed"


@quiet
@given(data=st.data())
def test_bytes_that_changed_never_raise(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(whole(tmp_path))
    at = data.draw(st.lists(st.integers(0, 2 * journal.HEADER.size), min_size=1, max_size=8))
    for place in at:
        content[place] = data.draw(st.integers(0, 255))
    one = Journal.open("w-0", tmp_path)
    one.path.write_bytes(content)
    one = reopened(one, tmp_path)
    assert one.found != one.damaged
    one.record("b")
    assert one.next_incarnation(1) >= 1
    one = reopened(one, tmp_path)
    assert one.found and one.started_before("b")
    one.close()
    one.remove()


def test_a_file_is_never_a_hole(tmp_path: Path) -> None:
    """A store into a hole of a full disk would end the process."""
    one = Journal.open("w-0", tmp_path)
    with one.path.open("rb") as file:
        os.fsync(file.fileno())
    assert one.path.stat().st_blocks * 512 >= SIZE
    one.close()


# ---- its end --------------------------------------------------------------------------------------------


def test_a_polite_end_removes_it(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    one.record("a")
    one.remove()
    one.remove()
    one.record("late")
    assert files(tmp_path) == []
    next_one = reopened(one, tmp_path)
    assert not next_one.found and not next_one.started_before("a")
    next_one.close()


def test_a_sweep_removes_what_nobody_needs(tmp_path: Path) -> None:
    for worker in ("named", "used", "open", "old"):
        Journal.open(worker, tmp_path).close()
    held = Journal.open("open", tmp_path)
    register("t", "named", "pool", "/somewhere", base=tmp_path)
    folder = node_directory(tmp_path) / "journals"
    (folder / ".old.journal.1234").touch()
    assert sweep(base=tmp_path) == NOTHING
    for name in ("named.journal", "open.journal", "old.journal", ".old.journal.1234"):
        make_older(folder / name, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, [folder / ".old.journal.1234", folder / "old.journal"])
    assert files(tmp_path) == ["named.journal", "open.journal", "used.journal"]
    held.close()
    assert sweep(base=tmp_path) == Swept([], 0, [folder / "open.journal"])


@pytest.mark.parametrize("name", ["w-0", "w-0-1f5e"], ids=["a worker", "its actor"])
def test_the_journal_of_a_worker_that_was_killed_has_an_hour_from_then(tmp_path: Path, name: str) -> None:
    """Its process ran for long without a change of the file's time; Ray may start the worker again."""
    one = Journal.open(name, tmp_path)
    one.close()
    make_older(one.path, 10 * HOUR)
    write_entry(tmp_path, "t", worker_id="w-0", **GONE)
    assert sweep(base=tmp_path) == Swept([], 1, [])
    assert sweep(base=tmp_path) == NOTHING
    make_older(one.path, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, [one.path])


def test_a_name_that_only_begins_alike_is_another_workers(tmp_path: Path) -> None:
    Journal.open("w-01", tmp_path).close()
    path = node_directory(tmp_path) / "journals/w-01.journal"
    make_older(path, 2 * HOUR)
    write_entry(tmp_path, "t", worker_id="w-0", **GONE)
    assert sweep(base=tmp_path) == Swept([], 1, [path])


def test_opening_is_a_use(tmp_path: Path) -> None:
    one = Journal.open("w-0", tmp_path)
    make_older(one.path, 2 * HOUR)
    reopened(one, tmp_path).close()
    assert sweep(base=tmp_path) == NOTHING


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    node_directory(tmp_path).symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="symbolic link"):
        Journal.open("w-0", tmp_path)
