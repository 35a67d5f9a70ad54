"""Real processes, real owners, real SIGKILL: what a sweep ends, and above all what it does not."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit_ray.errors import ConfigError
from snakepit_ray.process import place, registry, tree
from snakepit_ray.process.launch import TOKEN_VARIABLE
from snakepit_ray.process.node import node_directory
from snakepit_ray.process.registry import State, Swept, entries, register, sweep
from tests.conftest import wait_until
from tests.process.conftest import GONE, Owner, alive, write_entry

NOTHING = Swept([], 0, [])
HOUR, DAY = 3600, 86_400


def names(base: Path) -> set[str]:
    return set(os.listdir(node_directory(base) / "processes"))


def make_older(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture(scope="module")
def innocent() -> Iterator[int]:
    """A living process that carries no token."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    assert process.poll() is None, "an innocent process was hit"
    process.kill()
    process.wait()


# ---- one entry ------------------------------------------------------------------------------------------


def test_an_entry_is_there_before_its_process_and_goes_with_it(
    tmp_path: Path, carrier: Callable[[str], int]
) -> None:
    entry = register("a1b2", "w-7", "features", "/somewhere", base=tmp_path)
    assert names(tmp_path) == {"a1b2.json"}
    (found,) = entries(base=tmp_path)
    assert found == (entry.record, State.DEAD, ())
    facts = json.loads(entry.path.read_text())
    assert (facts["token"], facts["worker_id"], facts["pool"]) == ("a1b2", "w-7", "features")
    assert (facts["pid"], facts["started"], facts["owner_pid"]) == (0, "", os.getpid())
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    pid = carrier("a1b2")
    entry.started(pid)
    (found,) = entries(base=tmp_path)
    assert found.state is State.ALIVE
    assert found.processes == (tree.identity(pid),) == ((found.record.pid, found.record.started),)
    assert names(tmp_path) == {"a1b2.json"}, "nothing unfinished is left"

    entry.remove()
    entry.remove()
    entry.started(pid)
    assert names(tmp_path) == set()
    assert entries(base=tmp_path) == []


def test_looking_creates_nothing(tmp_path: Path) -> None:
    assert entries(base=tmp_path) == []
    assert sweep(base=tmp_path) == NOTHING
    assert list(tmp_path.iterdir()) == []


def test_states(tmp_path: Path, owner: Callable[..., Owner]) -> None:
    lost, kept = owner("w-lost"), owner("w-kept")
    register("none", "w-none", "pool", "/somewhere", base=tmp_path)
    lost.kill()
    found = {entry.record.worker_id: entry for entry in entries(base=tmp_path)}
    states = {worker: entry.state.value for worker, entry in found.items()}
    assert states == {"w-lost": "orphan", "w-kept": "alive", "w-none": "dead"}
    assert {process.pid for process in found["w-lost"].processes} == set(lost.pids)
    assert all(alive(pid) for pid in (*lost.pids, *kept.pids)), "looking ends nothing"


# ---- sweeping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("say_started", [True, False])
def test_a_killed_owners_processes_end_and_nobody_elses(
    tmp_path: Path, owner: Callable[..., Owner], innocent: int, say_started: bool
) -> None:
    """Also when it was killed before it wrote down the pid: the token is enough."""
    lost, kept = owner("w-lost", say_started), owner("w-kept")
    assert sweep(base=tmp_path) == NOTHING, "both owners live"
    lost.kill()
    assert all(alive(pid) for pid in lost.pids), "they have no lifeline, and one is in another session"
    assert os.getsid(lost.pids[1]) == lost.pids[1]

    killed, removed, files = sweep(base=tmp_path)
    assert sorted(killed) == sorted(lost.pids)
    assert (removed, files) == (1, [lost.directory])
    assert not any(alive(pid) for pid in lost.pids), "gone when it returns"
    assert not lost.directory.exists()
    assert all(alive(pid) for pid in (*kept.pids, innocent))
    assert kept.process.poll() is None and (kept.directory / "s").exists()
    assert names(tmp_path) == {f"{kept.token}.json"}
    assert sweep(base=tmp_path) == NOTHING


