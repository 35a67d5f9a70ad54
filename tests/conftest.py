"""What every test keeps to: it leaves no process, socket or shared-memory file behind.

Every run has a temporary directory of its own, which its interpreters inherit: so it knows its own, and
several runs on one machine do not see each other's."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from snakepit_ray.process import registry

# A machine that is busy makes every test slow: that is no fault of a test. `./dev test-slow` looks longer.
EXAMPLES = {"quick": 20, "long": 200}
for profile, examples in EXAMPLES.items():
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("SNAKEPIT_EXAMPLES", "quick"))

GONE_SECONDS = 8.0
PURE = (
    "client",
    "core",
    "docs",
    "store",
    "unit",
)  # folders of tests that start nothing, unless they are marked
MARK = b"SNAKEPIT_TOKEN="
RUN = tempfile.mkdtemp(prefix="sp-", dir="/tmp")  # short: a socket's path has 108 bytes at most
os.environ["TMPDIR"] = RUN
tempfile.tempdir = None


def pytest_sessionfinish() -> None:
    shutil.rmtree(RUN, ignore_errors=True)


def interpreters() -> set[int]:
    """Pids of living processes of this run that carry an incarnation token: interpreters and what they
    started."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                state = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[0]
            except OSError:
                continue
            ours = f"TMPDIR={RUN}".encode() in environ and any(item.startswith(MARK) for item in environ)
            if ours and state not in (b"Z", b"X"):
                found.add(int(entry))
    return found


def left_behind() -> set[str]:
    """Files of this run: socket directories, shared memory, what the registry, the journals and the lanes
    have."""
    return sockets() | {
        *glob.glob(os.path.join(RUN, "snakepit-*/processes/*")),
        *glob.glob(os.path.join(RUN, "snakepit-*/journals/*")),
        *glob.glob(os.path.join(RUN, "snakepit-*/lanes/*")),
    }


def sockets() -> set[str]:
    """Socket directories of this run, and shared memory. The node directory itself is nothing left behind."""
    node = os.path.join(RUN, f"snakepit-{os.geteuid()}")
    return {*glob.glob(os.path.join(RUN, "snakepit-*")), *glob.glob("/dev/shm/snakepit*")} - {node}


def wait_until(condition: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
    """Waits for the thing, with a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        threading.Event().wait(0.005)  # a turn for the others between two looks


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which a process, a socket or a segment of its own is still there."""
    if request.path.parent.name in PURE and "ray" not in request.keywords:
        yield  # looking takes longer than such a test: its module is looked after
    else:
        yield from _watched()


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_of_a_pure_module(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from _watched() if request.path.parent.name in PURE else iter([None])


def _watched() -> Iterator[None]:
    processes, files = interpreters(), left_behind()
    yield
    deadline = time.monotonic() + GONE_SECONDS
    while (interpreters() - processes or sockets() - files) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert not interpreters() - processes, "interpreters left behind"
    assert not sockets() - files, "files left behind"
    while left_behind() - files and time.monotonic() < deadline:
        registry.sweep()  # entries of owners that were killed: by design a sweep's work
        threading.Event().wait(0.01)
    assert not left_behind() - files, "entries left behind"
