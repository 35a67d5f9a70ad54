"""One stream on its way to the host: how much it may still send, what waits to be sent, its end.

Rules:
- A producer without credit blocks its own thread, or awaits, and nobody else.
- Chunks keep their order, and the one Reply comes after the last.
- However a stream ends, its generator is closed in the thread or task that ran it.
- A place in the results' memory belongs to the chunk until the chunk is queued: a producer that is stopped
  while it waits for credit gives the place back.
- A report of progress never waits: of those that find no credit only the newest is kept. After the end there
  are no reports.
"""

from __future__ import annotations

import threading
from collections import deque

from snakepit_bridge.adapter.runs import Rest
from snakepit_bridge.lifeline import forks
from snakepit_bridge.server.answers import Answer
from snakepit_bridge.server.payloads import Placed, fill_payload
from snakepit_bridge.values.encoding import encode
from snakepit_bridge.values.failures import INTERNAL, Failure
from snakepit_bridge.values.quick import quick
from snakepit_bridge.values.tags import Progress

PACK = 1000  # chunks in one packed Chunk
FRAME_SIZE = 256 * 1024  # of chunks that go into one frame; the last may be larger than what is left
TURN = 256  # chunks after which an async producer lets the others of its loop have a turn
_UNLIMITED = float("inf")


class _Pack:
    """Chunks that travel as one: JSON texts without buffers, or one text with its own; `size` in bytes."""

    __slots__ = ("buffers", "size", "texts")

    def __init__(self, text: bytes, buffers, size: int) -> None:
        self.texts = [text]
        self.buffers = buffers
        self.size = size


