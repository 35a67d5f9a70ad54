"""The memory that this process shares with its host: arguments are read where they lie, large results are
written there.

- One memory each way, of a fixed size, mapped once.
- An argument's range is released when the last object that looks at it is gone.
- A result's range is used again when the host has released it.
- What does not fit travels in the message, and is said once on stderr.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

from snakepit_bridge.server.payloads import Placed
from snakepit_bridge.values.failures import PayloadTooLarge
from snakepit_bridge.values.tags import Refused, as_bytes

GRAIN = 4096  # bytes: a page
MOST_IN_BAND = 2_000_000_000  # bytes of buffers in one message; protobuf ends at 2^31


class Arena:
    """Both memories; `given` is what the host said of them, None where there are none."""

    def __init__(self, given: dict | None, threshold: int) -> None:
        self.threshold = threshold
        self._arguments = _mapped(given)
        self.usable = self._arguments is not None
        size = given["size"] if self.usable else 0
        self._results = _Results(given["results"], size) if self.usable else None
        self._gaps = Gaps(size)
        self._lent: dict[str, int] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._complained = False

    # ---- arguments -----------------------------------------------------------------------------------------

    def view(self, segment, release):
        """The bytes of a segment as an object with the buffer interface; `release(id)` is called when nothing
        looks at them any more. Raises Refused for a range that is not there.
        """
        if self._arguments is None:
            raise Refused(f"cannot decode the segment {segment.id!r}: there is no shared memory")
        return self._arguments.view(segment, release)

    def forget(self, ids, release) -> None:
        """Their request has ended: releases the segments among `ids` that nobody has ever looked at."""
        for id in ids:
            if self._arguments is None or not self._arguments.was_viewed(id):
                release(id)

    # ---- results -------------------------------------------------------------------------------------------

    def in_band(self, buffers) -> int:
        """Bytes of those that travel in the message."""
        return sum(len(buffer) for buffer in buffers if len(buffer) <= self.threshold)

    def outgoing(self, what: str, payload: tuple, limit: int, before: int = 0) -> tuple:
        """A (JSON, buffers) as it travels: see `place`. At once: the command may change an array that it has
        returned. Raises PayloadTooLarge when what goes into a message that has `before` bytes makes it larger
        than `limit`.
        """
        text, buffers = payload
        size = len(text) + self.in_band(buffers)
        if before + size > limit:
            raise PayloadTooLarge(
                f"{what} has {size:,} bytes, the limit is {limit:,} (max_message_size)",
                {"size": size, "limit": limit},
            )
        return (text, self.place(buffers)) if buffers else payload

    def place(self, buffers: list) -> list:
        """The buffers as they travel: bytes, or where one is larger than the threshold, Placed. Raises
        PayloadTooLarge when they neither find a place nor fit into one message.
        """
        places = [self._placed(b) if len(b) > self.threshold else as_bytes(b) for b in buffers]
        size = sum(len(place) for place in places if type(place) is bytes)
        if size > MOST_IN_BAND:
            self.free([place.id for place in places if type(place) is Placed])
            raise PayloadTooLarge(
                f"{size:,} bytes find no place in the shared memory, and a message holds at most "
                f"{MOST_IN_BAND:,}; raise shared_memory",
                {"size": size, "limit": MOST_IN_BAND},
            )
        return places

    def _placed(self, buffer):
        offset = None
        if self.usable:
            with self._lock:
                offset = self._gaps.take(len(buffer))
        if offset is None:
            return self._in_band(buffer)
        try:
            self._results.write(offset, buffer)
        except BaseException as error:
            with self._lock:
                self._gaps.give(offset)
            if not isinstance(error, OSError):  # which says that this machine has no more memory
                raise
            return self._in_band(buffer)
        with self._lock:
            self._count += 1
            id = str(self._count)
            self._lent[id] = offset
        return Placed(id, offset, len(buffer))

    def _in_band(self, buffer) -> bytes:
        if self.usable and not self._complained:
            self._complained = True
            print(
                f"snakepit_bridge: {len(buffer):,} bytes of a result find no place in the shared memory "
                f"({self._gaps.size:,} bytes, {self._gaps.used:,} in use) and travel in the message, which "
                "is slower: raise shared_memory (said once)",
                file=sys.stderr,
            )
        return as_bytes(buffer)

    def free(self, ids) -> None:
        """The host has finished with these results."""
        with self._lock:
            for id in ids:
                offset = self._lent.pop(id, None)
                if offset is not None:
                    self._gaps.give(offset)

    def trim(self) -> None:
        """Gives the pages of free results back to the system."""
        with self._lock:
            for offset, size in self._gaps.trim():
                self._results.drop(offset, size)


def _mapped(given: dict | None):
    """The arguments' memory; None where there is none, or no address space for it (setrlimit(2))."""
    if given is None:
        return None
    try:
        return _Arguments(given["arguments"], given["size"])
    except OSError as error:
        words = f"snakepit_bridge: cannot map {given['size']:,} bytes of shared memory ({error})"
        print(f"{words}: arrays travel in messages; lower shared_memory", file=sys.stderr)
        return None