def test_a_living_owners_entry_stays_while_its_process_is_dead(tmp_path: Path) -> None:
    directory = tmp_path / "snakepit-mine"
    directory.mkdir()
    entry = register("mine", "w-0", "pool", str(directory), base=tmp_path)
    make_older(entry.path, 30 * DAY)
    assert sweep(base=tmp_path) == NOTHING
    assert entry.path.exists() and directory.exists()


def test_a_pid_that_was_reused_is_not_hit(tmp_path: Path, innocent: int) -> None:
    """As the interpreter's, as the owner's, and as both."""
    write_entry(tmp_path, "nobody1", pid=innocent, started="1", **GONE)
    write_entry(tmp_path, "nobody2", owner_pid=innocent, owner_started="1")
    write_entry(tmp_path, "nobody3", pid=innocent, started="1", owner_pid=innocent, owner_started="1")
    assert sweep(base=tmp_path) == Swept([], 3, [])
    assert alive(innocent)


def test_a_pid_with_the_right_time_is_not_enough_without_the_token(tmp_path: Path, innocent: int) -> None:
    write_entry(tmp_path, "nobody", pid=innocent, started=tree.identity(innocent).started, **GONE)
    assert sweep(base=tmp_path) == Swept([], 1, [])
    assert alive(innocent)


def test_an_owners_pid_that_was_reused_means_that_it_is_gone(
    tmp_path: Path, carrier: Callable[[str], int], innocent: int
) -> None:
    pid = carrier("feed")
    write_entry(tmp_path, "feed", pid=pid, owner_pid=innocent, owner_started="1")
    assert sweep(base=tmp_path) == Swept([pid], 1, [])
    assert alive(innocent)


def test_nothing_outlives_a_reboot(tmp_path: Path) -> None:
    """This process's own pid and start time, written down in another life of the machine."""
    write_entry(tmp_path, "old", boot_id="another")
    assert sweep(base=tmp_path) == Swept([], 1, [])


@pytest.mark.parametrize("changes", [{"namespace": "pid:[1]"}, {"host": "other", "boot_id": "another"}])
def test_what_cannot_be_judged_from_here_is_left_alone(
    tmp_path: Path, carrier: Callable[[str], int], changes: dict[str, str]
) -> None:
    """Another container, or another host on a shared file system: its pids mean nothing here."""
    directory = tmp_path / "snakepit-theirs"
    directory.mkdir()
    pid = carrier("theirs")
    path = write_entry(tmp_path, "theirs", pid=pid, directory=str(directory), **GONE, **changes)
    assert [entry.state for entry in entries(base=tmp_path)] == [State.ELSEWHERE]
    assert sweep(base=tmp_path) == NOTHING
    make_older(path, 8 * DAY)
    assert sweep(base=tmp_path) == Swept([], 1, []), "but not for ever"
    assert alive(pid) and directory.exists()


def test_what_does_not_die_keeps_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "snakepit-stuck"
    directory.mkdir()
    path = write_entry(tmp_path, "stuck", directory=str(directory), **GONE)
    write_entry(tmp_path, "other", **GONE)
    monkeypatch.setattr(tree, "end", lambda tokens, seconds: ([17], {"stuck"}))
    assert sweep(base=tmp_path) == Swept([17], 1, [])
    assert path.exists() and directory.exists()


