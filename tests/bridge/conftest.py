"""Interpreters for the tests of the Python bridge; each ends when its test or module does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bridge.harness import BridgeProcess, Stream, carriers
from tests.conftest import wait_until


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
def commands() -> Iterator[BridgeProcess]:
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
