"""What arrives of one stream over a lane, in order, until its taker takes it.

- Its link puts in and never waits. Credit bounds what is there: the worker sends no more than AHEAD_PARTS
  that were not taken.
- A part that is too large for the lane is fetched by Ray as soon as the lane says so, and keeps its place.
- A stream whose lane ends has lost its worker. It is not begun again, because it may have begun.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from snakepit_ray.port import ray_port
from snakepit_ray.process.awaiting import happens
from snakepit_ray.wire import lane, lane_parts
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import Part


class LaneLost(Exception):
    """The lane of a stream has ended before the stream."""


class LaneStream(NamedTuple):
    """A stream's request that goes by a lane. `fetch`: the ref of what the worker keeps under a name, because
    it is too large for the lane."""

    request: pb.Request
    payload: bytes
    fetch: Callable[[str], Any]

    @property
    def request_id(self) -> str:
        """By which both ends know it."""
        return str(self.request.id)

    @property
    def kind(self) -> int:
        """Of its frame."""
        return lane.STREAM


class End(NamedTuple):
    """The end of a stream: its error, if it has one."""

    error: Exception | None = None


class Kept(NamedTuple):
    """The ref of a part that Ray brings, or of the error that ends the stream."""

    ref: Any


Item = Part | Kept | End


class Road(Protocol):
    """The lane that a stream comes by."""

    def drop(self, request_id: str) -> None:
        """Nobody takes any more. For any thread, in the midst of whatever it does."""

    def took(self, request_id: str, parts: int) -> None:
        """So many parts were taken."""


class Items(Protocol):
    """What waits to be taken."""

    def put(self, item: Item) -> None:
        """Adds one. Waits for nothing."""


class ThreadItems:
    """Taken by a thread."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()

    def put(self, item: Item) -> None:
        """Adds one."""
        self._queue.put(item)

    def take(self, seconds: float) -> Item:
        """The next one. Raises GetTimeout when there is none in time."""
        try:
            return self._queue.get(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
        except queue.Empty:
            raise ray_port.GetTimeout("no part came by the lane in time") from None


class LoopItems:
    """Put in and taken in one event loop."""

    __slots__ = ("_came", "_items", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[Item] = deque()
        self._came = asyncio.Event()

    def put(self, item: Item) -> None:
        """Adds one."""
        self._items.append(item)
        self._came.set()

    async def take(self, seconds: float) -> Item:
        """The next one. Raises GetTimeout when there is none in time, and RuntimeError in another loop."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a stream that began in one event loop cannot be taken in another")
        while not self._items:
            self._came.clear()
            if not await happens(self._came, seconds):
                raise ray_port.GetTimeout("no part came by the lane in time")
        return self._items.popleft()


class Inbox:
    """One stream's, between its link and its taker. `items`: ThreadItems, or LoopItems."""

    __slots__ = ("__weakref__", "_owed", "_road", "call", "items")

    def __init__(self, call: LaneStream, road: Road, items: Items) -> None:
        self.call = call
        self.items: Any = items
        self._road = road
        self._owed = 0  # parts that were taken, and the worker does not know

    # ---- what its link does -------------------------------------------------------------------------------

    def part(self, message: lane_pb2.LaneChunks) -> None:
        """The next part."""
        if message.kept:
            self._fetch(message.kept)
        else:
            self.items.put(lane_parts.part_of(message, self.call.request))

    def arrived(self, answer: lane_pb2.LaneAnswer) -> None:
        """There are no more parts."""
        if answer.by_ray:
            self._fetch(answer.id)
        else:
            self.items.put(End(lane.error_of(answer)))

    def lane_ended(self) -> None:
        """The worker has died, as far as this process sees."""
        self.items.put(End(LaneLost()))

    def _fetch(self, name: str) -> None:
        try:
            self.items.put(Kept(self.call.fetch(name)))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self.items.put(End(error))

    # ---- what its taker does ------------------------------------------------------------------------------

    def took(self) -> None:
        """A part was taken. The worker is told of every second one: it has AHEAD_PARTS of credit."""
        self._owed += 1
        if self._owed * 2 >= lane_parts.AHEAD_PARTS:
            parts, self._owed = self._owed, 0
            self._road.took(self.call.request_id, parts)

    def cancel(self) -> None:
        """Nobody takes any more: the command stops. Safe to repeat, and for any thread."""
        self._road.drop(self.call.request_id)
