"""Each row of the value table, in both directions: what is sent arrives as the row says, or is refused with
advice that works. The sender's codec writes, the receiver's reads."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import Part, Piece, Unserializable, decode_value, encode_args, encode_items
from snakepit_ray.wire.codec.decoding import decode_values
from tests.bridge import harness  # puts the bridge on the path
from tests.values.page import PAGE, ROOT, page, rows

from snakepit_bridge.values import decoding, encoding, failures, quick  # isort: skip

assert harness

ALWAYS = "array collections dataclasses datetime decimal fractions numpy pathlib pyarrow types uuid zoneinfo"
MODULES = {"scipy": "scipy.sparse", "astropy": "astropy.units"}
TWINS = ("values/hints.py", "tensors/kinds.py", "tensors/tensors.py")


def names(row: dict[str, Any]) -> dict[str, Any]:
    """What the expressions of a row may use. Skips where a library of the row is not installed."""
    needed = row.get("needs", [])
    for name in needed:
        pytest.importorskip(MODULES.get(name, name))
    modules = {name: importlib.import_module(name) for name in [*ALWAYS.split(), *needed]}
    return {**modules, "samples": importlib.import_module("tests.values.samples")}


def by_argument(value: Any) -> Any:
    """As a command gets it. Raises EncodingError."""
    encoded = encode_args({"x": value})
    return decoding.decode(encoded.json, encoded.buffers)["x"]


def in_a_batch(value: Any) -> Any:
    encoded = encode_items([{"x": 1}, {"x": [value]}])
    return decoding.decode_items(encoded.json, encoded.buffers)[1]["x"][0]


def by_result(value: Any) -> Any:
    """As a caller gets what a command returned."""
    return decode_value(*encoding.encode(value))


def in_a_result(value: Any) -> Any:
    text, buffers = encoding.encode([1, {"x": value}])
    (_, found), unreadable = decode_values(text, buffers, 2)
    assert not unreadable
    return found["x"]


def as_a_chunk(value: Any) -> Any:
    text, buffers = quick.quick({"x": value}), []
    if text is None:
        text, buffers = encoding.encode({"x": value}, root="chunk")
    (found,) = Part([Piece(text, buffers)]).values()
    return found["x"]


WAYS = {"argument": (by_argument, in_a_batch), "result": (by_result, in_a_result, as_a_chunk)}
CASES = [
    pytest.param(row, side, way, id=f"{row['kind'][:40]}-{way.__name__}")
    for row in rows()
    for side, ways in WAYS.items()
    for way in ways
]


@pytest.mark.parametrize(("row", "side", "way"), CASES)
def test_a_value_arrives_as_the_table_says(row: dict[str, Any], side: str, way: Callable[[Any], Any]) -> None:
    known = names(row)
    value = eval(row["example"], known)
    said = row[side]
    if "becomes" in said:
        expected = eval(said.get("arrives", "value"), {**known, "value": value})
        assert_same(way(value), expected)
        return
    with pytest.raises((EncodingError, failures.EncodingError)) as refused:
        way(value)
    message = str(refused.value)
    assert ": cannot encode " in message and said["refused"] in message
    for advice in said["send"]:
        assert "send " in message and advice in message
        way(eval(advice, {**known, "value": value, "column": "a"}))


def test_a_data_frame_comes_back_with_its_index_its_types_and_its_attributes() -> None:
    pandas = pytest.importorskip("pandas")
    from tests.values.samples import frame

    for way in (by_argument, by_result):
        pandas.testing.assert_frame_equal(way(frame()).to_pandas(), frame())
        assert way(frame()).to_pandas().attrs == {"unit": "m"}


@pytest.mark.parametrize(
    "row", [row for row in rows() if "refused" in row["result"]], ids=lambda row: row["kind"]
)
def test_a_refused_result_is_a_marker_where_the_pool_asks_for_it(row: dict[str, Any]) -> None:
    value = eval(row["example"], names(row))
    text, buffers = encoding.encode([value, 1], marker=True)
    found = decode_value(text, buffers)
    assert found[1] == 1 and any(isinstance(one, Unserializable) for one in leaves(found[0]))


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("file", TWINS)
def test_both_sides_have_the_same_decisions(file: str) -> None:
    host = ROOT / "snakepit_ray/wire/codec" / Path(file).name
    bridge = ROOT / "bridge/python/snakepit_bridge" / file
    assert host.read_bytes() == bridge.read_bytes()


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: .venv/bin/python -m tests.values.page"


def assert_same(found: Any, expected: Any) -> None:
    """Equal and of one type throughout; nan is nan, -0.0 is not 0.0."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes() and not found.flags.writeable
    elif isinstance(expected, pa.Table):
        assert found.schema.equals(expected.schema, check_metadata=True) and found.equals(expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert (math.isnan(found) and math.isnan(expected)) or (
            found == expected and math.copysign(1, found) == math.copysign(1, expected)
        )
    else:
        assert found == expected
