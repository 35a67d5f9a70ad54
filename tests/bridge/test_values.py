"""Values and their wire form, without a process: properties, and the table of conversions row by row."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import sys
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bridge import harness  # puts the bridge on the path

from snakepit_bridge.values.decoding import decode  # isort: skip
from snakepit_bridge.values.encoding import encode  # isort: skip
from snakepit_bridge.values.failures import EncodingError, InvalidArguments  # isort: skip
from snakepit_bridge.values.tags import MAX_DEPTH, Unserializable  # isort: skip

assert harness

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.one_of(TEXT, st.just("$snakepit"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXT,
    st.binary(),
    st.builds(Unserializable, TEXT),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(KEYS, inner), st.lists(st.floats()), st.lists(st.integers())
    ),
    max_leaves=40,
)


def same(left, right) -> bool:
    """Equality that knows nan, the sign of zero, and True from 1."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        equal = left == right and math.copysign(1, left) == math.copysign(1, right)
        return equal or (left != left and right != right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return left == right


@given(VALUES)
def test_what_is_encoded_decodes_to_itself(value) -> None:
    data, buffers = encode(value)
    json.loads(data, parse_constant=pytest.fail)
    assert same(decode(data, buffers), value)


@given(VALUES)
def test_encoding_is_compact_and_leaves_the_value_alone(value) -> None:
    before = repr(value)
    first = encode(value)
    assert first == encode(value)
    assert repr(value) == before
    compact = json.dumps(json.loads(first[0]), ensure_ascii=False, separators=(",", ":")).encode()
    assert len(compact) == len(first[0])


TAGS = st.fixed_dictionaries(
    {
        "$snakepit": st.sampled_from(
            ["float", "int", "bytes", "tensor", "table", "object", "unserializable", 1, "x"]
        )
    },
    optional={
        "value": st.one_of(st.text(), st.integers()),
        "buffer": st.one_of(st.integers(-2, 3), st.none(), st.booleans(), st.text()),
        "dtype": st.sampled_from(["<f8", "<i2", "|O", "<M8[s]", "|u1", "V8", "", "<f8,<f8", None, 1]),
        "shape": st.one_of(st.lists(st.integers(-3, 2**65), max_size=4), st.none(), st.text()),
        "items": st.lists(st.lists(st.text(), max_size=3), max_size=3),
        "type": st.one_of(st.text(), st.integers()),
    },
)


def judged(data: bytes, buffers: list[bytes]) -> str:
    """ "value", or what the one kind of error that may come begins with."""
    try:
        decode(data, buffers)
    except InvalidArguments as error:
        return str(error)[:4]
    return "value"


@given(
    st.recursive(
        TAGS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=5
    ),
    st.lists(st.binary(max_size=40), max_size=3),
)
def test_hostile_tags_are_a_value_or_one_kind_of_error(value, buffers: list[bytes]) -> None:
    assert judged(json.dumps(value).encode(), buffers) in ("value", "args")


@given(st.binary(max_size=200))
def test_hostile_bytes_are_a_value_or_one_kind_of_error(data: bytes) -> None:
    for payload in (data, b'{"$snakepit":"table","buffer":0}'):
        assert judged(payload, [data]) in ("value", "args")


@given(
    st.sampled_from(["<f8", "<f4", "<i8", "|u1", "|b1", "<c16", ">i4", "<M8[us]", "<m8[D]"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
)
def test_arrays_come_back_as_they_were(dtype: str, shape: list[int], transposed: bool) -> None:
    count = math.prod(shape)
    array = np.arange(count).astype(dtype).reshape(shape)
    array = array.T if transposed else array
    back = decode(*encode(array))
    assert back.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: list


Pair = collections.namedtuple("Pair", "left right")


class Model:
    def model_dump(self):
        return {"kind": "pydantic"}


class WithToDict:
    def to_dict(self):
        return {"a": (1,)}


class WithToList:
    def tolist(self):
        return [1, 2]


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1, "a"}, None),
        (Color.RED, "red"),
        (Level.LOW, 1),
        (Point(1, [Color.RED]), {"x": 1, "y": ["red"]}),
        (Pair(1, Pair(2, 3)), {"left": 1, "right": {"left": 2, "right": 3}}),
        (Model(), {"kind": "pydantic"}),
        (WithToDict(), {"a": [1]}),
        (WithToList(), [1, 2]),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.timezone.utc), "2024-02-29T01:00:00+00:00"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        ({Text("key"): Text("value")}, {"key": "value"}),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.dtype("f4"), "float32"),
        (np.datetime64("2024-02-29"), {"$snakepit": "tensor", "buffer": 0, "dtype": "<M8[D]", "shape": []}),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "x", None], dtype=object), [1, "x", None]),
        (np.float64("nan"), {"$snakepit": "float", "value": "nan"}),
        (bytearray(b"x"), {"$snakepit": "bytes", "buffer": 0}),
        (memoryview(b"x"), {"$snakepit": "bytes", "buffer": 0}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
    ],
)
def test_the_table_of_conversions(value, expected) -> None:
    got = json.loads(encode(value)[0])
    if expected is None:  # a set that nothing orders
        assert sorted(map(str, got)) == sorted(map(str, value))
    else:
        assert same(got, expected)


