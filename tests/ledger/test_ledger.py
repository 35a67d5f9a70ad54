"""What one process noted, the next one knows: through SIGKILL, beside living interpreters, with damage."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit_ray.errors import ConfigError, PoolSaturated
from snakepit_ray.ledger import ALL, LARGEST, NOT_BEGUN, UNKNOWN, Begun, Ended, Entry, Ledger
from snakepit_ray.ledger.layout import FIRST_BYTES, FIRST_ENTRIES, HEADER, RING_BYTES, VERSION
from snakepit_ray.ledger.ledger import EARLIER_SECONDS, LINGER_SECONDS
from snakepit_ray.ledger.outcomes import RECORD
from snakepit_ray.process.node import node_directory
from snakepit_ray.process.registry import Swept, register, sweep
from tests.process.conftest import GONE, killed, write_entry

NOTHING = Swept([], 0, [])
HOUR = 3600
patient = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
quiet = settings(deadline=None, suppress_health_check=patient)


def reopened(old: Ledger, base: Path, worker_id: str = "w-0") -> Ledger:
    old.close()
    return Ledger.open(worker_id, base)


def inside(ledger: Ledger, request_id: str) -> Entry:
    """The entry of a request that an interpreter has."""
    return ledger.begin(request_id, marked=True)


def path_of(base: Path) -> Path:
    return node_directory(base) / "journals/w-0.ledger"


def files(base: Path) -> list[str]:
    return sorted(os.listdir(node_directory(base) / "journals"))


def make_older(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


# ---- what is remembered ---------------------------------------------------------------------------------


def test_what_was_noted_is_known_to_the_next_process(tmp_path: Path) -> None:
    first = Ledger.open("w-0", tmp_path)
    assert (first.found, first.damaged) == (False, False)
    first.words[inside(first, "begun").word] = 3
    inside(first, "waits")
    first.begin("unmarked")
    first.begin("moved", 7)
    first.begin("refused", 7).refused()
    first.begin("ended").end(b"outcome")
    first.begin("x" * 200).end(b"of a long name")
    expected = {
        "begun": Begun(3), "waits": NOT_BEGUN, "unmarked": Begun(ALL), "moved": Begun(ALL, 7),
        "refused": NOT_BEGUN, "ended": Ended(b"outcome"), "x" * 200: Ended(b"of a long name"),
        "never": UNKNOWN, "": UNKNOWN,
    }  # fmt: skip
    assert {one: first.recall(one) for one in expected} == expected
    second = reopened(first, tmp_path)
    assert (second.found, second.damaged) == (True, False)
    assert {one: second.recall(one) for one in expected} == expected
    assert second.begin("ended").begun == ALL and second.recall("ended") == Ended(b"outcome")
    other = Ledger.open("w-1", tmp_path)
    assert not other.found and other.recall("begun") is UNKNOWN
    for one in (second, second, other):
        one.close()


def test_a_request_is_remembered_however_many_come_after_it(tmp_path: Path) -> None:
    """One long command, thousands of short ones, the worker is killed: the long one does not run twice."""
    ledger = Ledger.open("w-0", tmp_path)
    long = inside(ledger, "long")
    ledger.words[long.word] = 1
    refused = ledger.begin("refused", 2)
    for number in range(3 * FIRST_ENTRIES):
        inside(ledger, f"short-{number}").end(None)  # the interpreter has all of them
    refused.refused()
    assert (ledger.recall("long"), ledger.recall("refused")) == (Begun(1), NOT_BEGUN)
    ledger = reopened(ledger, tmp_path)
    assert (ledger.recall("long"), ledger.recall("refused")) == (Begun(1), NOT_BEGUN)
    ledger.close()


def test_entries_whose_answers_have_left_are_used_again(tmp_path: Path) -> None:
    now = 0.0
    ledger = Ledger.open("w-0", tmp_path, lambda: now)
    for number in range(20 * FIRST_ENTRIES):
        now += LINGER_SECONDS / FIRST_ENTRIES * 4
        ledger.begin(f"r-{number}").end(b"1")
    assert path_of(tmp_path).stat().st_size == FIRST_BYTES, "no more than a quarter of them is on its way"
    assert ledger.recall(f"r-{number}") == Ended(b"1") and ledger.recall("r-0") is UNKNOWN
    assert len(ledger._entries) < FIRST_ENTRIES / 2
    ledger.close()


def test_what_an_earlier_process_left_is_kept_for_an_hour(tmp_path: Path) -> None:
    now = 0.0
    first = Ledger.open("w-0", tmp_path, lambda: now)
    first.begin("late")
    first.close()
    second = Ledger.open("w-0", tmp_path, lambda: now)
    for now in (0.0, LINGER_SECONDS + 2, EARLIER_SECONDS - 1):
        second.begin(f"at-{now}").end(b"")
        assert second.recall("late") == Begun(ALL)
    now = EARLIER_SECONDS + LINGER_SECONDS + 2
    second.begin("after")
    assert second.recall("late") is UNKNOWN
    second.close()


def test_another_attempt_does_not_forget_that_the_first_one_had_begun(tmp_path: Path) -> None:
    ledger = Ledger.open("w-0", tmp_path)
    entry = inside(ledger, "again")
    ledger.words[entry.word] = 1
    entry.left()
    assert inside(ledger, "again") is entry
    assert entry.begun == 0, "of this attempt"
    assert ledger.recall("again") == Begun(ALL)
    entry.left()
    ledger.begin("again", 5).refused()
    assert ledger.recall("again") == Begun(ALL)
    ledger = reopened(ledger, tmp_path)
    assert ledger.recall("again") == Begun(ALL)
    ledger.close()


def test_a_word_is_its_owners_until_the_interpreter_has_let_go(tmp_path: Path) -> None:
    """Whoever waited for it is gone (cancelled), and it may still begin."""
    now = 0.0
    ledger = Ledger.open("w-0", tmp_path, lambda: now)
    cancelled, stream = inside(ledger, "cancelled"), inside(ledger, "stream")
    cancelled.end(None), stream.drop()
    words = {ledger.begin(f"r-{number}").word for number in range(2 * FIRST_ENTRIES)}
    now = 10 * LINGER_SECONDS
    words.update(ledger.begin(f"more-{number}").word for number in range(2 * FIRST_ENTRIES))
    assert not words & {cancelled.word, stream.word}
    cancelled.left(), stream.left()
    assert set(ledger._free) >= {cancelled.word, stream.word}, "nothing of them had begun"
    ledger.close()


KILLED = """
import os, signal, sys
from snakepit_ray.ledger import Ledger
ledger = Ledger.open("w-0", sys.argv[1])
for i in range(5000):
    entry = ledger.begin(f"r-{i}", marked=True)
    ledger.words[entry.word] = i % 2
    if i % 4 == 1:
        entry.left()
        entry.end(b"%d" % i)
