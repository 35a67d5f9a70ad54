"""What a caller and a worker actor say to each other over a lane: frames of a kind, and the messages of
protos/snakepit/v1/lane.proto.

- No pickle. An error travels as its class and what it holds, and arrives as it was.
- An answer that is large does not go by the lane (`fits`): it would hold up the worker's event loop.
- What comes of a stream before its answer: lane_parts.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it has no stubs

from snakepit_ray import errors
from snakepit_ray.errors import CommandError, SnakepitError, WorkerFault, command_error
from snakepit_ray.wire import frames
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope, Info, nbytes

HELLO, CALL, BATCH, CANCEL, ANSWER, STREAM, PART, TAKEN, MOVED = range(1, 10)  # kinds of frames
LARGEST = 256 * 1024  # bytes of a request or an answer
MARGIN = 64 * 1024  # what a message has beside its values
FRAME_LIMIT = LARGEST + MARGIN
SECRET_BYTES = 32
BY_LANE = "lane"


class Lane(NamedTuple):
    """How a worker's lane is reached: from processes of its node and its user that have the secret."""

    node_id: str
    path: str
    secret: bytes

    def __repr__(self) -> str:
        return f"<Lane {self.path!r} on {self.node_id!r}>"


M = TypeVar("M")


def parsed(kind: type[M], payload: bytes) -> M:
    """The message of a frame. Raises ValueError where it is none."""
    try:
        message: M = kind.FromString(payload)  # type: ignore[attr-defined] # of every message of protobuf
    except DecodeError as error:
        raise ValueError(f"a frame holds no {kind.__name__}: {error}") from None
    return message


# ---- requests ----------------------------------------------------------------------------------------------


def hello(secret: bytes) -> bytes:
    """A caller's first frame."""
    return frames.pack(HELLO, lane_pb2.LaneHello(secret=secret).SerializeToString())


def cancel(request_id: str) -> bytes:
    """The frame that says that nobody waits for that request any more."""
    return frames.pack(CANCEL, pb.Cancel(id=request_id, reason=pb.Cancel.CALLER).SerializeToString())


def batch(requests: Sequence[pb.Request]) -> bytes:
    """The payload of a batch that came as several requests."""
    payload: bytes = lane_pb2.LaneBatch(requests=requests).SerializeToString()
    return payload


# ---- answers -----------------------------------------------------------------------------------------------


def fits(answer: Envelope | BatchEnvelope, threshold: int) -> bool:
    """Whether an answer goes by the lane: it is small, and has no buffer of more than `threshold` bytes."""
    parts: Sequence[Any] = answer.parts if isinstance(answer, BatchEnvelope) else [answer]
    sizes = [nbytes(buffer) for part in parts for buffer in part.buffers]
    if any(size > threshold for size in sizes):
        return False
    return sum(len(part.json) for part in parts) + sum(sizes) <= LARGEST


def value_answer(request_id: str, answer: Envelope | BatchEnvelope, *, free: bool = False) -> bytes:
    """The answer of a request that has a value, or of a batch. `free`: see `LaneAnswer.free`."""
    if isinstance(answer, BatchEnvelope):
        parts = lane_pb2.LaneParts(parts=map(_part, answer.parts))
        return _packed(lane_pb2.LaneAnswer(id=request_id, parts=parts, free=free))
    value = lane_pb2.LaneValue(
        json=answer.json, buffers=map(bytes, answer.buffers), info=info_message(answer.info)
    )
    return _packed(lane_pb2.LaneAnswer(id=request_id, value=value, free=free))


def error_answer(request_id: str, error: BaseException, *, free: bool = False) -> bytes:
    """The answer of a request that has failed. `free`: see `LaneAnswer.free`."""
    return _packed(lane_pb2.LaneAnswer(id=request_id, error=error_message(error), free=free))


def refused(request_id: str) -> bytes:
    """The answer of a request that was moved to a worker without a free slot."""
    return _packed(lane_pb2.LaneAnswer(id=request_id, refused=True))


def by_ray(request_id: str) -> bytes:
    """The answer of a request whose value is fetched by Ray."""
    return _packed(lane_pb2.LaneAnswer(id=request_id, by_ray=True))


def ended(request_id: str) -> bytes:
    """The answer of a stream that has no more parts."""
    return _packed(lane_pb2.LaneAnswer(id=request_id, ended=True))


def _packed(answer: lane_pb2.LaneAnswer) -> bytes:
    payload: bytes = answer.SerializeToString()
    return payload


