"""Arguments of many calls as one payload, results of many calls as one envelope."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.errors import CommandError, EncodingError
from snakepit_ray.wire import codec
from snakepit_ray.wire.codec import (
    BatchEnvelope,
    BatchOutcome,
    BatchPart,
    decode_value,
    encode_args,
    encode_item,
    encode_items,
    join_items,
    whole_item,
)
from snakepit_ray.wire.codec.batches import APART, RAISE, RETURN

INFO = ("w1", (1, 2), 123, "node", "req", 0.5, 0.25, 1, False)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["a", "b", "$snakepit", "é"]) | st.text()
items = st.lists(st.dictionaries(keys, values), min_size=1, max_size=12)
DAMAGED = [b"", b"[1", b"{}", b"[1]", b"[1,2,3]", b'[1,{"$snakepit":"x"}]', b"[1,NaN]"]


class Picky:
    """A runtime that cannot take every result."""

    def process_response(self, command: str, value: Any) -> Any:
        if value == 2:
            raise ValueError("two")
        return value * 10


class Ref:
    pass


@pytest.fixture
def kept() -> Iterator[None]:
    codec.keep_encoded(True)
    yield
    codec.keep_encoded(False)


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


@given(items)
def test_items_decode_to_what_each_would_alone(given: list[dict[str, Any]]) -> None:
    encoded = encode_items(given)
    alone = [encode_args(item) for item in given]
    expected = [decode_value(one.json, one.buffers) for one in alone]
    assert same(decode_value(encoded.json, encoded.buffers), expected)
    if not encoded.buffers:
        assert encoded.json == b"[" + b",".join(one.json for one in alone) + b"]"


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (5, "items[3]"),
        ([], "items[3]"),
        ({1: 2}, "items[3]"),
        ({"x": {2: 3}}, 'items[3]["x"]'),
        ({"x": [1, object()]}, 'items[3]["x"][1]'),
        ({"x": "\ud800"}, 'items[3]["x"]'),
        ({"x": Ref()}, 'items[3]["x"]'),
        (Ref(), "items[3]"),
    ],
)
def test_the_first_bad_item_is_named(bad: Any, path: str) -> None:
    with pytest.raises(EncodingError) as raised:
        encode_items([{}, {"x": 1}, bad], Ref, begin=1)
    assert raised.value.path == path


def test_a_cycle_and_deep_nesting_are_errors_soon() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    for bad in (loop, deep):
        with pytest.raises(EncodingError, match=r"items\[1\]"):
            encode_items([{"x": 1}, {"x": bad}])


def over(parts: list[BatchPart], errors: int, **more: Any) -> Any:
    return pickle.loads(pickle.dumps(BatchEnvelope(parts, errors, **more), 5))


def test_parts_arrive_as_one_list_and_errors_as_asked() -> None:
    plain = [BatchPart(b"[1,2]", 2), BatchPart(b"[]", 0), BatchPart(b"[3]", 1)]
    assert over(plain, RAISE) == over(plain, RETURN) == [1, 2, 3]
    error = CommandError.from_remote("ValueError", "bad")
    failing = [BatchPart(b"[1,2]", 2), BatchPart(b"[null,4]", 2, (), [(0, error)], INFO)]
    back = over(failing, RETURN)
    assert back[:2] == [1, 2] and isinstance(back[2], ValueError) and back[3] == 4
    apart = over(failing, APART)
    assert isinstance(apart, BatchOutcome) and apart.values == [1, 2, None, 4]
    assert [(index, type(found)) for index, found in apart.failed] == [(2, type(error))]
    assert (apart.ran, apart.nbytes) == (0.25, 5 + 8)
    with pytest.raises(ValueError, match="bad"):
        BatchEnvelope(failing, RAISE).value()


def test_info_and_buffers_of_a_batch() -> None:
    big = np.arange(5_000.0)
    encoded = encode_items([{"x": big}, {"x": 1}])
    batch = BatchEnvelope([BatchPart(encoded.json, 2, encoded.buffers, (), INFO)], RAISE, True)
    buffers: list[Any] = []
    data = pickle.dumps(batch, 5, buffer_callback=buffers.append)
    assert len(buffers) == 1 and len(data) < 10_000
    first, second = pickle.loads(data, buffers=buffers)
    np.testing.assert_array_equal(first.value["x"], big)
    assert (second.value, second.pid, second.ran_s, second.waited_s) == ({"x": 1}, 123, 0.125, 0.5)


def test_a_runtimes_last_word_fails_alone() -> None:
    picky = {"runtime": f"{__name__}:Picky", "command": "c"}
    back = over([BatchPart(b"[1,2]", 2), BatchPart(b"[3]", 1)], RETURN, **picky)
    assert (back[0], back[2]) == (10, 30) and isinstance(back[1], ValueError)


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_results_are_an_error(text: bytes) -> None:
    with pytest.raises(EncodingError, match="results"):
        BatchEnvelope([BatchPart(text, 2)]).value()


def test_what_cannot_be_read_fails_alone_and_takes_no_other_result_along() -> None:
    bad = (
        b'[1,{"$snakepit":"tensor","buffer":0,"dtype":"<f16","shape":[1]},[{"$snakepit":"int","value":"9"}]]'
    )
    table = b'[{"$snakepit":"table","buffer":0},2]'
    back = over([BatchPart(b"[0]", 1), BatchPart(bad, 3, [b"x" * 16]), BatchPart(table, 2, [b"x"])], RETURN)
    assert [back[index] for index in (0, 1, 3, 5)] == [0, 1, [9], 2]
    assert [back[index].path for index in (2, 4)] == ["results[2]", "results[4]"]
    assert "dtype '<f16'" in str(back[2]) and "no valid Arrow IPC stream" in str(back[4])


def test_a_part_that_is_no_json_fails_with_its_items_and_no_others() -> None:
    back = over([BatchPart(b"[0]", 1), BatchPart(b"[1,NaN]", 2), BatchPart(b"[3]", 1)], RETURN)
    assert (back[0], back[3]) == (0, 3)
    assert [type(error) for error in back[1:3]] == [EncodingError, EncodingError]
    assert [error.path for error in back[1:3]] == ["results[1]", "results[2]"]


def test_worker_actors_keep_batches_encoded(kept: None) -> None:
    before = codec.decoded_count()
    arrived = over([BatchPart(json.dumps([1, 2]).encode(), 2)], APART, command="add")
    assert isinstance(arrived, BatchEnvelope) and arrived.count == 2
    assert codec.decoded_count() == before
    assert over(list(arrived.parts), RAISE).value() == [1, 2]


@pytest.mark.parametrize(
    "one",
    [
        {"a": 1, "b": True, "c": None, "d": 0.5, "e": "text"},
        {"a": 2**53, "b": 2**70, "c": -(2**53)},
        {"a": float("nan"), "b": float("inf")},
        {"a": None, "b": "null"},
        {"$snakepit": 1},
        {"a": "ä", "b": "x" * 5000},
        {f"key{i}": i for i in range(100)},
        {"a": [1, {"b": (2, 3)}], "c": {}},
        {"a": b"bytes"},
    ],
)
def test_an_item_together_with_others_is_what_it_is_alone(one: dict) -> None:
    """Objects of small scalars are copied and become JSON together; what needs a tag gets one."""
    alone = encode_args(one)
    for company in ([one], [{"x": 1}, one, {"x": None}], [one, {"x": [1]}]):
        taken = [encode_item(item, number) for number, item in enumerate(company)]
        value = json.loads(join_items(taken).json)[company.index(one)]
        assert value == json.loads(alone.json)
        assert whole_item(taken[company.index(one)]).json == alone.json


def test_an_item_is_what_it_was_when_it_was_drawn() -> None:
    given: dict = {"a": 1, "b": "one"}
    inner: dict = {"a": [1]}
    taken = [encode_item(given, 0), encode_item(inner, 1)]
    given.update(a=2, c=3)
    inner["a"].append(2)
    assert json.loads(join_items(taken).json) == [{"a": 1, "b": "one"}, {"a": [1]}]


def test_a_key_that_is_no_string_is_told_when_the_item_is_drawn() -> None:
    with pytest.raises(EncodingError, match=r"items\[7\].*key 1"):
        encode_item({1: 2}, 7)
