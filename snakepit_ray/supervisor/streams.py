"""One stream at its worker: the chunks that have come and that nobody has taken yet, its credit, its end.

- To the worker a stream is a call whose chunks go aside: it waits, holds its slot and ends as a call does.
- Credit is granted for what was taken, so memory is bounded by one window.
- The chunks before an error are handed out before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.core.work.chunking import FLUSH_BYTES, FLUSH_CHUNKS, Window, flush_in
from snakepit_ray.errors import EncodingError, RequestCancelled
from snakepit_ray.process.awaiting import happens
from snakepit_ray.supervisor.dispatch import OnSlot
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.outcomes import Done, Relayed
from snakepit_ray.supervisor.supervisor import Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Piece


class Stream:
    """One streaming request. Begins when it is made; `close` it, however its taker ends."""

    def __init__(self, supervisor: Supervisor, request: pb.Request, *, on_slot: OnSlot | None = None) -> None:
        self._clock = supervisor.clock
        self.request = request
        self.began = self.opened_at = self._clock()
        self.chunks = 0  # that came
        self._closed = False
        self._window = Window()
        request.stream = True
        request.credit, request.credit_bytes = self._window.first
        self._left_chunks, self._left_bytes = self._window.first  # what its producer may send
        self._look_again = supervisor.admission.look_again if request.HasField("chain") else None
        self._pieces: deque[Piece] = deque()
        self._held_chunks = self._held_bytes = 0
        self._sent_at = float("-inf")
        self._interpreter: Interpreter | None = None
        self._changed = asyncio.Event()
        self._about = {"command": request.command, "pool": supervisor.pool, "worker_id": supervisor.worker_id}
        running = supervisor.dispatch.run(request, may_move=False, on_slot=on_slot, sink=self)
        self._call = asyncio.ensure_future(running)
        self._call.add_done_callback(self._ended)

    # ---- what the worker says -----------------------------------------------------------------------------

    def opened(self, interpreter: Interpreter) -> Callable[[pb.Chunk], None]:
        """It runs now, or runs next; again when it is sent to another interpreter, having not begun."""
        first, self._interpreter = self._interpreter is None, interpreter
        self.opened_at = self._clock()
        if first and telemetry.listening["stream.started"]:
            telemetry.emit("stream.started", {}, {**self._about, "session": self.request.session or None})
        return self._arrived

    def _arrived(self, chunk: pb.Chunk) -> None:
        assert self._interpreter is not None
        # What is damaged is an error where it is decoded: after the chunks before it.
        try:
            buffers = self._interpreter.arena.views(chunk.value) if chunk.value.buffers else ()
        except EncodingError:
            buffers = ()
        piece = Piece(chunk.value.json, buffers, chunk.packed)
        self.chunks += piece.chunks
        self._left_chunks -= piece.chunks
        self._left_bytes -= piece.size
        if self._closed:
            return  # its buffers are released with it
        self._held_chunks += piece.chunks
        self._held_bytes += piece.size
        self._pieces.append(piece)
        self._changed.set()
        if self._look_again is not None and self.is_held_up:
            self._look_again()

    @property
    def is_held_up(self) -> bool:
        """Whether its producer waits until somebody takes what has come."""
        return not self._closed and (self._left_chunks <= 0 or self._left_bytes <= 0)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        if telemetry.listening["stream.ended"]:
            failed = call.cancelled() or call.exception() is not None or _says_so(call.result())
            about = {**self._about, "session": self.request.session or None}
            measured = {"duration": self._clock() - self.began, "chunks": self.chunks}
            telemetry.emit("stream.ended", measured, {**about, "result": "error" if failed else "ok"})
        self._changed.set()

    # ---- what its consumer's side does --------------------------------------------------------------------

    async def one(self) -> Piece | None:
        """The next chunk, None after the last: `result` has the interpreter's last word then. Raises what
        else ended the stream."""
        return await self._next()

    async def part(self) -> list[Piece]:
        """The chunks that have come, after a moment for others to come along, at most about FLUSH_CHUNKS or
        FLUSH_BYTES; empty after the last. Ends as `one` does."""
        first = await self._next(take=False)
        if first is None:
            return []
        await self._gather()
        part: list[Piece] = []
        chunks = size = 0
        while self._pieces and chunks < FLUSH_CHUNKS and size < FLUSH_BYTES:
            piece = self._take()
            chunks, size = chunks + piece.chunks, size + piece.size
            part.append(piece)
        self._sent_at = self._clock()
        return part

    async def _gather(self) -> None:
        while not self._call.done():
            since = self._clock() - self._sent_at
            wait = flush_in(since, self._held_chunks, self._held_bytes)
            if wait <= 0:
                return
            self._changed.clear()
            if not await happens(self._changed, wait):
                return

    async def _next(self, *, take: bool = True) -> Piece | None:
        while not self._pieces:
            if self._call.done():
                self.result()
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._take() if take else self._pieces[0]

    def _take(self) -> Piece:
        piece = self._pieces.popleft()
        self._held_chunks -= piece.chunks
        self._held_bytes -= piece.size
        grant = self._window.taken(piece.chunks, piece.size, not self._pieces)
        if grant is not None and self._interpreter is not None and not self._call.done():
            self._left_chunks += grant.chunks
            self._left_bytes += grant.bytes
            self._interpreter.client.grant(self.request.id, *grant)
        return piece

    def result(self) -> Done:
        """How it ended. Raises the error; RequestCancelled when its caller is gone."""
        if self._call.cancelled():
            raise RequestCancelled.because("the stream was closed, or its consumer is gone")
        done = self._call.result()
        assert isinstance(done, Done)
        return done

    @property
    def waited(self) -> float:
        """Seconds until it had its slot."""
        return self.opened_at - self.began

    @property
    def ran(self) -> float:
        """Seconds since then."""
        return self._clock() - self.opened_at

    def close(self) -> None:
        """Nobody takes any more: the producer stops. Safe to repeat."""
        self._closed = True
        self._call.cancel()
        self._pieces.clear()
        self._held_chunks = self._held_bytes = 0


def _says_so(outcome: Done | Relayed) -> bool:
    return isinstance(outcome, Done) and outcome.answer.reply.HasField("failure")