def test_frames_and_batches_become_tables() -> None:
    table = pa.table({"x": [1, None], "s": ["a", "b"]})
    for value in (table, table.to_batches()[0], _Stream(table)):
        data, buffers = encode({"t": value})
        assert json.loads(data) == {"t": {"$snakepit": "table", "buffer": 0}}
        assert decode(data, buffers)["t"].equals(table)


class _Stream:
    """Whatever speaks the Arrow PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def test_what_speaks_dlpack_becomes_a_tensor() -> None:
    class Dlpack:
        def __dlpack__(self, **kw):
            return np.arange(3.0).__dlpack__(**kw)

        def __dlpack_device__(self):
            return np.arange(3.0).__dlpack_device__()

    assert decode(*encode(Dlpack())).tolist() == [0.0, 1.0, 2.0]


def looped() -> list:
    inner: dict = {}
    inner["again"] = [inner]
    return [inner]


def nested(levels: int):
    value: object = 1
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"x": [0, {"y": object()}]}, 'result["x"][1]["y"]: cannot encode object: send JSON values'),
        ({"x": {1: 2}}, 'result["x"]: cannot encode the key 1 (int): keys are strings'),
        (looped(), 'result[0]["again"][0]: cannot encode a value that contains itself'),
        ({"s": "a\ud800"}, "result[\"s\"]: cannot encode a string with the lone surrogate '\\ud800' at 1"),
        (complex(1, 2), "result: cannot encode complex: send [value.real, value.imag]"),
        ({"k": {}.keys()}, 'result["k"]: cannot encode dict_keys: send list(value)'),
        (ValueError("x"), "result: cannot encode ValueError: send JSON values"),
        (np.longdouble(1), "result: cannot encode numpy.longdouble: a number of dtype"),
    ],
)
def test_what_cannot_be_carried_names_its_path(value, words: str) -> None:
    with pytest.raises(EncodingError) as failed:
        encode(value)
    assert str(failed.value).startswith(words)
    data, _ = encode(value, marker=True)
    assert b"unserializable" in data


def test_nesting_has_a_limit() -> None:
    assert same(decode(*encode(nested(MAX_DEPTH))), nested(MAX_DEPTH))
    with pytest.raises(EncodingError, match="more than 200 levels"):
        encode(nested(MAX_DEPTH + 1))
    assert b"unserializable" in encode(nested(MAX_DEPTH + 1), marker=True)[0]


def test_a_conversion_that_raises_or_never_ends_is_an_error_with_a_path() -> None:
    class Raises:
        def to_dict(self):
            raise KeyError("weights")

    class Endless:
        def to_dict(self):
            return {"next": Endless()}

    with pytest.raises(EncodingError, match=r'result\["r"\]: cannot encode .*Raises: KeyError'):
        encode({"r": Raises()})
    with pytest.raises(EncodingError, match="more than 200 levels"):
        encode(Endless())


def test_integers_beyond_what_python_prints_are_errors() -> None:
    if hasattr(sys, "set_int_max_str_digits"):
        with pytest.raises(EncodingError, match="integer of 33220 bits"):
            encode(10**10_000)
        with pytest.raises(InvalidArguments, match="integer of 10000 digits"):
            decode(json.dumps({"$snakepit": "int", "value": "9" * 10_000}).encode())


def test_a_missing_library_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidArguments, match=r"numpy is needed in"):
        decode(b'{"$snakepit":"tensor","buffer":0,"dtype":"<f8","shape":[]}', [b"12345678"])
    with pytest.raises(InvalidArguments, match=r"pyarrow is needed in"):
        decode(b'{"$snakepit":"table","buffer":0}', [b""])
