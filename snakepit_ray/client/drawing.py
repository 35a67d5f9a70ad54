"""The items of one map, encoded as they are drawn.

- An item is encoded before its source goes on, because the source may use its objects again.
- A source that may wait is drawn in a thread of its own, so that it never holds up the results, and may be
  fed by them. It runs in the context of the map's caller.
- A list or a tuple is drawn where it is needed.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from snakepit_ray.core.work.batch_size import MOST_BYTES
from snakepit_ray.wire.requests import Drawn, drawn_bytes, drawn_refs

DRAWING_SECONDS = 0.010  # a chunk that takes longer to encode is sent with what there is
MOST_HELD = 8 * MOST_BYTES  # bytes of items that are drawn and not yet sent


class Failed(NamedTuple):
    """An item that cannot be encoded, or that a Runtime's hook refuses."""

    error: Exception


Item = Drawn | Failed


def fitting(items: Sequence[Item]) -> int:
    """How many of the first items may travel together: what has about MOST_BYTES. An item with refs goes
    alone, because Ray resolves the refs of one call, and so does one that has failed."""
    if set(map(type, items)) == {dict}:  # copies of small scalars: their bytes do not count
        return len(items)
    nbytes = 0
    for index, item in enumerate(items):
        if type(item) is dict:
            continue
        if isinstance(item, Failed) or drawn_refs(item):
            return max(1, index)
        nbytes += drawn_bytes(item)
        if nbytes > MOST_BYTES:
            return index + 1
    return len(items)


class Source:
    """The items of one map, encoded as they are drawn. `error` is what the source raised, when it has.

    A source that may wait is drawn in a thread of its own, up to a number that the consumer allows. Each item
    is there as soon as it is drawn."""

    def __init__(
        self,
        items: Iterable[Any],
        draw: Callable[[Any, int], Drawn],
        *,
        draws_ahead: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.error: BaseException | None = None
        self.is_over = False  # nothing more will come
        self.item_seconds = 0.0  # that drawing an item in the thread takes: the mean since it last waited
        self._draw = _or_failed(draw)
        self._draws_ahead = draws_ahead
        self._iterator = iter(items)
        self._is_quick = isinstance(items, list | tuple)
        self._context = contextvars.copy_context()
        self._changed = threading.Condition()
        self._ready: deque[Item] = deque()
        self._drawn = self._taken = self._allowed = 0
        self._since = (0.0, 0)  # when the thread last went on, and how many items were drawn by then
        self._looks_at = 0  # the number of the item after which the thread looks whether it may go on
        self._bytes_in = self._bytes_out = 0  # of items that came to `_ready`, and left it: one writer each
        self._is_ended = self._is_closed = self._is_awaited = False
        self._thread: threading.Thread | None = None

    def take(self, most: int) -> list[Item]:
        """Up to `most` items that are there; allows that many more to be drawn."""
        return self.wait(0.0, most)

    def wait(self, seconds: float, most: int) -> list[Item]:
        """`take`, after at most `seconds` of waiting for the first."""
        if self.is_over or most < 1:
            return []
        if self._is_quick:
            return self._drawn_now(most)
        self._allow(most)
        if not self._ready and seconds > 0:
            self._await(seconds)
        is_ended = self._is_ended  # before the last look: what is drawn is in `_ready` first
        items = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self._taken += len(items)
        self._bytes_out += sum(_nbytes(item) for item in items if type(item) is not dict)
        self.is_over = is_ended and not self._ready
        return items

    def close(self) -> None:
        """No more items are wanted. A source that waits is left in its thread until it comes back."""
        self.is_over = True
        with self._changed:
            self._is_closed = True
            self._looks_at = 0
            self._changed.notify_all()

    def _allow(self, most: int) -> None:
        ahead = most if self._draws_ahead else 0  # the next ones are drawn while these travel
        allowed = self._taken + most + ahead
        if allowed > self._allowed:
            with self._changed:
                self._allowed = allowed
                self._changed.notify_all()
        if self._thread is None:
            run = self._context.run
            self._thread = threading.Thread(target=run, args=(self._run,), name="snakepit-map", daemon=True)
            self._thread.start()

    def _await(self, seconds: float) -> None:
        with self._changed:
            self._is_awaited = True
            self._changed.wait_for(lambda: self._ready or self._is_ended, seconds)
            self._is_awaited = False

    def _run(self) -> None:
        self._since = (self._clock(), 0)
        try:
            ready, draw = self._ready, self._draw
            for number, given in enumerate(self._iterator):
                item = draw(given, number)
                if type(item) is not dict:  # of one that is a copy the bytes do not count
                    self._bytes_in += _nbytes(item)
                    self._looks_at = 0
                ready.append(item)
                if self._is_awaited or number >= self._looks_at:
                    self._drawn = number + 1
                    if not self._goes_on():
                        break
        except BaseException as error:  # noqa: BLE001 - the consumer is told after the results
            self.error = error
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        if self._is_closed and (close := getattr(self._iterator, "close", None)) is not None:
            close()

    def _goes_on(self) -> bool:
        """Waits until another item may be drawn; False when none is wanted any more."""
        began, first = self._since
        self.item_seconds = (self._clock() - began) / (self._drawn - first)
        if self._is_awaited or not self._may_draw():
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(self._may_draw)
            self._since = (self._clock(), self._drawn)
        self._looks_at = self._allowed - 1
        return not self._is_closed

    def _may_draw(self) -> bool:
        return self._is_closed or (
            self._drawn < self._allowed and self._bytes_in - self._bytes_out < MOST_HELD
        )

    def _drawn_now(self, most: int) -> list[Item]:
        """Up to `most` items of a list, fewer when encoding them takes its time or they are large."""
        items: list[Item] = []
        ends_at, size = self._clock() + DRAWING_SECONDS, 0
        draw, begin = self._draw, self._drawn
        for number, given in enumerate(self._iterator, begin):
            item = draw(given, number)
            items.append(item)
            if type(item) is not dict:
                size += _nbytes(item)
            count = len(items)
            if count >= most or size > MOST_BYTES or (not count % 16 and self._clock() > ends_at):
                self._drawn = begin + count
                return items
        self.is_over = True
        return items


def _or_failed(draw: Callable[[Any, int], Drawn]) -> Callable[[Any, int], Item]:
    def drawn(given: Any, number: int) -> Item:
        try:
            return draw(given, number)
        except Exception as error:  # noqa: BLE001 - a runtime's hook may raise anything: the item fails
            return Failed(error)

    return drawn


def _nbytes(item: Item) -> int:
    return 0 if isinstance(item, Failed) else drawn_bytes(item)