def test_only_socket_directories_are_removed(tmp_path: Path) -> None:
    inner, right = tmp_path / "inner" / "snakepit-x", tmp_path / "snakepit-x"
    other, target, file = tmp_path / "data", tmp_path / "target", tmp_path / "snakepit-file"
    for path in (inner, right, other, target):
        path.mkdir(parents=True)
        (path / "precious").touch()
    link = tmp_path / "snakepit-link"
    link.symlink_to(target)
    file.touch()
    node = node_directory(tmp_path)
    odd = (f"{right}/..", "", "snakepit-x", "/", f"{tmp_path}/inner/../snakepit-file", "snakepit-\0")
    for number, directory in enumerate((inner, right, other, link, file, node, *odd)):
        write_entry(tmp_path, f"t{number}", directory=str(directory), **GONE)
    assert sweep(base=tmp_path) == Swept([], 12, [right])
    assert not right.exists()
    assert all((path / "precious").exists() for path in (inner, other, target))
    assert link.is_symlink() and file.exists() and names(tmp_path) == set()


def test_sweeps_at_the_same_time(tmp_path: Path, carrier: Callable[[str], int]) -> None:
    pids = {}
    for number in range(60):
        directory = tmp_path / f"snakepit-{number}"
        directory.mkdir()
        write_entry(tmp_path, f"t{number}", directory=str(directory), **GONE)
        if number % 5 == 0:
            pids[number] = carrier(f"t{number}")
    with ThreadPoolExecutor(4) as pool:
        swept = [done.result() for done in [pool.submit(sweep, base=tmp_path) for _ in range(4)]]
    assert {pid for one in swept for pid in one.killed} == set(pids.values())
    assert sum(one.entries for one in swept) == 60, "each entry is removed once"
    assert not any(alive(pid) for pid in pids.values())
    assert names(tmp_path) == set() and list(tmp_path.glob("snakepit-[0-9]*")) == [node_directory(tmp_path)]


def test_a_thousand_stale_entries_cost_one_look_at_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):
        write_entry(tmp_path, f"t{number}", **GONE)
    looks, real = [], tree._looks
    monkeypatch.setattr(tree, "_looks", lambda: looks.append(1) or real())
    assert sweep(base=tmp_path) == Swept([], 1000, [])
    assert len(looks) == 1
    assert sweep(base=tmp_path) == NOTHING
    assert len(looks) == 1, "and none where nobody is gone"


# ---- files that are no entries --------------------------------------------------------------------------


def rubbish(folder: Path) -> dict[str, Path]:
    """Files that are no entries, and a directory."""
    made = {name: folder / name for name in ("half.json", "foreign", "list.json", ".t.json.0a", "wrong.json")}
    made["half.json"].write_text('{"token": "half", "host": "')
    made["foreign"].write_bytes(b"\xff\x00" * 40_000)
    made["list.json"].write_text("[]")
    made[".t.json.0a"].touch()
    made["wrong.json"].write_text((folder / "right.json").read_text())  # another token than its name
    made |= {"pipe.json": folder / "pipe.json", "link.json": folder / "link.json"}
    os.mkfifo(made["pipe.json"])
    made["link.json"].symlink_to(folder.parent.parent / "precious")
    return made


def test_rubbish_is_skipped_and_goes_when_it_is_old(tmp_path: Path) -> None:
    right = register("right", "w-0", "pool", "/somewhere", base=tmp_path)
    write_entry(tmp_path, "link", **GONE).rename(tmp_path / "precious")  # an entry, but for its place
    folder = right.path.parent
    made = rubbish(folder)
    (folder / "directory.json").mkdir()
    assert [entry.record.token for entry in entries(base=tmp_path)] == ["right"]
    assert sweep(base=tmp_path) == NOTHING, "they may be in the making"
    for path in (*made.values(), folder / "directory.json", right.path):
        make_older(path, HOUR)
    killed, removed, files = sweep(base=tmp_path)
    assert (killed, removed, set(files)) == ([], 0, set(made.values()))
    assert names(tmp_path) == {"right.json", "directory.json"}
    assert (tmp_path / "precious").exists()