ledger.next_incarnation(17)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_that_it_noted(tmp_path: Path) -> None:
    killed(KILLED, tmp_path)
    after = Ledger.open("w-0", tmp_path)
    assert after.found and not after.damaged
    expected = {0: NOT_BEGUN, 2: NOT_BEGUN, 3: Begun(1)}
    for i in range(5000):
        assert after.recall(f"r-{i}") == expected.get(i % 4, Ended(b"%d" % i))
    assert after.next_incarnation(3) == 18
    after.close()


def test_incarnations_only_rise(tmp_path: Path) -> None:
    one = Ledger.open("w-0", tmp_path)
    assert [one.next_incarnation(number) for number in (0, 5, 5, 2, 100)] == [1, 5, 6, 7, 100]
    one = reopened(one, tmp_path)
    assert [one.next_incarnation(number) for number in (1, 100, 2**62)] == [101, 102, 2**62]
    one.close()


# ---- outcomes -------------------------------------------------------------------------------------------


def test_an_outcome_is_kept_until_newer_ones_need_its_room(tmp_path: Path) -> None:
    """What is lost is the outcome. That the request has begun is not forgotten."""
    ledger = Ledger.open("w-0", tmp_path)
    fit = RING_BYTES // (LARGEST + RECORD.size)
    for number in range(fit + 3):
        ledger.begin(f"r-{number}").end(bytes([number]) * LARGEST)
    ledger.begin("large").end(bytes(LARGEST + 1))
    for _ in range(2):
        kept = [ledger.recall(f"r-{number}") for number in range(fit + 3)]
        assert kept[3:] == [Ended(bytes([number]) * LARGEST) for number in range(3, fit + 3)]
        assert kept[0] == ledger.recall("large") == Begun(ALL)
        ledger = reopened(ledger, tmp_path)
    ledger.begin("next").end(b"!")
    assert ledger.recall("next") == Ended(b"!") and ledger.recall(f"r-{fit + 2}") == kept[-1]
    ledger.close()


# ---- interpreters that outlive their host --------------------------------------------------------------


