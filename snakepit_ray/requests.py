"""Knows how a call becomes a Request and a Reply becomes a value or an error; no Ray, no process.

Rules: what cannot be sent fails here, at the call site, before anything left the process; the hot path does
each thing once (one message, one serialization)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.codec import (
    BatchEnvelope,
    BatchPart,
    Encoded,
    Envelope,
    check_size,
    encode_args,
    encode_items,
    encode_value,
)
from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.errors import SnakepitError, failure_to_error
from snakepit_ray.runtimes import Runtime, has_hooks, runtime_ref

AFFINITY = {
    "hint": pb.AFFINITY_HINT,
    "strict_queue": pb.AFFINITY_STRICT_QUEUE,
    "strict_fail_fast": pb.AFFINITY_STRICT_FAIL_FAST,
}
KINDS = {value.number: value.name for value in pb.Failure.Kind.DESCRIPTOR.values}


class RequestBuilder:
    """Builds the requests of one pool in one process."""

    def __init__(
        self, config: PoolConfig, runtime: Runtime, ref_type: type | None, new_id: Callable[[], str]
    ) -> None:
        self._config = config
        self._runtime = runtime if has_hooks(runtime) else None
        self._runtime_name = runtime_ref(runtime) if self._runtime is not None else ""
        self._ref_type = ref_type
        self._new_id = new_id

    def build(
        self, command: str, args: Any, options: CallOptions, *, stream: bool = False, pack: bool = False
    ) -> tuple[pb.Request, list[Any]]:
        """The request, and the object refs that Ray is to resolve at the worker, in the order of
        `request.refs`. `pack`: chunks of the `stream` may travel together.

        Raises InvalidArguments, EncodingError, PayloadTooLarge, UnknownCommand.
        """
        config = self._config
        budget, named = options.timeout, options.timeout is not None
        if self._runtime is not None:
            self._runtime.validate_command(command, args if args is not None else {})
            args = self._runtime.prepare_args(command, args if args is not None else {})
            if not named:
                budget = self._runtime.command_timeout(command, args)
                named = budget is not None
        if budget is None:
            budget = config.stream_timeout if stream else config.request_timeout
        encoded = encode_args(args if args is not None else {}, self._ref_type)
        check_size(encoded, config.max_message_size, threshold=None)  # every buffer travels in band
        request = pb.Request(
            id=self._new_id(),
            command=command,
            args=_payload(encoded),
            refs=[pb.NamedPayload(name=name) for name, _ in encoded.refs],
            session=options.session or "",
            budget_ms=max(1, int(budget * 1000)),
            stream=stream,
            pack=pack,
            options=self._call_options(options, not named),
        )
        return request, [ref for _, ref in encoded.refs]

    def build_batch(
        self, command: str, items: Sequence[Any], options: CallOptions, errors: int, begin: int = 0
    ) -> pb.Request:
        """The request for one call of `command` with each of `items`; `begin` is the number of the first.
        `errors` is one of BatchErrors.

        Raises as `build`, for the first item that is wrong; items hold no refs.
        """
        budgets = []
        if self._runtime is not None:
            given, items = items, []
            for args in given:
                self._runtime.validate_command(command, args)
                items.append(self._runtime.prepare_args(command, args))
                budgets.append(self._runtime.command_timeout(command, items[-1]))
        encoded = encode_items(items, self._ref_type, begin)
        check_size(encoded, self._config.max_message_size, threshold=None)
        known = [budget for budget in (options.timeout, *budgets) if budget is not None]
        budget = options.timeout or max(known, default=self._config.request_timeout)
        request = pb.Request(
            id=self._new_id(),
            command=command,
            args=_payload(encoded),
            session=options.session or "",
            budget_ms=max(1, int(budget * 1000)),
            options=self._call_options(options, not known),
            batch=pb.Batch(count=len(items)),
        )
        request.options.errors = errors  # type: ignore[assignment] # a number of the enum
        return request

    def _call_options(self, options: CallOptions, default_budget: bool) -> pb.CallOptions:
        config = self._config
        return pb.CallOptions(
            affinity=AFFINITY[str(options.affinity.value if options.affinity else config.affinity.value)],
            idempotent=bool(options.idempotent),
            info=options.info,
            rebind=options.rebind,
            queue_ms=max(1, int(config.queue_timeout * 1000)),
            retries=config.retries if options.retries is None else options.retries,
            runtime=self._runtime_name,
            default_budget=default_budget,
        )


def _payload(encoded: Encoded) -> pb.Payload:
    return pb.Payload(json=encoded.json, buffers=[pb.Buffer(inline=bytes(b)) for b in encoded.buffers])


def fill_refs(request: pb.Request, values: tuple[Any, ...]) -> None:
    """Puts the values that Ray resolved into `request.refs`: a result of another pool as it came, others
    encoded."""
    for slot, value in zip(request.refs, values, strict=True):
        if isinstance(value, Envelope) and not value.runtime:
            _fill(slot.value, value.json, value.buffers)
        elif isinstance(value, Envelope):  # its Runtime has the last word on what the value is
            encoded = encode_value(
                Envelope(value.json, value.buffers, None, value.runtime, value.command).value()
            )
            _fill(slot.value, encoded.json, encoded.buffers)
        elif isinstance(value, BatchEnvelope):  # its parts are one list only when they are decoded
            encoded = encode_value(value.value())
            _fill(slot.value, encoded.json, encoded.buffers)
        else:
            encoded = encode_value(value, root=f"args[{slot.name!r}]" if slot.name else "args")
            _fill(slot.value, encoded.json, encoded.buffers)


def _fill(payload: pb.Payload, text: bytes, buffers: Any) -> None:
    payload.json = text
    for buffer in buffers:
        payload.buffers.add().inline = bytes(buffer)


def outcome(reply: pb.Reply, request: pb.Request, info: tuple[Any, ...] | None) -> Envelope | BatchEnvelope:
    """The envelope of a reply's value. Raises the error that a failed reply describes."""
    if reply.WhichOneof("outcome") == "failure":
        raise error_of(reply.failure, request.command)
    if request.batch.count:
        return batch_of([_part(reply, request.command, info)], request)
    return Envelope(
        json=reply.value.json,
        buffers=[buffer.inline for buffer in reply.value.buffers],
        info=info,
        runtime=request.options.runtime,
        command=request.command,
    )


def batch_of(parts: Sequence[BatchPart], request: pb.Request) -> BatchEnvelope:
    """The envelope of a batch that ran in one or more parts."""
    options = request.options
    return BatchEnvelope(parts, options.errors, options.info, options.runtime, request.command)


def _part(reply: pb.Reply, command: str, info: tuple[Any, ...] | None) -> BatchPart:
    failures = [(item.index, error_of(item.failure, command)) for item in reply.failures]
    buffers = [buffer.inline for buffer in reply.value.buffers]
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
