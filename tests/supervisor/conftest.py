"""How requests travel in the tests of one worker: as frames beside gRPC, which is the default of a pool.

Some files are run over another wire as well, because they are about what it carries: requests and streams
that end in every way and host calls over gRPC, ends of interpreters over frames alone. Whatever else is
tested here does not depend on it. SNAKEPIT_TEST_WIRE=grpc (frames) runs every file over that alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.supervisor.harness import WIRE

ALSO = {
    **dict.fromkeys(
        ("test_arena", "test_host_calls", "test_marks", "test_session_state", "test_streams"), "grpc"
    ),
    **dict.fromkeys(("test_descendants", "test_ends"), "frames"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    other = ALSO.get(metafunc.module.__name__.rpartition(".")[2])
    if other is not None and "SNAKEPIT_TEST_WIRE" not in os.environ:
        metafunc.parametrize("_wire", ["auto", other], indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def _wire(request: pytest.FixtureRequest) -> Iterator[None]:
    WIRE.append(getattr(request, "param", WIRE[-1]))
    yield
    WIRE.pop()