# What a bridge does: stores to the words it is told, and keeps the file for as long as it lives.
CHILD = """
import os, struct, sys
descriptor, *words = map(int, sys.argv[1:])
for word in words:
    os.pwrite(descriptor, struct.pack("=Q", 1), 8 * word)
print("stored", flush=True)
sys.stdin.readline()
"""


@contextmanager
def child(descriptor: int, *words: int) -> Iterator[None]:
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
        yield
    finally:
        one.communicate("")


def test_what_another_process_writes_is_read_and_what_may_still_begin_counts_as_begun(tmp_path: Path) -> None:
    first = Ledger.open("w-0", tmp_path)
    begun, waits = inside(first, "begun"), inside(first, "waits")
    with child(first.descriptor, begun.word):
        assert (begun.begun, waits.begun) == (1, 0)
        first.close()
        second = Ledger.open("w-0", tmp_path)
        assert not second.settled and second.recall("waits") == Begun(ALL)
        own = inside(second, "own")
        assert second.recall("own") is NOT_BEGUN, "that one is in an interpreter of ours"
        assert second.recall("waits") == Begun(ALL), "asking does not lose the lock"
        assert own.word not in (begun.word, waits.word)
    assert second.settled and second.recall("waits") is NOT_BEGUN
    second.close()


# ---- growth ---------------------------------------------------------------------------------------------


def test_a_file_is_never_a_hole(tmp_path: Path) -> None:
    """A store into a hole of a full disk would end the process."""
    ledger = Ledger.open("w-0", tmp_path)
    for number in range(2 * FIRST_ENTRIES):
        ledger.begin(f"r-{number}")
    facts = path_of(tmp_path).stat()
    os.fsync(ledger.descriptor)
    assert path_of(tmp_path).stat().st_blocks * 512 >= facts.st_size > FIRST_BYTES
    ledger.close()


def test_a_full_disk_refuses_the_request_and_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes, at: int) -> int:
        if at > FIRST_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:100], at)

    write = os.pwrite
    ledger = Ledger.open("w-0", tmp_path)
    for number in range(FIRST_ENTRIES):
        ledger.begin(f"r-{number}")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(PoolSaturated, match=rf"{FIRST_ENTRIES} entries.*No space left.*TMPDIR"):
        ledger.begin("refused")
    assert ledger.recall("refused") is UNKNOWN
    monkeypatch.undo()
    ledger = reopened(ledger, tmp_path)
    assert ledger.found and ledger.recall(f"r-{FIRST_ENTRIES - 1}") == Begun(ALL)
    ledger.begin("now").end(b"1")
    assert ledger.recall("now") == Ended(b"1")
    ledger.close()


# ---- damage ---------------------------------------------------------------------------------------------


def expect_fresh(base: Path) -> None:
    one = Ledger.open("w-0", base)
    assert (one.found, one.damaged) == (False, True)
    assert one.recall("a") is UNKNOWN and one.next_incarnation(1) == 1
    one.begin("b")
    one = reopened(one, base)
    assert (one.found, one.damaged, one.recall("b")) == (True, False, Begun(ALL))
    assert [name for name in files(base) if not name.endswith(".directory")] == ["w-0.ledger"]
    one.close()


def written(base: Path) -> bytes:
    one = Ledger.open("w-0", base)
    one.begin("a").end(b"1")
    one.close()
    return path_of(base).read_bytes()


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
        lambda data: b"", lambda data: data[:-1], lambda data: bytes(len(data)),
        words((0, 1)), words((1, VERSION + 1)), words((2, 2**64 - 1)),
    ],
    ids=["empty", "short", "zeros", "magic", "version", "incarnation"],
)  # fmt: skip
def test_a_damaged_ledger_is_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = written(tmp_path)
    path_of(tmp_path).write_bytes(damage(data))
    expect_fresh(tmp_path)


def test_what_is_no_file_is_replaced(tmp_path: Path) -> None:
    data, path = written(tmp_path), path_of(tmp_path)
    path.unlink()
    os.mkfifo(path)
    expect_fresh(tmp_path)
    precious = tmp_path / "precious"
    precious.write_bytes(data)
    path.unlink()
    path.symlink_to(precious)
    expect_fresh(tmp_path)
    assert precious.read_bytes() == data, "a link is not followed"
    path.unlink()
    path.mkdir()
    (path / "of somebody").touch()
    expect_fresh(tmp_path)
    (aside,) = [name for name in files(tmp_path) if name.endswith(".directory")]
    assert os.listdir(path.parent / aside) == ["of somebody"], "it is moved aside"


