"""The lanes of one calling process to the workers of one pool: which calls take them, and why others do not.

- A call takes the lane where its worker is on this node and both run as one user. Whatever stands in the way,
  it goes by Ray.
- A lane that cannot be used is tried again after AGAIN_SECONDS.
- A command whose answer was too large for the lane goes by Ray for a while (core/work/large_commands.py).
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from snakepit_ray.client.answers import Answer, LaneCall, LoopWait, ThreadWait
from snakepit_ray.client.inbox import Inbox, LaneStream, LoopItems, ThreadItems
from snakepit_ray.client.interrupts import leaves
from snakepit_ray.client.links import Link, LoopLink, ThreadLink, shut
from snakepit_ray.core.work.large_commands import LargeCommands
from snakepit_ray.process.lanes import NoLane, connect
from snakepit_ray.wire.lane import LARGEST, Lane

AGAIN_SECONDS = 5.0


class Waits(enum.Enum):
    """How a caller waits for its answer."""

    REF = "ref"  # it is handed an ObjectRef: only Ray can
    THREAD = "thread"  # it blocks, or has a callback
    LOOP = "loop"  # it awaits in the running event loop


class Lanes:
    """The lanes of one process to one pool. `is_on`: the pool has lanes. `node_id`: asked once, when it is
    needed."""

    def __init__(
        self, is_on: bool, node_id: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._is_on = is_on
        self._find_node = node_id
        self._node_id: str | None = None
        self._lock = threading.Lock()
        self._threads: dict[str, Link] = {}  # by the socket's path
        self._loops: weakref.WeakKeyDictionary[Any, dict[str, Link]] = weakref.WeakKeyDictionary()
        self._failed: dict[str, float] = {}  # until when each is not tried
        self._large = LargeCommands()
        self._closed = False

    def send(
        self, lane: Lane | None, worker_id: str, command: str, call: LaneCall, waits: Waits
    ) -> Answer | None:
        """Sends a request by the lane of its worker; None where it must go by Ray."""
        link = self._link_for(lane, worker_id, command, call, waits)
        if link is None:
            return None
        answer = Answer(call, link, LoopWait() if waits is Waits.LOOP else ThreadWait())
        leaves(answer)
        return answer if link.send(answer) else None

    def stream(
        self, lane: Lane | None, worker_id: str, command: str, call: LaneStream, waits: Waits
    ) -> Inbox | None:
        """Sends a request whose command yields by the lane of its worker; None where it must go by Ray."""
        link = self._link_for(lane, worker_id, command, call, waits)
        if link is None:
            return None
        inbox = Inbox(call, link, LoopItems() if waits is Waits.LOOP else ThreadItems())
        leaves(inbox)
        return inbox if link.begin(inbox) else None

    def why_not(self, lane: Lane | None) -> str:
        """Why a worker's lane is not used from this process; "" where it is, or can be."""
        if not self._is_on:
            return 'the pool was started with lane="off"'
        if lane is None:
            return "the worker has none: its log says why"
        if lane.node_id != self._node():
            return "the worker is on another node"
        if self._open_thread(lane.path) is not None:
            return ""
        try:
            connect(lane.path).close()
        except NoLane as error:
            return str(error)
        return ""

    def is_too_large(self, command: str) -> None:
        """An answer of this command did not fit."""
        with self._lock:
            self._large.add(command, self._clock())

    def close(self) -> None:
        """Ends every connection: what has no answer yet goes by Ray, or fails as Ray says. For any thread."""
        self._closed = True
        with self._lock:
            links = [
                *self._threads.values(),
                *(link for one in self._loops.values() for link in one.values()),
            ]
            self._threads.clear()
        for link in links:
            link.close()

    def _node(self) -> str:
        if self._node_id is None:
            self._node_id = self._find_node()
        return self._node_id

    def _is_large(self, command: str) -> bool:
        with self._lock:
            return self._large.has(command, self._clock())

    def _link_for(
        self, lane: Lane | None, worker_id: str, command: str, call: LaneCall | LaneStream, waits: Waits
    ) -> Link | None:
        if lane is None or not self._is_on or len(call.payload) > LARGEST:
            return None
        if self._large and self._is_large(command):
            return None
        return self._link(lane, worker_id, waits)

    def _link(self, lane: Lane, worker_id: str, waits: Waits) -> Link | None:
        table = self._threads if waits is Waits.THREAD else self._of_loop()
        link = table.get(lane.path)
        if link is not None and not link.closed:
            return link
        if lane.node_id != self._node():
            return None
        with self._lock:
            return self._opened(table, lane, worker_id, waits)

    def _opened(self, table: dict[str, Link], lane: Lane, worker_id: str, waits: Waits) -> Link | None:
        link = table.get(lane.path)
        if link is not None and not link.closed:
            return link
        if self._closed or self._clock() < self._failed.get(lane.path, 0.0):
            return None
        for path in [path for path, old in table.items() if old.closed]:
            del table[path]
        try:
            link = table[lane.path] = _connected(lane, worker_id, waits)
        except NoLane:
            now = self._clock()
            self._failed = {path: until for path, until in self._failed.items() if until > now}
            self._failed[lane.path] = now + AGAIN_SECONDS
            return None
        return link

    def _open_thread(self, path: str) -> Link | None:
        link = self._threads.get(path)
        return None if link is None or link.closed else link

    def _of_loop(self) -> dict[str, Link]:
        loop = asyncio.get_running_loop()
        table = self._loops.get(loop)
        if table is None:
            with self._lock:
                for old in [one for one in self._loops if one.is_closed()]:
                    for link in self._loops.pop(old).values():
                        link.abandon()
                table = self._loops[loop] = {}
        return table


def _connected(lane: Lane, worker_id: str, waits: Waits) -> Link:
    connection = connect(lane.path)
    try:
        if waits is Waits.THREAD:
            return ThreadLink(connection, lane.secret, worker_id)
        return LoopLink(connection, lane.secret)
    except NoLane:
        connection.close()
        raise
    except BaseException:  # an interrupt: nobody has the connection, and its reader may have begun
        shut(connection)
        raise