class Outlet:
    """Where the chunks of one request go. `send(item)` queues an item whose `fill` the sender calls."""

    def __init__(self, request, send, config, arena) -> None:
        self._id = request.id
        self._command = request.command
        self._packs = request.pack
        self._send = send
        self._marker = config.marker
        self._limit = config.max_message_size
        self._arena = arena
        self._chunks = request.credit
        self._bytes = request.credit_bytes or _UNLIMITED
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: deque = deque()
        self._open = None  # the last pack, while it takes more
        self._queued = False  # the sender has this outlet among what it is to send
        self._produced = self._sent = 0
        self._latest = None  # a report of progress that found no credit
        self._answer = None
        self._ended = False
        self._stopped = False
        self._wake = None  # of an async producer that waits

    # ---- the host's side ---------------------------------------------------------------------------------

    def grant(self, chunks: int, size: int) -> None:
        """The host takes so much more."""
        with self._lock:
            self._chunks += chunks
            self._bytes += size
            self._notify()

    def stop(self) -> None:
        """The request was cancelled: nobody waits for credit any more, and nothing more is sent."""
        with self._lock:
            self._stopped = True
            self._open = None
            self._notify()

    def end(self, answer) -> None:
        """Sends the Reply after what is still to be sent."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._answer = answer
            self._queue()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()

    # ---- the command's side ------------------------------------------------------------------------------

    def drain(self, value):
        """Sends what a command gave: each value of a generator, or the one that it returned; how many chunks
        that were. A coroutine of it where the command is async.
        """
        if hasattr(value, "__anext__"):
            return self._drain_async(value)
        if hasattr(value, "__await__"):
            return self._drain_awaited(value)
        if hasattr(value, "__next__"):
            return self._drain_sync(value)
        self.put(value)
        return self._produced

    def put(self, value) -> bool:
        """Sends one value; waits for credit. Whether the stream goes on: it was not cancelled."""
        text = quick(value)  # as `_encoded`, without a call: most of what a fast stream costs is here
        fits = text is not None and len(text) <= self._limit
        text, buffers, size = (text, (), len(text)) if fits else self._whole(value)
        try:
            with self._lock:
                pack = self._open
                if pack is not None and not buffers and self._chunks > 0 and self._bytes > 0:
                    return self._append(pack, text, size)
                while not (self._stopped or self._credit()):
                    self._changed.wait()
                return self._add(text, buffers, size)
        except BaseException:  # of a signal handler, while it waited
            self._give_back(buffers)
            raise

    def progress(self, report: Progress) -> None:
        """Sends a report at once, or keeps it until there is credit."""
        encoded = self._encoded(report)
        with self._lock:
            if self._ended:
                return
            self._latest = encoded
            self._open = None  # it goes before the next chunk
            if self._credit() and not self._stopped:
                self._add_latest()

    def _drain_sync(self, generator) -> int:
        try:
            for value in generator:
                if forks.is_child:
                    forks.leave(None)
                if not self.put(value):
                    break
        finally:
            close = getattr(generator, "close", None)
            if close is not None:
                close()
        return self._produced

    async def _drain_awaited(self, awaitable):
        value = await awaitable
        if hasattr(value, "__next__"):
            return Rest(lambda: self._drain_sync(value))  # runs as a sync one does, where it may block
        if hasattr(value, "__anext__"):
            return await self._drain_async(value)
        await self._put_async(value)
        return self._produced

    async def _drain_async(self, generator) -> int:
        import asyncio

        try:
            async for value in generator:
                if not await self._put_async(value):
                    break
                if not self._produced % TURN:
                    await asyncio.sleep(0)
        finally:
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()
        return self._produced

    async def _put_async(self, value) -> bool:
        import asyncio

        encoded = self._encoded(value)
        try:
            loop, woken = asyncio.get_running_loop(), asyncio.Event()
            while True:
                with self._lock:
                    if self._stopped or self._credit():
                        self._wake = None
                        return self._add(*encoded)
                    woken.clear()
                    self._wake = lambda: loop.call_soon_threadsafe(woken.set)
                await woken.wait()
        except BaseException:  # its task was cancelled while it waited
            self._wake = None
            self._give_back(encoded[1])
            raise

    def _encoded(self, value):
        text = quick(value)
        fits = text is not None and len(text) <= self._limit
        return (text, (), len(text)) if fits else self._whole(value)

    def _whole(self, value):
        payload = encode(value, marker=self._marker, root="chunk")
        text, buffers = self._arena.outgoing(f"{self._command}: a chunk", payload, self._limit)
        return text, buffers, len(text) + sum(map(len, buffers))

    def _give_back(self, buffers) -> None:
        self._arena.free([buffer.id for buffer in buffers if type(buffer) is Placed])

    # ---- with the lock held ------------------------------------------------------------------------------

    def _credit(self) -> bool:
        return self._chunks > 0 and self._bytes > 0

    def _add(self, text: bytes, buffers, size: int) -> bool:
        if self._stopped:
            self._give_back(buffers)
            return False
        if self._latest is not None:
            self._add_latest()
        pack = self._open
        if pack is not None and not buffers:
            return self._append(pack, text, size)
        self._chunks -= 1
        self._bytes -= size
        self._produced += 1
        self._begin(text, buffers, size)
        return True

    def _append(self, pack: _Pack, text: bytes, size: int) -> bool:
        self._chunks -= 1
        self._bytes -= size
        self._produced += 1
        texts = pack.texts
        texts.append(text)  # the pack is queued already
        pack.size = packed = pack.size + size
        if packed >= FRAME_SIZE or len(texts) == PACK:
            self._open = None
        return True

    def _begin(self, text: bytes, buffers, size: int) -> None:
        pack = _Pack(text, buffers[:], size)
        if buffers:
            buffers.clear()  # they are the pack's now: the producer gives nothing back
        self._pending.append(pack)
        self._open = pack if self._packs and not pack.buffers and size < FRAME_SIZE else None
        self._queue()

    def _add_latest(self) -> None:
        encoded, self._latest = self._latest, None
        self._add(*encoded)  # with the chunk behind it one more than was granted; the next one waits for it

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._send(self)

    # ---- the sender --------------------------------------------------------------------------------------

    def fill(self, frame, epoch) -> int:
        """Adds what is to be sent to `frame`, at most about FRAME_SIZE; about how many bytes that were."""
        size = 0
        with self._lock:
            self._queued = False
            taken = self._take(FRAME_SIZE)
            answer = None
            if not self._pending:
                answer, self._answer = self._answer, None
            else:
                self._queue()  # behind what else waits: a stream does not keep the others from their turn
        for pack in taken:
            size += self._write(frame, pack)
        if answer is not None:
            size += answer.fill(frame, epoch)
        return size

    def spoil(self, error: BaseException, frame, epoch) -> int:
        """`fill` failed: ends the stream with a failure that says so."""
        self.stop()
        with self._lock:
            self._ended = True
            self._answer = None
            self._pending.clear()
        words = f"a chunk cannot be written: {type(error).__name__}: {error}"
        return Answer(self._id, Failure(INTERNAL, type(error).__name__, words), 0).fill(frame, epoch)

    def _take(self, room: int) -> list:
        taken = []
        while self._pending and room > 0:
            pack = self._pending.popleft()
            room -= pack.size
            taken.append(pack)
        if not self._pending:
            self._open = None  # it is sent, and takes no more
        return taken

    def _write(self, frame, pack: _Pack) -> int:
        chunk = frame.chunks.add(id=self._id, index=self._sent)
        texts = pack.texts
        self._sent += len(texts)
        if len(texts) == 1:
            return fill_payload(chunk.value, (texts[0], pack.buffers))
        chunk.packed = len(texts)
        return fill_payload(chunk.value, (b"[" + b",".join(texts) + b"]", ()))
