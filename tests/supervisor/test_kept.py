"""What a worker remembers of requests that were moved to it: enough for a relay that comes back, no more."""

from __future__ import annotations

import asyncio

from snakepit_ray.actors.kept import KEPT, KEPT_BYTES, LARGE_BYTES, Kept
from snakepit_ray.actors.messages import Delegated
from snakepit_ray.codec import BatchEnvelope, BatchPart, Envelope
from tests.supervisor.harness import run


def envelope(size: int, *buffers: object) -> Delegated:
    return Delegated(Envelope(b"x" * size, buffers, None, "", "add"), free=True)


def keep(kept: Kept, name: str, outcome: Delegated | None) -> None:
    kept.begins(name)
    kept.ended(name, outcome)


def test_small_outcomes_are_known_large_ones_and_views_are_not() -> None:
    async def body() -> None:
        kept = Kept()
        small, error = envelope(100, b"own"), Delegated(ValueError("its own"), free=True)
        view = memoryview(b"of the shared memory")
        cases = {
            "small": (small, small),
            "error": (error, error),
            "large": (envelope(LARGE_BYTES + 1), None),
            "view": (envelope(10, view), None),
            "batch": (Delegated(BatchEnvelope([BatchPart(b"[]", 0, [view])]), free=True), None),
            "cancelled": (None, None),
        }
        for name, (outcome, _) in cases.items():
            keep(kept, name, outcome)
        for name, (_, known) in cases.items():
            assert await kept.recall(name) is known, name
        assert await kept.recall("never") is None

    run(body)


def test_who_waits_hears_it_also_where_it_is_not_kept() -> None:
    async def body() -> None:
        kept, large = Kept(), envelope(LARGE_BYTES + 1)
        kept.begins("large"), kept.begins("cancelled")
        waiting = [asyncio.ensure_future(kept.recall(name)) for name in ("large", "cancelled")]
        await asyncio.sleep(0)
        kept.ended("large", large)
        kept.ended("cancelled", None)
        assert await asyncio.gather(*waiting) == [large, None]
        assert await kept.recall("large") is None

    run(body)


def test_the_newest_are_known_by_number_and_by_bytes() -> None:
    async def body() -> None:
        kept = Kept()
        for number in range(KEPT + 10):
            keep(kept, f"few-{number}", envelope(10))
        known = [await kept.recall(f"few-{number}") is not None for number in range(KEPT + 10)]
        assert known == [False] * 10 + [True] * KEPT
        fit = KEPT_BYTES // LARGE_BYTES
        for number in range(fit + 5):
            keep(kept, f"much-{number}", envelope(LARGE_BYTES))
        known = [await kept.recall(f"much-{number}") is not None for number in range(fit + 5)]
        assert known == [False] * 5 + [True] * fit
        assert kept._size == sum(kept._sizes.values()) <= KEPT_BYTES

    run(body)
