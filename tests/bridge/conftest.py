"""Interpreters for the tests of the Python bridge; each ends when its test or module does.

What a message is about is tested over gRPC and over frames in every run: the files in BOTH. What an adapter
or a value is does not depend on it. SNAKEPIT_TEST_WIRE=frames (auto, grpc) runs every file over that alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.bridge.harness import WIRE, BridgeProcess, Stream, carriers
from tests.conftest import wait_until

BOTH = {
    *("test_arena", "test_batches", "test_calls", "test_cancel", "test_conformance", "test_forks"),
    *("test_host_calls", "test_marks", "test_planned_end", "test_streams", "test_troubles"),
    "test_where_code_runs",
}

OF_GRPC = {
    "test_protobufs",
    "test_services",
    "test_start",
    "test_unfit",
}  # what only gRPC has, or its absence


def name_of(module: object) -> str:
    return str(getattr(module, "__name__", "")).rpartition(".")[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if name_of(metafunc.module) in BOTH and "SNAKEPIT_TEST_WIRE" not in os.environ:
        metafunc.parametrize("_wire", ["grpc", "frames"], indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def _wire(request: pytest.FixtureRequest) -> Iterator[None]:
    """How requests travel in the tests of this module."""
    usual = "grpc" if name_of(request.module) in OF_GRPC else WIRE[-1]
    WIRE.append(getattr(request, "param", usual))
    yield
    WIRE.pop()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Fails a test that leaves a process of its own behind; other runs on this machine do not count."""
    before = carriers(BridgeProcess.tokens)
    yield
    wait_until(lambda: carriers(BridgeProcess.tokens) <= before, 5, "processes left behind")


@pytest.fixture
def bridge() -> Iterator[Callable[..., BridgeProcess]]:
    """Makes interpreters that end with the test."""
    made: list[BridgeProcess] = []

    def make(*args, **config) -> BridgeProcess:
        made.append(BridgeProcess(*args, **config))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def commands(_wire: None) -> Iterator[BridgeProcess]:
    """One interpreter with the commands of adapters/commands.py for a whole module; two run at once."""
    one = BridgeProcess("commands:Commands", capacity=2).start()
    yield one
    one.stop()


@pytest.fixture
def stream(commands: BridgeProcess) -> Iterator[Stream]:
    """An attachment to it."""
    one = commands.attach()
    yield one
    one.close()
