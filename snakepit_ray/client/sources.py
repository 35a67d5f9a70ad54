"""Where the parts of a stream come from: Ray's generator, or a lane. Each for a thread and for asyncio.

- What goes wrong is raised as our error, in the place of the part that is missing.
- A source that is closed, or dropped, stops the command.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Protocol

from snakepit_ray.client.chunk_refs import ChunkRefs
from snakepit_ray.client.inbox import End, Inbox, Item, Kept
from snakepit_ray.client.sender import Sender, Sent, awaited, may_block
from snakepit_ray.port import ray_port
from snakepit_ray.process.awaiting import within
from snakepit_ray.wire.codec import Part


class Source(Protocol):
    """The parts of one stream, for a thread."""

    def take(self) -> Part | None:
        """The next part; None after the last. Raises our errors."""

    def close(self) -> None:
        """Nobody takes any more. Safe to repeat."""


class AsyncSource(Protocol):
    """The parts of one stream, for asyncio."""

    async def take(self) -> Part | None:
        """The next part; None after the last. Raises our errors."""

    def close(self) -> None:
        """Nobody takes any more. Safe to repeat."""


def source(sender: Sender, sent: Sent) -> Source:
    """The source of a stream that was sent for a thread."""
    if isinstance(sent.ref, Inbox):
        return ThreadLaneSource(sender, sent)
    return RaySource(sender, sent)


def async_source(sender: Sender, sent: Sent) -> AsyncSource:
    """The source of a stream that was sent for a task."""
    if isinstance(sent.ref, Inbox):
        return LoopLaneSource(sender, sent)
    return AsyncRaySource(sender, sent)


class RaySource:
    """From Ray's generator."""

    def __init__(self, sender: Sender, sent: Sent) -> None:
        self._sender = sender
        self._sent = sent
        self._refs: ChunkRefs = sent.ref

    def take(self) -> Part | None:
        """See Source."""
        if not self._refs.ready(self._sent.left):
            raise self._sender.too_late(self._sent)
        ref = next(self._refs, None)
        return None if ref is None else _value(self._sender, self._sent, ref)

    def close(self) -> None:
        """See Source."""
        self._refs.close()
        self._sender.ended(self._sent)


class AsyncRaySource:
    """From Ray's generator, for asyncio."""

    def __init__(self, sender: Sender, sent: Sent) -> None:
        self._sender = sender
        self._sent = sent
        self._refs: ChunkRefs = sent.ref

    async def take(self) -> Part | None:
        """See AsyncSource."""
        try:
            ref = await within(self._sent.left, anext(self._refs, None))
        except asyncio.TimeoutError:
            raise self._sender.too_late(self._sent) from None
        except ray_port.RayError as error:
            raise await _our(self._sender, self._sent, error) from None
        return None if ref is None else await _awaited(self._sender, self._sent, ref)

    def close(self) -> None:
        """See AsyncSource."""
        self._refs.close()
        self._sender.ended(self._sent)


class ThreadLaneSource:
    """From a lane, for a thread."""

    def __init__(self, sender: Sender, sent: Sent) -> None:
        self._sender = sender
        self._sent = sent
        self._inbox: Inbox = sent.ref
        self._close = _closer(self, sender, sent)

    def take(self) -> Part | None:
        """See Source."""
        if not self._close.alive:
            return None
        self._sender.check_open()
        try:
            item: Item = self._inbox.items.take(self._sent.left)
        except ray_port.GetTimeout:
            raise self._sender.too_late(self._sent) from None
        if isinstance(item, End):
            self._close()
            if item.error is not None:
                raise self._sender.our(item.error, self._sent) from None
            return None
        self._inbox.took()
        return _value(self._sender, self._sent, item.ref) if isinstance(item, Kept) else item

    def close(self) -> None:
        """See Source."""
        self._close()


class LoopLaneSource:
    """From a lane, for a task of the event loop in which it was sent."""

    def __init__(self, sender: Sender, sent: Sent) -> None:
        self._sender = sender
        self._sent = sent
        self._inbox: Inbox = sent.ref
        self._close = _closer(self, sender, sent)

    async def take(self) -> Part | None:
        """See AsyncSource."""
        if not self._close.alive:
            return None
        self._sender.check_open()
        try:
            item: Item = await self._inbox.items.take(self._sent.left)
        except ray_port.GetTimeout:
            raise self._sender.too_late(self._sent) from None
        if isinstance(item, End):
            self._close()
            if item.error is not None:
                raise await _our(self._sender, self._sent, item.error) from None
            return None
        self._inbox.took()
        return await _awaited(self._sender, self._sent, item.ref) if isinstance(item, Kept) else item

    def close(self) -> None:
        """See AsyncSource."""
        self._close()


def _closer(source: object, sender: Sender, sent: Sent) -> weakref.finalize[[], object]:
    """Ends a stream once: when it is called, or when its source is dropped."""

    def close() -> None:
        sent.ref.cancel()
        sender.ended(sent)

    closer = weakref.finalize(source, close)
    closer.atexit = False  # the end of this process ends its connections
    return closer


def _value(sender: Sender, sent: Sent, ref: object) -> Part:
    part: Part = sender.value(sent._replace(ref=ref))
    return part


async def _awaited(sender: Sender, sent: Sent, ref: object) -> Part:
    try:
        part: Part = await within(sent.left, awaited(ref))
    except asyncio.TimeoutError:
        raise sender.too_late(sent) from None
    except ray_port.RayError as error:
        raise await _our(sender, sent, error) from None
    return part


async def _our(sender: Sender, sent: Sent, error: Exception) -> BaseException:
    """Our error, which the router may be asked about: in a thread, then."""
    if may_block(error):
        return await asyncio.to_thread(sender.our, error, sent)
    return sender.our(error, sent)
