"""Both codecs write the same for one value, however it is nested."""

from __future__ import annotations

import collections
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import decode_value, encode_value
from tests.bridge import harness  # puts the bridge on the path
from tests.values import samples

from snakepit_bridge.values import decoding, encoding, failures, tags  # isort: skip

assert harness

TEXT = st.text(max_size=5) | st.just("$snakepit")
ODD = [
    np.ma.masked,
    np.ma.masked_array([1]),
    np.longdouble(1),
    np.zeros(1, [("a", "i4")]),
    pa.array([1, None]),
    samples.WithArray(),
    samples.Pair(1, [2]),
    samples.Level.LOW,
    np.datetime64("NaT", "ns"),
    np.arange(3, dtype=">i2"),
    np.matrix([[1]]),
    collections.Counter("aab"),
    collections.deque([1]),
    1j,
    object(),
    bytearray(b"x"),
    memoryview(np.ones(2)),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**52, 2**70)
    | st.floats()
    | TEXT
    | st.binary(max_size=3)
    | st.builds(np.float32, st.floats(width=32))
    | st.builds(np.int64, st.integers(-(2**63), 2**63 - 1))
    | st.integers(0, len(ODD) - 1).map(ODD.__getitem__)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXT, inner, max_size=4)
        | st.dictionaries(st.integers(0, 3), inner, max_size=2)
    ),
    max_leaves=12,
)


def outcome(encode: Any, value: Any) -> Any:
    """What travels, or the error without the name of its root."""
    try:
        text, buffers = encode(value)[:2]
    except (EncodingError, failures.EncodingError) as error:
        return str(error).partition(": cannot encode ")[::2]
    return json.loads(text), [bytes(buffer) for buffer in buffers]


@given(VALUES)
def test_both_sides_write_the_same_or_refuse_with_the_same_words(value: Any) -> None:
    assert outcome(lambda v: encode_value(v, "here"), value) == outcome(
        lambda v: encoding.encode(v, root="here"), value
    )


@given(VALUES)
def test_what_one_side_writes_both_sides_read_alike(value: Any) -> None:
    try:
        text, buffers = encoding.encode(value)
    except failures.EncodingError:
        return
    assert repr(decode_value(text, buffers)) == repr(decoding.decode(text, buffers))


@pytest.mark.parametrize("done", [np.int64(3), np.float32(0.5), 2**60, 3])
def test_progress_takes_every_number(done: Any) -> None:
    text, _ = encoding.encode(tags.Progress(done, total=np.int32(5)))
    report = decode_value(text)
    assert (report.done, report.total) == (done, 5)
    with pytest.raises(failures.EncodingError, match="progress whose done is list"):
        encoding.encode(tags.Progress([1]))