class _Arguments:
    """The memory that the host writes."""

    def __init__(self, descriptor: int, size: int) -> None:
        import mmap

        self._map = mmap.mmap(descriptor, size)
        self._size = size
        self._watched: dict[str, weakref.ref] = {}
        self._viewed: set[str] = set()  # of requests that have not ended

    def was_viewed(self, id: str) -> bool:
        """Whether anybody has looked at it; asked once."""
        viewed = id in self._viewed
        self._viewed.discard(id)
        return viewed

    def view(self, segment, release):
        offset, size, id = segment.offset, segment.size, segment.id
        if not 0 < size <= self._size - offset:
            where = f"{size} bytes at {offset} of a shared memory of {self._size}"
            raise Refused(f"cannot decode the segment {id!r}: {where}")
        known = self._watched.get(id)
        view = known() if known is not None else None
        if view is None:
            from snakepit_bridge.server.addresses import part

            view = part(self._map, offset, size)

            def gone(_, watched=self._watched) -> None:
                if watched.pop(id, None) is not None:
                    release(id)

            self._watched[id] = weakref.ref(view, gone)
            self._viewed.add(id)
        return view


class _Results:
    """The memory that we write. Pages are asked for before they are stored to: memory that has run out is an
    error, not a signal.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._map = None
        self._backed = 0  # every page before this one exists
        self._lock = threading.Lock()

    def write(self, offset: int, data) -> None:
        """Copies a buffer to `offset`, without the GIL. Raises OSError."""
        from snakepit_bridge.server.addresses import copy

        with self._lock:
            if self._map is None:
                import mmap

                self._map = mmap.mmap(self._descriptor, self._size)
            end = offset + len(data)
            if end > self._backed:
                os.posix_fallocate(self._descriptor, offset, len(data))
                if offset <= self._backed:
                    self._backed = end
        copy(data, self._map, offset)

    def drop(self, offset: int, size: int) -> None:
        """Gives the pages of a range back to the system."""
        import mmap

        with self._lock:
            self._backed = min(self._backed, offset)
            if self._map is not None and hasattr(mmap, "MADV_REMOVE"):
                self._map.madvise(mmap.MADV_REMOVE, offset, size)


class Gaps:
    """`size` bytes of which ranges are taken: the lowest gap that is large enough, so that what was used
    before is used again.
    """

    def __init__(self, size: int) -> None:
        self.size = size - size % GRAIN
        self.used = 0
        self._taken: list[tuple[int, int]] = []  # (begin, end), in order
        self._touched = 0  # nothing from here on was used since the last `trim`

    def take(self, size: int):
        """The offset of a range of `size` > 0 bytes; None where there is no such gap."""
        size = -(-size // GRAIN) * GRAIN
        begin = place = 0
        for begun, end in self._taken:
            if begun - begin >= size:
                break
            begin, place = end, place + 1
        if begin + size > self.size:
            return None
        self._taken.insert(place, (begin, begin + size))
        self.used += size
        self._touched = max(self._touched, begin + size)
        return begin

    def give(self, offset: int) -> None:
        """The range at `offset` is free again."""
        for place, (begin, end) in enumerate(self._taken):
            if begin == offset:
                del self._taken[place]
                self.used -= end - begin
                return

    def trim(self) -> list[tuple[int, int]]:
        """The free ranges, (offset, size), that were used since the last time."""
        gaps, begin = [], 0
        for begun, end in [*self._taken, (self._touched, self._touched)]:
            if begun > begin:
                gaps.append((begin, begun - begin))
            begin = max(begin, end)
        self._touched = self._taken[-1][1] if self._taken else 0
        return gaps
