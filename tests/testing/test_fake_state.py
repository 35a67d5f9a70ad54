"""Commands of a fake pool have the variables of their sessions, and share them with callers. No Ray, and no
other process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_ray.errors import CommandError
from snakepit_ray.testing import FakePool

STATEFUL = str(Path(__file__).resolve().parents[1] / "adapters/stateful.py") + ":Stateful"


@pytest.fixture
def pool() -> Iterator[FakePool]:
    with FakePool(adapter=STATEFUL) as one:
        yield one


def test_callers_and_commands_share_a_session(pool: FakePool) -> None:
    session = pool.session("s")
    assert session.execute("writes", {"name": "x", "value": [1, 2]}) == [1, 2]
    assert session.variables.get("x") == [1, 2]
    session.variables.set("x", [3])
    assert session.execute("reads", {"name": "x", "count": 2}) == [[3], [3]]


def test_the_spellings_are_those_of_a_real_pool(pool: FakePool) -> None:
    session = pool.session("s")
    assert session.execute("aspelled")[:5] == [True, 1, 1, 1, 5]
    assert session.execute("batches") == [{"x": 1, "y": 2, "z": 3}, []]
    assert session.execute("programs") == [[1], "text", "nothing", True, False, True]
    assert session.execute("catches")[0].startswith("session 's' has no variable 'none'")
    with pytest.raises(CommandError, match="this request has no session"):
        pool.execute("reads", {"name": "x"})


def test_arrays_and_watching(pool: FakePool) -> None:
    session = pool.session("s")
    session.execute("call", {"method": "set", "args": ["w", 1]})
    assert session.execute("watches", {"names": ["w"], "count": 1}) == [["w", 1, 1, False]]
    found: Any = session.execute("arrays", {"size": 100})
    assert np.array_equal(found["b"], np.ones(3))
