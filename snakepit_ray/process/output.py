"""What an interpreter prints: forwarded line by line, and the last 4 KiB kept, so that a dead child explains
itself.

Rules: bytes that are not UTF-8 are shown, never an error; a line without an end is forwarded after LINE_LIMIT
bytes; memory is bounded whatever is printed. READ_BYTES are read at a time, because a child may print nothing
but line ends, and each line takes about 5 microseconds of the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import IO

TAIL_BYTES = 4096
LINE_LIMIT = 16_384
READ_BYTES = 4096
LONGEST_LINE = 16 * 1024 * 1024


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


class Reader:
    """Reads a pipe that is its own from now on; `closed` is done at end of file. What is read goes to
    `take`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self.closed: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self.take(data)
        else:
            self.close()

    def take(self, data: bytes) -> None:
        """These bytes have arrived."""

    def close(self) -> None:
        """Reads no more. Safe to repeat."""
        if not self.closed.done():
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self.closed.set_result(None)
            self.ended()

    def ended(self) -> None:
        """Nothing more arrives."""


class OutputReader(Reader):
    """Feeds an `Output` from a pipe."""

    def __init__(self, pipe: IO[bytes], output: Output) -> None:
        super().__init__(pipe)
        self._output = output

    def take(self, data: bytes) -> None:
        self._output.feed(data)

    def ended(self) -> None:
        self._output.flush()


class LineReader(Reader):
    """Reads one line: `line` is done with it, or with b"" when the pipe closes without one or the line is
    longer than LONGEST_LINE."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(pipe)
        self.line: asyncio.Future[bytes] = self._loop.create_future()
        self._data = bytearray()

    def take(self, data: bytes) -> None:
        self._data += data
        if b"\n" in data or len(self._data) > LONGEST_LINE:
            self.close()

    def ended(self) -> None:
        line, end, _ = bytes(self._data).partition(b"\n")
        if not self.line.done():
            self.line.set_result(line + end if end else b"")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace").rstrip("\r")
