"""The short programs in cluster/jobs do what they print."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import snakepit_ray as snakepit
from tests.ray.harness import JOBS, job

pytestmark = pytest.mark.ray


@pytest.fixture
def pools(cluster: None) -> Iterator[tuple[snakepit.Pool, snakepit.Pool]]:
    with (
        snakepit.start(name="jobs", size=2, affinity="strict_queue") as pool,
        snakepit.start(name="job-others", size=1) as other,
    ):
        yield pool, other


def test_each_job_shows_what_it_says(
    pools: tuple[snakepit.Pool, snakepit.Pool],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(JOBS)
    for name, lines in (("tools", 7), ("sessions", 7)):
        job(name).run(*pools)
        said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("(", "\x1b"))]
        assert len(said) == lines, said