@quiet
@given(data=st.data())
def test_bytes_that_changed_never_raise_and_never_give_a_wrong_outcome(
    tmp_path: Path, data: st.DataObject
) -> None:
    one = Ledger.open("w-0", tmp_path)
    for number in range(4):
        one.begin(f"k{number}").end(b"%d" % number * 5)
    one.close()
    content = bytearray(path_of(tmp_path).read_bytes())
    places = st.integers(0, HEADER.size + 100) | st.integers(
        FIRST_BYTES - FIRST_ENTRIES * 64, FIRST_BYTES - 1
    )
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path_of(tmp_path).write_bytes(content)
    one = Ledger.open("w-0", tmp_path)
    assert one.found != one.damaged
    for n in range(4):
        state = one.recall(f"k{n}")
        assert not isinstance(state, Ended) or state.outcome == b"%d" % n * 5
    one.begin("new").end(b"!")
    assert one.next_incarnation(1) >= 1
    one = reopened(one, tmp_path)
    assert one.found and one.recall("new") in (Ended(b"!"), Begun(ALL))
    one.close()
    one.remove()


# ---- its end --------------------------------------------------------------------------------------------


@given(worker_id=st.text(min_size=1, max_size=20))
@quiet
def test_any_worker_has_a_file_of_its_own(tmp_path: Path, worker_id: str) -> None:
    one, plain = Ledger.open(worker_id, tmp_path), Ledger.open("plain", tmp_path)
    assert one.path.parent == plain.path.parent == node_directory(tmp_path) / "journals"
    one.remove()
    assert files(tmp_path) == (["plain.ledger"] if worker_id != "plain" else [])
    one.close()
    plain.close()


def test_a_polite_end_removes_it(tmp_path: Path) -> None:
    one = Ledger.open("w-0", tmp_path)
    one.begin("a")
    one.remove()
    one.remove()
    one.begin("late")
    assert files(tmp_path) == []
    next_one = reopened(one, tmp_path)
    assert not next_one.found and next_one.recall("a") is UNKNOWN
    next_one.close()
    next_one.close()


def test_a_sweep_removes_what_nobody_needs(tmp_path: Path) -> None:
    for worker in ("named", "used", "open", "old"):
        Ledger.open(worker, tmp_path).close()
    held = Ledger.open("open", tmp_path)
    register("t", "named", "pool", "/somewhere", base=tmp_path)
    folder = node_directory(tmp_path) / "journals"
    (folder / ".old.ledger.1234").touch()
    assert sweep(base=tmp_path) == NOTHING
    for name in ("named.ledger", "open.ledger", "old.ledger", ".old.ledger.1234"):
        make_older(folder / name, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, [folder / ".old.ledger.1234", folder / "old.ledger"])
    assert files(tmp_path) == ["named.ledger", "open.ledger", "used.ledger"]
    held.close()
    assert sweep(base=tmp_path) == Swept([], 0, [folder / "open.ledger"])


@pytest.mark.parametrize("name", ["w-0", "w-0-1f5e"], ids=["a worker", "its actor"])
def test_the_ledger_of_a_worker_that_was_killed_has_an_hour_from_then(tmp_path: Path, name: str) -> None:
    """Its process ran for long without a change of the file's time; Ray may start the worker again."""
    one = Ledger.open(name, tmp_path)
    one.close()
    make_older(one.path, 10 * HOUR)
    write_entry(tmp_path, "t", worker_id="w-0", **GONE)
    assert sweep(base=tmp_path) == Swept([], 1, [])
    assert sweep(base=tmp_path) == NOTHING
    make_older(one.path, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, [one.path])


def test_a_name_that_only_begins_alike_is_another_workers(tmp_path: Path) -> None:
    one = Ledger.open("w-01", tmp_path)
    one.close()
    make_older(one.path, 2 * HOUR)
    write_entry(tmp_path, "t", worker_id="w-0", **GONE)
    assert sweep(base=tmp_path) == Swept([], 1, [one.path])


def test_opening_is_a_use(tmp_path: Path) -> None:
    one = Ledger.open("w-0", tmp_path)
    make_older(one.path, 2 * HOUR)
    reopened(one, tmp_path).close()
    assert sweep(base=tmp_path) == NOTHING


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    node_directory(tmp_path).symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="symbolic link"):
        Ledger.open("w-0", tmp_path)
