"""How the items of a map are drawn: how many at once, and which of them travel together."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.client.drawing import DRAWING_SECONDS, Failed, Source, fitting
from snakepit_ray.core.work.batch_size import MOST_BYTES
from snakepit_ray.wire.codec import Encoded

KINDS: dict[str, Any] = {
    "copy": {"a": 1},
    "json": b"x" * 1000,
    "large": b"x" * (MOST_BYTES // 2),
    "with a ref": Encoded(b"{}", [], [("x", object())]),
    "failed": Failed(ValueError("no")),
}
ALONE = {"with a ref", "failed"}


@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=30))
def test_what_cannot_travel_with_others_goes_alone_and_the_rest_up_to_a_weight(names: list[str]) -> None:
    left, gone = names, list[str]()
    while left:
        count = fitting([KINDS[name] for name in left])
        together, left = left[:count], left[count:]
        assert together, "something always goes"
        assert len(together) == 1 or not ALONE & set(together)
        sizes = [len(KINDS[name]) for name in together if isinstance(KINDS[name], bytes)]
        assert sum(sizes[:-1]) <= MOST_BYTES, "only the last one may exceed the weight"
        if left and left[0] not in ALONE and together[0] not in ALONE:
            assert sum(sizes) > MOST_BYTES, "no more was left behind than had to be"
        gone += together
    assert gone == names


def test_a_list_whose_items_take_long_to_encode_is_sent_with_what_there_is() -> None:
    now = 0.0

    def slow(args: Any, number: int) -> Any:
        nonlocal now
        now += DRAWING_SECONDS / 40
        return args

    source = Source([{"a": 1}] * 200, slow, draws_ahead=True, clock=lambda: now)
    sizes = []
    while not source.is_over:
        sizes.append(len(source.take(2_000)))
    assert sum(sizes) == 200
    assert set(sizes[:-1]) == {48}, "the clock is looked at after every 16th item"
