"""How a call becomes a Request. No Ray, no process.

Rules:
- What cannot be sent fails here, at the call site, before anything left the process.
- The hot path does each thing once: one message, one serialization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple, TypeAlias

from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.config.checks import MAX_BUDGET
from snakepit_ray.errors import ConfigError
from snakepit_ray.runtimes import Runtime, has_hooks, runtime_ref
from snakepit_ray.telemetry.trace_context import Trace, current
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import (
    BatchEnvelope,
    Encoded,
    Envelope,
    Item,
    check_size,
    decode_value,
    encode_args,
    encode_item,
    encode_value,
    item_bytes,
    join_items,
    nbytes,
    refs_of,
    whole_item,
)

AFFINITY = {
    "hint": pb.AFFINITY_HINT,
    "strict_queue": pb.AFFINITY_STRICT_QUEUE,
    "strict_fail_fast": pb.AFFINITY_STRICT_FAIL_FAST,
}


class Budgeted(NamedTuple):
    """Arguments that a Runtime has prepared, and the budget that it allows them: None where it says
    nothing."""

    item: Item
    budget: float | None


Drawn: TypeAlias = Item | Budgeted  # the arguments of one call as they were when they were given


def drawn_bytes(drawn: Drawn) -> int:
    """Bytes of its JSON and its buffers, as `item_bytes` counts them."""
    return item_bytes(_item(drawn))


def drawn_refs(drawn: Drawn) -> Sequence[tuple[str, Any]]:
    """The refs among the arguments."""
    return () if type(drawn) is dict else refs_of(_item(drawn))


def _item(drawn: Drawn) -> Item:
    return drawn.item if isinstance(drawn, Budgeted) else drawn


class RequestBuilder:
    """Builds the requests of one pool in one process. `declared(command)` is the timeout that the command has
    of its own, None where it has none or nobody knows."""

    def __init__(
        self,
        config: PoolConfig,
        runtime: Runtime,
        ref_type: type | None,
        new_id: Callable[[], str],
        declared: Callable[[str], float | None] = lambda command: None,
    ) -> None:
        self._config = config
        self._runtime = runtime if has_hooks(runtime) else None
        self._runtime_name = runtime_ref(runtime) if self._runtime is not None else ""
        self._ref_type = ref_type
        self._new_id = new_id
        self._declared = declared

    def draw(self, command: str, args: Any, number: int = 0) -> Drawn:
        """Encodes one call's arguments now, to be sent later, alone or with others.

        Raises InvalidArguments, EncodingError, UnknownCommand, and what a Runtime's hook raises."""
        if self._runtime is None:
            return encode_item(args, number, self._ref_type)
        prepared, budget = self._prepared(command, args)
        return Budgeted(encode_item(prepared, number, self._ref_type), budget)

    def drawer(self, command: str) -> Callable[[Any, int], Drawn]:
        """`draw` for many calls of one command: takes the arguments of each, and its number."""
        if self._runtime is not None:
            return lambda args, number: self.draw(command, args, number)
        ref_type = self._ref_type
        return lambda args, number: encode_item(args, number, ref_type)

    def _prepared(self, command: str, args: Any) -> tuple[Any, float | None]:
        """What the Runtime makes of the arguments, and the budget that it allows them."""
        assert self._runtime is not None
        self._runtime.validate_command(command, args)
        prepared = self._runtime.prepare_args(command, args)
        return prepared, _budget(command, self._runtime.command_timeout(command, prepared))

    def build(
        self, command: str, args: Any, options: CallOptions, *, stream: bool = False, pack: bool = False
    ) -> tuple[pb.Request, list[Any]]:
        """The request, and what travels beside it: the object refs that Ray is to resolve at the worker, in
        the order of `request.refs`, and then as one `parcel` the large buffers. `pack`: chunks of the
        `stream` may travel together. The trace context is that which is current here.

        Raises InvalidArguments, EncodingError, PayloadTooLarge, UnknownCommand.
        """
        args, budget = {} if args is None else args, None
        if self._runtime is not None:
            args, budget = self._prepared(command, args)
        encoded = encode_args(args, self._ref_type)
        request, beside = self._single(command, encoded, budget, options, stream)
        request.pack = pack
        _trace(request, current())
        return request, beside

    def passed_on(
        self, command: str, encoded: Encoded, options: CallOptions, *, stream: bool = False
    ) -> tuple[pb.Request, list[Any]]:
        """`build` of arguments that came encoded from an interpreter, in nobody's trace context. They are
        decoded where the Runtime has hooks. Raises as `build`."""
        if self._runtime is not None:
            args = decode_value(encoded.json, encoded.buffers, "args")
            return self.build(command, args, options, stream=stream)
        return self._single(command, encoded, None, options, stream)

    def single(
        self, command: str, drawn: Drawn, options: CallOptions, trace: Trace | None = None
    ) -> tuple[pb.Request, list[Any]]:
        """`build` of arguments that were drawn, in the trace context of whoever has drawn them. Raises
        PayloadTooLarge."""
        budget = drawn.budget if isinstance(drawn, Budgeted) else None
        request, beside = self._single(command, whole_item(_item(drawn)), budget, options, False)
        _trace(request, trace)
        return request, beside

    def _single(
        self, command: str, encoded: Encoded, budget: float | None, options: CallOptions, stream: bool
    ) -> tuple[pb.Request, list[Any]]:
        config = self._config
        check_size(encoded, config.max_message_size, config.binary_threshold)
        beside: list[Any] = []
        request = pb.Request(
            id=self._new_id(),
            command=command,
            args=_payload(encoded.json, encoded.buffers, beside, config.binary_threshold),
            refs=[pb.NamedPayload(name=name) for name, _ in encoded.refs],
            session=options.session or "",
            stream=stream,
        )
        self._budgeted(request, command, options, budget if options.timeout is None else options.timeout)
        return request, [*(ref for _, ref in encoded.refs), *parcel(beside)]

    def batch(
        self,
        command: str,
        drawn: Sequence[Drawn],
        options: CallOptions,
        errors: int,
        beside: list[Any],
        traces: Sequence[Trace | None] = (),
    ) -> pb.Request:
        """The request for one call of `command` with each of the arguments that were drawn, which hold no
        refs. `errors` is one of BatchErrors; large buffers are added to those `beside`; `traces` are the
        trace contexts of the calls, or one for all of them. Raises PayloadTooLarge."""
        config = self._config
        encoded = join_items(list(map(_item, drawn)) if self._runtime is not None else drawn)  # type: ignore[arg-type] # nothing is budgeted without a Runtime
        check_size(encoded, config.max_message_size, config.binary_threshold)
        request = pb.Request(
            id=self._new_id(),
            command=command,
            args=_payload(encoded.json, encoded.buffers, beside, config.binary_threshold),
            session=options.session or "",
            batch=pb.Batch(count=len(drawn)),
        )
        budget = (
            _largest_budget(drawn)
            if options.timeout is None and self._runtime is not None
            else options.timeout
        )
        self._budgeted(request, command, options, budget)
        _trace_items(request, traces)
        request.options.errors = errors  # type: ignore[assignment] # a number of the enum
        return request

    def _budgeted(
        self, request: pb.Request, command: str, options: CallOptions, budget: float | None
    ) -> None:
        """The request's options, and its budget: `budget` where the caller or the Runtime has named one, else
        the command's own, else the pool's."""
        config, is_default = self._config, budget is None
        if budget is None:
            budget = self._declared(command)
        if budget is None:
            budget = config.stream_timeout if request.stream else config.request_timeout
        inside = chains.inside()
        if inside is not None:  # code of a tool makes it
            budget, is_default = inside.within(budget), False
            request.chain.CopyFrom(inside.calls())
        request.budget_ms = max(1, int(budget * 1000))
        request.options.CopyFrom(self._call_options(options, is_default))

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


