"""What the items of a batch gave, as it becomes JSON.

- A result is what it was when its command returned: it is taken before the next item runs.
- Plain results are copied then, and checked and written block by block at C speed. Every other one is encoded
  at once.
"""

from __future__ import annotations

from itertools import chain
from math import isfinite

from snakepit_bridge.adapter.commands import is_a_stream
from snakepit_bridge.values.encoding import encode, write
from snakepit_bridge.values.failures import failure_of
from snakepit_bridge.values.tags import MAX_INT, TAG

_FLAT = frozenset((int, float, str, bool, type(None)))


class Written:
    """Results as they become JSON."""

    def __init__(self, command: str, config, arena) -> None:
        self.count = 0
        self.size = 0
        self.failures: dict = {}
        self._in_band = 0
        self._arena = arena
        self._command = command
        self._marker = config.marker
        self._limit = config.max_message_size
        self._parts: list[bytes] = []
        self._buffers: list = []
        self._flat: list = []  # scalars and copies of objects of scalars, which nothing can change

    def payload(self) -> tuple[bytes, list]:
        """(JSON array, buffers) of all that was added."""
        return b"[" + b",".join(self._parts) + b"]", self._buffers

    def failed(self, index: int, failure) -> None:
        """Item `index` failed. Failures travel in the message, too, and count: what would make it larger than
        max_message_size loses its traceback and the end of its text.
        """
        size = failure.size
        if self._in_band + size > self._limit:
            failure = failure.cut()
            size = failure.size
        self.failures[index] = failure
        self.size += size
        self._in_band += size

    def take(self, value) -> None:
        """Takes the result that comes next, as it is now: the command may change what it has returned."""
        if type(value) is dict:
            for one in value.values():
                if type(one) not in _FLAT:
                    break
            else:
                self._flat.append(value.copy())
                return
        elif type(value) in _FLAT:
            self._flat.append(value)
            return
        self.flush()
        self._add_one(value)

    def flush(self) -> None:
        """Writes the flat results that were taken."""
        values, self._flat = self._flat, []
        text = _plain_json(values)
        if text is None or self._in_band + len(text) > self._limit:
            for value in values:
                self._add_one(value)
        elif values:
            self._parts.append(text)
            self.size += len(text)
            self._in_band += len(text)
            self.count += len(values)

    def _add_one(self, value) -> None:
        self._parts.append(self._one(value))
        self.count += 1

    def _one(self, value) -> bytes:
        begin = len(self._buffers)
        try:
            text = self._encoded(value, begin)
        except BaseException as error:  # noqa: BLE001 - the user's to_dict and its like may raise SystemExit too
            del self._buffers[begin:]
            self.failed(self.count, failure_of(error))
            text = b"null"
        self.size += len(text) + sum(map(len, self._buffers[begin:]))
        self._in_band += len(text) + self._arena.in_band(self._buffers[begin:])
        return text

    def _encoded(self, value, begin: int) -> bytes:
        if hasattr(value, "__next__") or hasattr(value, "__anext__"):
            getattr(value, "close", lambda: None)()
            raise is_a_stream(self._command)
        text = encode(value, marker=self._marker, buffers=self._buffers)[0]
        what, payload = f"{self._command}: the result", (text, self._buffers[begin:])
        self._buffers[begin:] = self._arena.outgoing(what, payload, self._limit, self._in_band)[1]
        return text


def _plain_json(values: list) -> bytes | None:
    """The JSON of results without its brackets; None when some of them are not flat and plain."""
    try:
        return write(values).encode("utf-8")[1:-1] if _is_plain(values) else None
    except UnicodeEncodeError:  # a lone surrogate: its own item's failure
        return None


def _is_plain(values: list) -> bool:
    """Whether JSON carries all of them as they are: a few passes at C speed over objects of scalars."""
    kinds = set(map(type, values))
    if kinds == {dict}:
        keys = set(chain.from_iterable(values))
        if TAG in keys or set(map(type, keys)) - {str}:
            return False
        values = list(chain.from_iterable(map(dict.values, values)))
        kinds = set(map(type, values))
    if not kinds <= _FLAT:
        return False
    if int in kinds:
        ints = values if len(kinds) == 1 else [value for value in values if type(value) is int]
        if max(ints) > MAX_INT or min(ints) < -MAX_INT:
            return False
    if float in kinds:
        return all(map(isfinite, [value for value in values if type(value) is float]))
    return True
