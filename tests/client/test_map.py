"""How a map draws its items, divides them and hands out the results; no Ray."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.client import map as batching
from snakepit_ray.client.map import MapRun
from snakepit_ray.config import DEFAULT_OPTIONS
from snakepit_ray.errors import ConfigError, EncodingError, PoolClosed, PoolSaturated
from tests.client.fakes import FakeSender, answering, sender

__all__ = ["sender"]


def mapped(sender: FakeSender, items: Any, **settings: Any) -> Iterator[Any]:
    given = {
        "ordered": True,
        "in_flight": None,
        "chunk_size": None,
        "return_exceptions": False,
        **settings,
    }
    return MapRun(sender, "c", items, DEFAULT_OPTIONS, **given).run()  # type: ignore[arg-type]


def test_an_item_is_what_it_was_when_it_was_drawn(sender: FakeSender) -> None:
    shared: dict[str, Any] = {"list": []}

    def source() -> Iterator[dict[str, Any]]:
        for number in range(300):
            shared["a"] = number
            shared["list"].append(number)
            yield shared

    answering(sender)
    results = list(mapped(sender, source()))
    assert [result["a"] for result in results] == list(range(300))
    assert [len(result["list"]) for result in results] == list(range(1, 301))


def test_what_is_given_back_goes_again_as_it_was(sender: FakeSender) -> None:
    items = [{"a": number} for number in range(8)]
    results = mapped(sender, items, chunk_size=8)
    got: list[Any] = []
    taker = threading.Thread(target=lambda: got.extend(results))
    taker.start()
    with sender.changed:
        assert sender.changed.wait_for(lambda: sender.open, 20)
    for item in items:
        item["a"] = -1
    sender.answer(most=3)
    sender.answer(most=1)
    answering(sender)
    taker.join(20)
    assert got == [{"a": number} for number in range(8)]
    assert [len(chunk) for chunk in sender.sent[:3]] == [8, 5, 4]


def test_what_is_done_is_handed_out_while_the_source_waits(sender: FakeSender) -> None:
    may_go = threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        yield {"a": 2}
        assert may_go.wait(30)
        yield {"a": 3}

    answering(sender)
    results = mapped(sender, source())
    assert [next(results), next(results)] == [{"a": 1}, {"a": 2}]
    may_go.set()
    assert list(results) == [{"a": 3}]


def test_a_source_may_be_fed_by_the_results(sender: FakeSender) -> None:
    found: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    found.put(0)

    def source() -> Iterator[dict[str, Any]]:
        while (page := found.get(timeout=30)) is not None:
            yield {"page": page}

    answering(sender)
    seen = []
    for result in mapped(sender, source()):
        seen.append(result["page"])
        found.put(result["page"] + 1 if len(seen) < 20 else None)
    assert seen == list(range(20))


def test_what_was_done_before_the_source_failed_is_handed_out_before_its_error(sender: FakeSender) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from ({"a": number} for number in range(50))
        raise RuntimeError("the source is broken")

    answering(sender)
    results = mapped(sender, source())
    assert [next(results)["a"] for _ in range(50)] == list(range(50))
    with pytest.raises(RuntimeError, match="the source is broken"):
        next(results)


def test_a_bad_item_fails_alone_in_its_place(sender: FakeSender) -> None:
    items: list[Any] = [{"a": 0}, {"a": object()}, {"a": 2}, 3, {"a": 4}]
    answering(sender)
    results = list(mapped(sender, items, return_exceptions=True))
    assert [isinstance(result, EncodingError) for result in results] == [False, True, False, True, False]
    assert "items[1]" in str(results[1])
    assert "items[3]" in str(results[3])


def test_leaving_a_map_cancels_what_is_under_way_and_closes_its_source(sender: FakeSender) -> None:
    closed = threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        try:
            while True:
                yield {"a": 1}
        finally:
            closed.set()

    results = mapped(sender, source())
    helper = answering(sender)
    assert next(results) == {"a": 1}
    sender.is_closed = True
    helper.join(20)
    sender.is_closed = False
    results.close()  # type: ignore[attr-defined]
    assert closed.wait(20)
    assert set(sender.open) <= sender.cancelled


def test_no_more_is_drawn_than_in_flight_allows(sender: FakeSender) -> None:
    drawn = []

    def source() -> Iterator[dict[str, Any]]:
        for number in range(100):
            drawn.append(number)
            yield {"a": number}

    answering(sender)
    results = mapped(sender, source(), in_flight=4)
    for handed in range(1, 101):
        next(results)
        assert len(drawn) <= handed + 4


@pytest.mark.parametrize("is_drawn_ahead", [False, True])
def test_cheap_work_goes_to_few_workers_in_large_chunks(sender: FakeSender, is_drawn_ahead: bool) -> None:
    sender.slots, sender.seconds = 64, 1e-6
    answering(sender)
    items: Any = [{"a": 1}] * 20_000
    assert len(list(mapped(sender, iter(items) if is_drawn_ahead else items))) == 20_000
    sizes = sorted(map(len, sender.sent))
    assert sum(sizes) == 20_000
    assert sizes[-1] >= 1_000
    assert len(sizes) < 64 + 64 + 30  # the first calls, before anything is known, and few after them


def test_slow_work_goes_one_by_one_to_all(sender: FakeSender) -> None:
    sender.slots, sender.seconds = 8, 1.0
    answering(sender)
    assert len(list(mapped(sender, [{"a": 1}] * 40))) == 40
    assert set(map(len, sender.sent)) == {1}


def test_the_worker_that_has_just_answered_gets_the_next_chunk(sender: FakeSender) -> None:
    answering(sender)
    list(mapped(sender, [{"a": 1}] * 1_000, chunk_size=10))
    assert any(prefer is not None for prefer in sender.preferred)


def test_what_finds_no_place_waits_until_another_chunk_has_ended(sender: FakeSender) -> None:
    sender.slots = 1
    got: list[Any] = []
    results = mapped(sender, [{"a": number} for number in range(8)], chunk_size=2)
    taker = threading.Thread(target=lambda: got.extend(results))
    taker.start()
    sender.answer()
    with sender.changed:
        assert sender.changed.wait_for(lambda: len(sender.open) == 2, 20)
        first, second = sender.open
    sender.fail(second, PoolSaturated("full"))
    with sender.changed:
        assert sender.changed.wait_for(lambda: second not in sender.waits[-1], 20)
        assert sender.waits[-1] == [first], "it was sent again at once"
    answering(sender)
    taker.join(20)
    assert got == [{"a": number} for number in range(8)]
    assert [chunk[0]["a"] for chunk in sender.sent] == [0, 2, 4, 4, 6]


def test_what_finds_no_place_and_has_nothing_to_wait_for_fails(sender: FakeSender) -> None:
    results = mapped(sender, [{"a": 1}], return_exceptions=True)
    got: list[Any] = []
    taker = threading.Thread(target=lambda: got.extend(results))
    taker.start()
    with sender.changed:
        assert sender.changed.wait_for(lambda: sender.open, 20)
    sender.fail(next(iter(sender.open)), PoolSaturated("full"))
    taker.join(20)
    assert [type(value) for value in got] == [PoolSaturated]


@pytest.mark.parametrize("name", ["in_flight", "chunk_size"])
@pytest.mark.parametrize("value", [0, -1, "3", 1.5, True])
def test_nonsense_is_refused_when_the_map_is_made(sender: FakeSender, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: got {value!r}, expected"):
        mapped(sender, [], **{name: value})
    with pytest.raises(ConfigError, match="items: got 3, expected an iterable"):
        mapped(sender, 3)


def test_a_pool_that_ends_between_two_results_is_noticed_before_ray_is_asked(
    sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(sender)
    results = mapped(sender, [{"a": number} for number in range(200)], chunk_size=1)
    assert next(results) == {"a": 0}

    def waits(*_: Any, **__: Any) -> Any:
        raise AssertionError("Ray would start another session")

    sender.is_closed = True
    monkeypatch.setattr(batching, "answers", SimpleNamespace(wait=waits, get=waits))
    with pytest.raises(PoolClosed):
        list(results)