def _trace(request: pb.Request, trace: Trace | None) -> None:
    if trace is not None:
        request.traceparent, request.tracestate = trace


def _trace_items(request: pb.Request, traces: Sequence[Trace | None]) -> None:
    """Each context is written once: as the request's where all calls have the same, else in a table."""
    different = set(traces)
    if len(different) < 2:
        _trace(request, next(iter(different), None))
        return
    places: dict[Trace | None, int] = {None: 0}
    request.item_traces.places.extend(places.setdefault(trace, len(places)) for trace in traces)
    for trace in places:
        if trace is not None:
            request.item_traces.traces.add(traceparent=trace.traceparent, tracestate=trace.tracestate)


def _largest_budget(drawn: Sequence[Drawn]) -> float | None:
    budgets = [one.budget for one in drawn if isinstance(one, Budgeted) and one.budget is not None]
    return max(budgets, default=None)


def _budget(command: str, seconds: float | None) -> float | None:
    """What a Runtime's command_timeout said. Raises ConfigError for what is no budget."""
    if seconds is not None and not 0 < seconds <= MAX_BUDGET:  # nor is NaN
        raise ConfigError(
            f"command_timeout of the runtime said {seconds!r} for command {command!r}: it is a number of "
            "seconds "
            f"above 0 and at most {MAX_BUDGET:,.0f}, or None for the pool's request_timeout",
            key="command_timeout",
        )
    return seconds


def parcel(buffers: Sequence[Any]) -> list[Any]:
    """The buffers of one call as the last argument of its Ray task: out of band, so that they are copied into
    the object store once and are views of it at the worker; [] where there are none."""
    return [[PickleBuffer(buffer) for buffer in buffers]] if buffers else []


def unpack(requests: Sequence[pb.Request], values: tuple[Any, ...], threshold: int) -> list[Any]:
    """The buffers that travel beside a call, from the `values` of its Ray task. Those that Ray resolved for
    its refs are filled in: results of another pool as they came, others encoded. Raises EncodingError."""
    (first, *_) = requests
    # One that another worker sends on has them already.
    refs = [] if first.options.hops else list(first.refs)
    beside: list[Any] = [buffer for buffers in values[len(refs) :] for buffer in buffers]
    for slot, value in zip(refs, values, strict=False):
        text, buffers = _encoded(value, f"args[{slot.name!r}]" if slot.name else "args")
        slot.value.CopyFrom(_payload(text, buffers, beside, threshold))
    return beside


def _encoded(value: Any, root: str) -> tuple[bytes, Sequence[Any]]:
    if isinstance(value, Envelope) and not value.runtime:
        return value.json, value.buffers
    if isinstance(value, Envelope):  # its Runtime has the last word on what the value is
        value = Envelope(value.json, value.buffers, None, value.runtime, value.command).value()
    elif isinstance(value, BatchEnvelope):  # its parts are one list only when they are decoded
        value = value.value()
    encoded = encode_value(value, root=root)
    return encoded.json, encoded.buffers


def _payload(text: bytes, buffers: Sequence[Any], beside: list[Any], threshold: int) -> pb.Payload:
    """The payload; buffers of more than `threshold` bytes are added to those `beside` it."""
    payload = pb.Payload(json=text)
    for buffer in buffers:
        if nbytes(buffer) > threshold:
            payload.buffers.add().beside = len(beside)
            beside.append(buffer)
        else:
            payload.buffers.add().inline = bytes(buffer)
    return payload