FIELDS = ("token", "host", "boot_id", "owner_pid", "owner_started", "worker_id", "directory", "created_at")
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(10**400), st.just("\ud800"),
    st.just("x" * 5000), st.just(float("nan")), st.lists(st.integers()), st.just("../../x"),
)  # fmt: skip
quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(data=st.binary(max_size=300))
def test_any_bytes_are_no_error(tmp_path: Path, data: bytes) -> None:
    path = register("deed", "w-0", "pool", "/somewhere", base=tmp_path).path
    path.write_bytes(data)
    assert sweep(base=tmp_path) == NOTHING and entries(base=tmp_path) == []
    path.unlink()


@quiet
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JUNK, min_size=1, max_size=3), gone=st.booleans())
def test_any_facts_are_no_error(tmp_path: Path, changes: dict[str, Any], gone: bool) -> None:
    path = write_entry(tmp_path, "feed", **{**(GONE if gone else {}), **changes, "pool": "p"})
    found = entries(base=tmp_path)
    assert len(found) <= 1 and all(0 <= entry.record.created_at < 1e11 for entry in found)
    killed, removed, files = sweep(base=tmp_path)
    assert (killed, files) == ([], []) and removed in (0, 1)
    path.unlink(missing_ok=True)


def test_an_entry_of_a_later_version_is_one(tmp_path: Path) -> None:
    write_entry(tmp_path, "later", gpu=3)
    assert [entry.record.token for entry in entries(base=tmp_path)] == ["later"]


# ---- whose directory ------------------------------------------------------------------------------------


def test_the_node_directory_is_ours_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        register("a", "w-0", "pool", "/somewhere", base=tmp_path)
        node = node_directory(tmp_path)
        assert node.name == f"snakepit-{os.geteuid()}"
        assert {stat.S_IMODE(path.stat().st_mode) for path in (node, node / "processes")} == {0o700}
        node.chmod(0o777)
        register("b", "w-0", "pool", "/somewhere", base=tmp_path)
        assert stat.S_IMODE(node.stat().st_mode) == 0o700
    finally:
        os.umask(previous)


def everything_refuses(base: Path, words: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: register("a", "w-0", "pool", "/somewhere", base=base),
        lambda: entries(base=base),
        lambda: sweep(base=base),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=words) as refused:
            call()
        assert str(node_directory(base)) in str(refused.value) and "TMPDIR" in str(refused.value)


