"""What a worker answers, made of what an interpreter replied: envelopes of values, parts of batches, errors.

- No value is decoded.
- A failure of the interpreter is raised as its typed error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from snakepit_ray.errors import SnakepitError, WorkerCrashed, failure_to_error
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope

KINDS = {value.number: value.name for value in pb.Failure.Kind.DESCRIPTOR.values}


def outcome(
    reply: pb.Reply, buffers: Sequence[Any], request: pb.Request, info: tuple[Any, ...] | None
) -> Envelope | BatchEnvelope:
    """The envelope of a reply's value, whose buffers are `buffers`. Raises the error that a failed reply
    describes."""
    if reply.WhichOneof("outcome") == "failure":
        raise error_of(reply.failure, request.command)
    if request.batch.count:
        return batch_of([_part(reply, buffers, request.command, info)], request)
    return Envelope(
        json=reply.value.json,
        buffers=buffers,
        info=info,
        runtime=request.options.runtime,
        command=request.command,
        is_kept=request.options.encoded,
    )


def batch_of(parts: Sequence[BatchPart], request: pb.Request) -> BatchEnvelope:
    """The envelope of a batch that ran in one or more parts."""
    options = request.options
    return BatchEnvelope(parts, options.errors, options.info, options.runtime, request.command)


def crashed(request: pb.Request, crash: WorkerCrashed) -> BatchEnvelope:
    """What is left of a batch whose interpreter has died: the items that had begun fail, the others are given
    back. Raises `crash` where there are none of them."""
    if not crash.begun or crash.begun >= request.batch.count:
        raise crash
    return batch_of([failed_part(crash.begun, crash)], request)


def failed_part(size: int, error: SnakepitError) -> BatchPart:
    """Items of a batch that failed together."""
    nothing = b"[" + b",".join([b"null"] * size) + b"]"
    return BatchPart(nothing, size, (), [(index, error) for index in range(size)])


def _part(reply: pb.Reply, buffers: Sequence[Any], command: str, info: tuple[Any, ...] | None) -> BatchPart:
    failures = [(item.index, error_of(item.failure, command)) for item in reply.failures]
    return BatchPart(reply.value.json, reply.items, buffers, failures, info)


def error_of(failure: pb.Failure, command: str) -> SnakepitError:
    """The typed error of a structured failure."""
    details: Mapping[str, Any] = json.loads(failure.details_json) if failure.details_json else {}
    return failure_to_error(
        KINDS.get(failure.kind, "INTERNAL"),
        failure.type,
        failure.message,
        failure.traceback,
        failure.language,
        dict(details),
        command,
    )
