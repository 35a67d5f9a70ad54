"""What a worker and the process that runs a tool "here" say to each other: values of one long poll.

A process asks each worker for calls (`serve_tools`), and brings with each question what its tools have come
to. A question that is newer than another ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

AHEAD_VALUES = 64  # values of a stream that its tool may be ahead of the command that takes them


class ToolCall(NamedTuple):
    """One call of a tool. `id`: among the calls of one worker to one process. `tool`: the id of the tool's
    registration. `json`, `buffers`: its arguments, encoded. `seconds`: what is left of the budget, None for
    no bound. `chain`: the calls that led to it, a serialized pb.Chain."""

    id: int
    tool: str
    name: str
    json: bytes
    buffers: Sequence[Any]
    seconds: float | None = None
    request_id: str = ""
    session: str = ""
    traceparent: str = ""
    tracestate: str = ""
    chain: bytes = b""


class ToolAnswer(NamedTuple):
    """What a call has come to: its value, one value of its stream, or its end. `failure`: a serialized
    pb.Failure, b"" for none. `has_value`: `json` and `buffers` are one. `is_last`: nothing comes after it.
    `is_waiting`: no answer yet, the function has called a pool."""

    id: int
    json: bytes = b""
    buffers: Sequence[Any] = ()
    failure: bytes = b""
    has_value: bool = False
    is_last: bool = True
    is_waiting: bool = False


class ToolTurn(NamedTuple):
    """What a worker answers: calls to run, ids of calls that nobody waits for any more, and of streams how
    many values more were taken."""

    calls: Sequence[ToolCall] = ()
    cancels: Sequence[int] = ()
    taken: Sequence[tuple[int, int]] = ()