@pytest.mark.parametrize("inner", [False, True])
def test_a_link_is_refused(tmp_path: Path, inner: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    node = node_directory(tmp_path)
    if inner:
        node.mkdir(mode=0o700)
    (node / "processes" if inner else node).symlink_to(elsewhere)
    everything_refuses(tmp_path, "symbolic link")
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    node_directory(tmp_path).touch()
    everything_refuses(tmp_path, "not a directory")


def test_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    node_directory(tmp_path).mkdir()
    everything_refuses(tmp_path, f"belongs to user {us}")


# ---- the scan -------------------------------------------------------------------------------------------


def test_one_scan_finds_all_tokens(carrier: Callable[[str], int], innocent: int) -> None:
    pids = [carrier("twin"), carrier("twin"), carrier("single")]
    found = tree.families({"twin", "single", "twi"})
    assert {process.pid for process in found["twin"]} == set(pids[:2])
    assert [process.pid for process in found["single"]] == pids[2:]
    assert found["twin"] == tree.find("twin")
    assert "twi" not in found and innocent not in {p.pid for some in found.values() for p in some}


def test_one_in_the_midst_of_an_exec_is_seen() -> None:
    """`Popen` returns when the old memory is gone, which is before the new environment is there."""
    env = {**os.environ, TOKEN_VARIABLE: "haste"}
    for _ in range(200):
        process = subprocess.Popen(["sleep", "600"], env=env)
        found = [one.pid for one in tree.find("haste")]
        process.kill()
        process.wait()
        assert found == [process.pid]


def test_one_without_any_environment_is_not_waited_for() -> None:
    process = subprocess.Popen(["/bin/sleep", "600"], env={})
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    began = time.monotonic()
    found, took = tree.find("nobody"), time.monotonic() - began
    process.kill()
    process.wait()
    assert found == [] and took < tree.EXEC_SECONDS


def test_a_signal_goes_only_to_who_was_found(carrier: Callable[[str], int]) -> None:
    """What was found is looked at again: another process may have the pid by now."""
    process = tree.Member(tree.identity(carrier("mine")))
    pid = process.process.pid
    assert not tree._signal_one(tree.Member(tree.Identity(pid, "1")), "mine", signal.SIGKILL)
    assert not tree._signal_one(process, "other", signal.SIGKILL)
    assert alive(pid)
    assert tree._signal_one(process, "mine", signal.SIGKILL)
    wait_until(lambda: not alive(pid))


def test_one_that_was_forked_meanwhile_is_found_the_next_time_round(
    carrier: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pids, real, looks = [carrier("feed"), carrier("feed")], tree._families, []

    def families(tokens: set[str], oldest: int) -> dict[str, list[tree.Member]]:
        looks.append(1)
        found = real(tokens, oldest)
        return found if len(looks) > 1 else {**found, "feed": found["feed"][:1]}

    monkeypatch.setattr(tree, "_families", families)
    killed, carried = tree.end({"feed"}, 5.0)
    assert (sorted(killed), carried) == (sorted(pids), set())
    assert not any(alive(pid) for pid in pids)


def test_what_is_older_than_an_incarnation_is_none_of_it(
    carrier: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so nothing but its age is read."""
    pid, looked = carrier("first"), []
    born, real = tree.born_at(pid), tree._tokens
    monkeypatch.setattr(tree, "_tokens", lambda pid, marks: (looked.append(pid), real(pid, marks))[1])
    assert tree.send("first", signal.SIGKILL, born + 1) == 0 and pid not in looked
    assert alive(pid)
    assert tree.end({"first"}, 5.0, 0.0, born) == ([pid], set())
    assert os.getpid() not in looked and tree.born_at(os.getpid()) < born
    assert tree.born_at(pid) == 0, "it is gone: everything is looked at"


def test_what_another_family_marks_is_of_that_alone(carrier: Callable[[str], int]) -> None:
    """A forker's family and those of the interpreters that it has forked, which are its children."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    above = subprocess.Popen([sys.executable, "-c", script], env={"SNAKEPIT_TOKEN": "above"})
    wait_until(lambda: len(tree.find("above")) == 2)
    (below,) = [one.pid for one in tree.find("above") if one.pid != above.pid]
    assert tree.mark(below, "below")
    try:
        assert {one.pid for one in tree.find("above")} == {above.pid, below}
        found = tree.families({"above", "below"})
        pids = {token: [one.pid for one in family] for token, family in found.items()}
        assert pids == {"above": [above.pid], "below": [below]}
    finally:
        tree.end({"above", "below"}, 5.0)
        above.wait()


def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen(["sleep", "600"])
    assert tree.identity(process.pid) is not None
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: tree.identity(process.pid) is None)
    process.wait()


def test_ending_nobody(innocent: int) -> None:
    assert tree.end({"", "nobody"}, 1.0) == ([], set())
    assert registry.KILL_SECONDS <= 5


def test_whoever_is_killed_while_it_makes_its_place_leaves_nothing_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory was there first: one that was killed before its entry was written left it for good."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    known = []

    def mkdir(path: str, mode: int) -> None:
        known.append([entry.record.directory for entry in entries()])
        if len(known) == 1:
            raise FileExistsError(path)  # the name is taken
        raise PermissionError(path)

    monkeypatch.setattr(place, "os", SimpleNamespace(mkdir=mkdir, path=os.path))
    with pytest.raises(PermissionError):
        place.Place.make("t" * 32, "w-0", "p")
    assert [len(directories) for directories in known] == [1, 1] and known[0] != known[1]
    assert entries() == []
