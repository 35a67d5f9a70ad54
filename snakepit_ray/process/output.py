"""Knows what an interpreter prints: forwards it line by line and keeps the last 4 KiB, so that a dead child
explains itself.

Rules: bytes that are not UTF-8 are shown, never an error; a line without an end is forwarded after LINE_LIMIT
bytes; memory is bounded whatever is printed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TAIL_BYTES = 4096
LINE_LIMIT = 16_384


class Output:
    """One of the child's output streams: `feed` bytes in, `forward` gets whole lines, `tail` is the newest
    text."""

    def __init__(self, forward: Callable[[str], None]) -> None:
        self._forward = forward
        self._tail = bytearray()
        self._line = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes what was read; forwards every line that it completes."""
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        for line in lines:
            self._forward(_text(line))
        self._line = bytearray(rest)
        if len(rest) > LINE_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Forwards an unfinished last line."""
        if self._line:
            self._forward(_text(bytes(self._line)))
            self._line.clear()

    @property
    def tail(self) -> str:
        """The last TAIL_BYTES bytes as text."""
        return _text(bytes(self._tail)).strip()


class OutputProtocol(asyncio.Protocol):
    """Feeds an `Output` from a pipe; `closed` is done at end of file."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.output.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.output.flush()
        if not self.closed.done():
            self.closed.set_result(None)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace").rstrip("\r")