def reader_of(request: pb.Request, *, parts: bool) -> Callable[[lane_pb2.LaneAnswer], Any]:
    """What makes a value of the answer to `request`, as unpickling makes one of an envelope that comes by
    Ray. `parts`: it is a batch. It raises EncodingError, and what a Runtime's process_response raises."""
    options, command = request.options, request.command
    errors_mode, info, runtime = options.errors, options.info, options.runtime

    def read(answer: lane_pb2.LaneAnswer) -> Any:
        if parts:
            batch = [_batch_part(part) for part in answer.parts.parts]
            return BatchEnvelope(batch, errors_mode, info, runtime, command).value()
        value = answer.value
        return Envelope(value.json, list(value.buffers), info_of(value), runtime, command).value()

    return read


def relayed(answer: lane_pb2.LaneAnswer, request: pb.Request) -> Envelope | BatchEnvelope | SnakepitError:
    """What a request that was moved has come to, as the worker that it was moved to would send it by Ray: no
    value is decoded, and the way of the call is the one that it came to its first worker."""
    options, command = request.options, request.command
    error = error_of(answer)
    if error is not None:
        return error
    if answer.HasField("parts"):
        parts = [_batch_part(part) for part in answer.parts.parts]
        parts = [part._replace(info=_without_way(part.info)) for part in parts]
        return BatchEnvelope(parts, options.errors, options.info, options.runtime, command)
    value = answer.value
    info = _without_way(info_of(value))
    return Envelope(value.json, list(value.buffers), info, options.runtime, command, options.encoded)


def error_of(answer: lane_pb2.LaneAnswer) -> SnakepitError | None:
    """The error that a request has come to; None where it has none."""
    return read_error(answer.error) if answer.HasField("error") else None


def _part(part: BatchPart) -> lane_pb2.LanePart:
    failures = [
        lane_pb2.LaneFailure(index=index, error=error_message(error)) for index, error in part.failures
    ]
    return lane_pb2.LanePart(
        json=part.json,
        size=part.size,
        buffers=map(bytes, part.buffers),
        failures=failures,
        info=info_message(part.info),
    )


def _batch_part(part: lane_pb2.LanePart) -> BatchPart:
    failures = [(failure.index, read_error(failure.error)) for failure in part.failures]
    return BatchPart(part.json, part.size, list(part.buffers), failures, info_of(part))


def info_message(info: Info | None) -> lane_pb2.LaneInfo | None:
    """Who ran it, as a message; None where nobody asks."""
    if info is None:
        return None
    worker_id, epoch, pid, node_id, request_id, waited, ran, attempts, delegated = info[:9]
    return lane_pb2.LaneInfo(
        worker_id=worker_id,
        epoch=pb.Epoch(incarnation=epoch[0], number=epoch[1]),
        pid=pid,
        node_id=node_id,
        request_id=request_id,
        waited_s=waited,
        ran_s=ran,
        attempts=attempts,
        delegated=delegated,
    )


def info_of(message: lane_pb2.LaneValue | lane_pb2.LanePart | lane_pb2.LaneChunks) -> Info | None:
    """What `info_message` was made of, and that it came by a lane."""
    if not message.HasField("info"):
        return None
    info = message.info
    return (
        info.worker_id,
        (info.epoch.incarnation, info.epoch.number),
        info.pid,
        info.node_id,
        info.request_id,
        info.waited_s,
        info.ran_s,
        info.attempts,
        info.delegated,
        BY_LANE,
    )


def _without_way(info: Info | None) -> Info | None:
    return None if info is None else info[:-1]


# ---- errors ------------------------------------------------------------------------------------------------


def error_message(error: BaseException) -> lane_pb2.LaneError:
    """An error as its class and what it holds."""
    if not isinstance(error, SnakepitError):
        error = WorkerFault(f"the worker itself failed: {type(error).__name__}: {error}; please report it")
    name = "CommandError" if isinstance(error, CommandError) else type(error).__name__
    attributes = json.dumps({key: _tagged(value) for key, value in vars(error).items()})
    text = str(error.args[0]) if error.args else ""
    return lane_pb2.LaneError(type=name, message=_clean(text), attributes_json=attributes.encode())


def read_error(message: lane_pb2.LaneError) -> SnakepitError:
    """The error that `error_message` was made of."""
    held = {key: _untagged(value) for key, value in json.loads(message.attributes_json or b"{}").items()}
    if message.type == "CommandError":
        error: SnakepitError = command_error(held.get("remote_type", ""), message.message)
    else:
        kind = getattr(errors, message.type, WorkerFault)
        error = kind(message.message)
    vars(error).update(held)
    return error


def _tagged(value: Any) -> Any:
    """JSON that knows a tuple from a list, and a mapping from a tag."""
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, Mapping):
        return {"map": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_untagged(item) for item in value["tuple"])
    return {_untagged(key): _untagged(item) for key, item in value["map"]}


def _clean(text: str) -> str:
    """`text` with what UTF-8 cannot carry written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
