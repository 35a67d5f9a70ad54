"""The W3C trace context of whoever makes a call: OpenTelemetry's current span, where a program uses that.

Rule: where OpenTelemetry is not loaded no span can be current, so that asking costs one look-up (0.1 us).
Source: https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple


class Trace(NamedTuple):
    """A trace context as it travels."""

    traceparent: str
    tracestate: str = ""


def current() -> Trace | None:
    """The context of the span that is current in this task or thread; None where there is none."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_current_span"):  # not loaded; being loaded just now
        return None
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return Trace(parent, span.trace_state.to_header() if span.trace_state else "")


@contextlib.contextmanager
def entered(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """What is done in this block is a child of that span, where this program uses OpenTelemetry."""
    api: Any = sys.modules.get("opentelemetry.context")
    if not traceparent or api is None or not hasattr(api, "attach"):
        yield
        return
    from opentelemetry.trace.propagation import tracecontext  # type: ignore[import-not-found,unused-ignore]

    carrier = {"traceparent": traceparent, "tracestate": tracestate}
    token = api.attach(tracecontext.TraceContextTextMapPropagator().extract(carrier))
    try:
        yield
    finally:
        api.detach(token)
