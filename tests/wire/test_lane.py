"""What goes over a lane arrives as what comes by Ray: values, batches, errors."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray import errors
from snakepit_ray.errors import SnakepitError
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope, encode_value
from tests.unit.test_errors import HELPED

INFO = ("w-0", (3, 4), 5, "node", "id", 0.25, 0.5, 2, True)
CLASSES = [
    found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, SnakepitError) and name in errors.__all__
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def carried(request: pb.Request, answer: Any) -> Any:
    packed = lane.value_answer(request.id, answer)
    message = lane.parsed(lane_pb2.LaneAnswer, packed)
    assert message.id == request.id
    return lane.reader_of(request, parts=bool(request.batch.count))(message)


def alike(one: SnakepitError, other: SnakepitError) -> bool:
    return (type(one), str(one), vars(one)) == (type(other), str(other), vars(other))


@given(json_values, st.booleans())
def test_a_value_is_the_one_that_ray_would_bring(value: Any, with_info: bool) -> None:
    encoded = encode_value(value, root="value")
    envelope = Envelope(encoded.json, encoded.buffers, INFO if with_info else None)
    came, by_ray = carried(pb.Request(id="r-1"), envelope), pickle.loads(pickle.dumps(envelope))
    if not with_info:
        assert came == by_ray
        return
    assert (came.way, by_ray.way) == ("lane", "ray")
    assert {**vars_of(came), "way": "ray"} == vars_of(by_ray)


def vars_of(reply: Any) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in reply.__slots__}


@pytest.mark.parametrize("mode", [pb.BATCH_ERRORS_RETURN, pb.BATCH_ERRORS_APART])
def test_a_batch_is_the_one_that_ray_would_bring(mode: Any) -> None:
    failed = errors.command_error("ValueError", "bad", "trace", "python", "add")
    parts = [BatchPart(b"[1,null]", 2, (), [(1, failed)], INFO), BatchPart(b"[3]", 1)]
    request = pb.Request(id="r-1", command="add", batch=pb.Batch(count=3))
    request.options.errors = mode
    batch = BatchEnvelope(parts, mode, False, "", "add")
    assert repr(carried(request, batch)) == repr(pickle.loads(pickle.dumps(batch)))


@pytest.mark.parametrize("error", HELPED, ids=lambda error: type(error).__name__)
def test_an_error_is_the_one_that_pickle_would_bring(error: SnakepitError) -> None:
    assert alike(lane.read_error(lane.error_message(error)), pickle.loads(pickle.dumps(error)))


@given(st.sampled_from(CLASSES), st.text(), st.data())
def test_every_class_of_error_arrives_with_all_that_it_holds(
    kind: Any, text: str, data: st.DataObject
) -> None:
    error = kind(text)
    held = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.tuples(inner, inner)
            | st.dictionaries(st.sampled_from(["map", "tuple", "x"]), inner, max_size=2)
        ),
        max_leaves=4,
    )
    for name in vars(error):
        if name not in ("message", "remote_type", "traceback", "language", "command"):
            setattr(error, name, data.draw(held))
    came = lane.read_error(lane.error_message(error))
    assert (type(came), vars(came)) == (type(error), vars(error))


def test_what_is_no_error_of_ours_is_a_fault_of_the_worker() -> None:
    came = lane.read_error(lane.error_message(KeyError("nobody")))
    assert type(came) is errors.WorkerFault
    assert "KeyError: 'nobody'" in str(came)


@pytest.mark.parametrize(
    ("envelope", "fits"),
    [
        (Envelope(b"1"), True),
        (Envelope(b"1", [b"x" * 100]), True),
        (Envelope(b"1", [b"x" * 101]), False),
        (Envelope(b"x" * lane.LARGEST), True),
        (Envelope(b"x" * lane.LARGEST, [b"y"]), False),
        (BatchEnvelope([BatchPart(b"[1]", 1), BatchPart(b"x" * lane.LARGEST, 1)]), False),
    ],
)
def test_an_answer_fits_when_it_and_its_buffers_are_small(envelope: Any, fits: bool) -> None:
    assert lane.fits(envelope, 100) is fits


@given(st.binary(max_size=200))
def test_a_payload_that_is_no_message_is_a_value_error(payload: bytes) -> None:
    for kind in (pb.Request, lane_pb2.LaneBatch, lane_pb2.LaneAnswer, pb.Cancel):
        with contextlib.suppress(ValueError):
            assert isinstance(lane.parsed(kind, payload), kind)


def test_a_lanes_secret_is_not_shown() -> None:
    secret = b"0123456789abcdef"
    shown = repr([lane.Lane("node", "/tmp/x/s", secret)])
    assert "/tmp/x/s" in shown and secret.decode() not in shown
