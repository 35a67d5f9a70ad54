"""The strict sessions that one process kept, the next one knows: against a model, cut anywhere, damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_ray.process import session_log
from snakepit_ray.process.node import node_directory
from snakepit_ray.process.registry import Swept, sweep
from snakepit_ray.process.session_log import Home, SessionLog
from tests.ledger.test_ledger import HOUR, files, make_older
from tests.process.conftest import killed

LIMIT = 20
patient = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
quiet = settings(deadline=None, suppress_health_check=patient)
sessions = st.text(max_size=6) | st.integers(0, 2 * LIMIT).map(str)
homes = st.builds(
    Home, st.floats(0, 2e9), st.tuples(st.integers(0, 2**63), st.integers(0, 2**32)), st.integers(0, 2**63)
)


def opened(base: Path, limit: int = LIMIT) -> SessionLog:
    return SessionLog.open("w-0", limit, base)


class AgainstModel(RuleBasedStateMachine):
    """Sessions come, move and leave, processes too; the model is a dict of the newest LIMIT."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="sessions-"))
        self.log = opened(self.base)
        self.model: dict[str, Home] = {}

    @rule(session=sessions, home=homes)
    def keep(self, session: str, home: Home) -> None:
        self.log.keep(session, home)
        self.model.pop(session, None)
        self.model[session] = home
        if len(self.model) > LIMIT:
            del self.model[next(iter(self.model))]

    @rule(session=sessions)
    def drop(self, session: str) -> None:
        self.log.drop(session)
        self.model.pop(session, None)

    @rule(home=homes, times=st.integers(1, 3 * session_log.SLACK))
    def keep_often(self, home: Home, times: int) -> None:
        for number in range(times):
            self.keep("often", home._replace(version=number))

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = opened(self.base)

    @invariant()
    def agrees(self) -> None:
        assert list(self.log.homes.items()) == list(self.model.items())
        records = 2 * LIMIT + session_log.SLACK + 1
        assert self.log.path.stat().st_size <= 16 + records * (36 + 4 + 24), "it is compacted"

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.base)


AgainstModel.TestCase.settings = settings(stateful_step_count=30, deadline=None)
TestAgainstModel = AgainstModel.TestCase


@settings(quiet)
@given(steps=st.lists(st.tuples(sessions, st.none() | homes), min_size=1, max_size=12))
def test_a_log_that_is_cut_anywhere_has_what_was_whole_before(
    tmp_path: Path, steps: list[tuple[str, Home | None]]
) -> None:
    log, known, states = opened(tmp_path), dict[str, Home](), []
    for session, home in steps:
        states.append((log.path.stat().st_size, dict(known)))
        if home is None:
            log.drop(session)
            known.pop(session, None)
        else:
            log.keep(session, home)
            known[session] = home
    data = log.path.read_bytes()
    states.append((len(data), known))
    for cut in range(len(data) + 1):
        log.path.write_bytes(data[:cut])
        expected = next((state for size, state in reversed(states) if size <= cut), {})
        assert session_log._read(log.path) == expected, cut
    log.remove()


KILLED = """
import os, signal, sys
from snakepit_ray.process.session_log import Home, SessionLog
log = SessionLog.open("w-0", 100, sys.argv[1])
for i in range(1000):
    log.keep(f"s-{i % 150}", Home(1.0, (7, 1), i))
log.drop("s-99")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_that_it_kept(tmp_path: Path) -> None:
    killed(KILLED, tmp_path)
    after = opened(tmp_path, 100)
    expected = {f"s-{i % 150}": Home(1.0, (7, 1), i) for i in range(900, 1000)}
    assert after.homes == {name: home for name, home in expected.items() if name != "s-99"}
    after.remove()


# ---- damage ---------------------------------------------------------------------------------------------


@quiet
@given(data=st.data())
def test_bytes_that_changed_never_raise(tmp_path: Path, data: st.DataObject) -> None:
    (node_directory(tmp_path) / "journals/w-0.sessions").unlink(missing_ok=True)
    log = opened(tmp_path)
    for number in range(5):
        log.keep(f"s{number}", Home(1.0, (2, number), number))
    log.close()
    content = bytearray(log.path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    log.path.write_bytes(content)
    log = opened(tmp_path)
    assert log.homes == {f"s{n}": Home(1.0, (2, n), n) for n in range(len(log.homes))}
    log.keep("new", Home(1.0, (3, 3), 3))
    log.close()
    log = opened(tmp_path)
    assert log.homes["new"] == Home(1.0, (3, 3), 3)
    log.remove()


@pytest.mark.parametrize("what", ["directory", "fifo", "link", "other", "nothing"])
def test_what_is_no_log_is_an_empty_one(tmp_path: Path, what: str) -> None:
    log, home = opened(tmp_path), Home(1.0, (2, 2), 2)
    log.keep("s", home)
    log.close()
    path, elsewhere = log.path, tmp_path / "elsewhere"
    path.rename(elsewhere)
    {
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(elsewhere),
        "other": lambda: path.write_bytes(b"x" * 1000),
        "nothing": lambda: None,
    }[what]()
    log = opened(tmp_path)
    assert log.homes == {}
    log.keep("t", home)
    assert log.homes == {"t": home}, "it works as a memory of this process at least"
    log.close()


@pytest.mark.parametrize("fails", ["raises", "short"])
def test_a_full_disk_is_no_error_and_the_next_record_heals_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    log, home = opened(tmp_path), Home(1.0, (2, 2), 2)
    log.keep("before", home)
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if fails == "raises":
            raise OSError(28, "No space left on device")
        return real(descriptor, bytes(data)[:7])

    with monkeypatch.context() as patched:
        patched.setattr(session_log.os, "write", full)
        log.keep("lost", home)
    assert session_log._read(log.path) == {"before": home}
    log.keep("after", home)
    assert session_log._read(log.path) == {"before": home, "lost": home, "after": home}
    log.remove()


# ---- its end --------------------------------------------------------------------------------------------


def test_a_polite_end_removes_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.keep("s", Home(1.0, (2, 2), 2))
    log.remove()
    log.remove()
    log.keep("late", Home(1.0, (2, 2), 2))
    assert files(tmp_path) == []


def test_a_sweep_removes_it_when_nobody_needs_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(2 * session_log.SLACK):  # written anew meanwhile
        log.keep("s", Home(1.0, (2, 2), number))
    make_older(log.path, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, []), "a living process holds it"
    log.close()
    assert sweep(base=tmp_path) == Swept([], 0, [log.path])
    assert (node_directory(tmp_path) / "journals").is_dir()
