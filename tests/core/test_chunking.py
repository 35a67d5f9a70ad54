"""How far a producer may be ahead, for every sequence of chunks and takings."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.work.chunking import FLUSH_BYTES, FLUSH_CHUNKS, FLUSH_SECONDS, Window, flush_in

SIZES = st.lists(st.integers(1, 400_000), min_size=1, max_size=300)


class Producer:
    """Sends while it has both kinds of credit, as bridge/README.md says."""

    def __init__(self, window: Window, sizes: list[int]) -> None:
        self.chunks, self.bytes = window.first
        self.sizes = deque(sizes)
        self.under_way: deque[int] = deque()

    def run(self) -> None:
        while self.sizes and self.chunks > 0 and self.bytes > 0:
            size = self.sizes.popleft()
            self.chunks -= 1
            self.bytes -= size
            self.under_way.append(size)


@given(SIZES, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_every_chunk_comes_and_no_more_than_a_window_is_under_way(sizes, takings) -> None:
    window = Window(chunks=4, bytes=500_000, most_chunks=64)
    producer = Producer(window, sizes)
    taken = []
    turn = 0
    producer.run()
    while producer.under_way:
        assert len(producer.under_way) <= window.chunks <= 64
        assert sum(producer.under_way) < 500_000 + 400_000, "only the last chunk may exceed the window"
        for _ in range(min(takings[turn % len(takings)], len(producer.under_way))):
            size = producer.under_way.popleft()
            taken.append(size)
            grant = window.taken(1, size, not producer.under_way)
            if grant is not None:
                producer.chunks += grant.chunks
                producer.bytes += grant.bytes
        turn += 1
        producer.run()
    assert taken == sizes, "nobody waits for ever"


def test_a_consumer_that_never_keeps_up_keeps_the_first_window() -> None:
    window = Window()
    for _ in range(10_000):
        window.taken(1, 10, drained=False)
    assert window.chunks == Window().chunks


def test_a_consumer_that_keeps_up_gets_more_and_grants_are_few() -> None:
    window, grants = Window(), 0
    for _ in range(100_000):
        grants += window.taken(1, 10, drained=True) is not None
    assert window.chunks == window.most_chunks
    assert grants < 100


def test_the_first_chunk_goes_at_once_and_others_go_together() -> None:
    assert flush_in(float("inf"), 1, 10) == 0.0
    assert flush_in(0.0, 1, 10) == FLUSH_SECONDS
    assert flush_in(FLUSH_SECONDS, 1, 10) == 0.0
    assert flush_in(0.0, FLUSH_CHUNKS, 10) == flush_in(0.0, 1, FLUSH_BYTES) == 0.0
