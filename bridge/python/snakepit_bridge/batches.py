"""How the items of a batch run: one after the other in one thread or task, each with an outcome of its own.

Rules:
- One bad item fails alone.
- A cancellation, the budget's end and the batch's share of time are looked at between items. What they stop
  has never begun.
- A result is what it was when the command returned. Plain results are copied then, and checked and written
  block by block at C speed; every other result is encoded before the next item runs.
- A batch that has gathered much data gives the rest back.
"""

from __future__ import annotations

from itertools import chain
from math import isfinite
from time import perf_counter
from types import CoroutineType

from snakepit_bridge import forks
from snakepit_bridge.adapter import is_a_stream
from snakepit_bridge.decoding import decode_items
from snakepit_bridge.failures import InvalidArguments, failure_of
from snakepit_bridge.values import MAX_INT, TAG, encode, write

BLOCK = 256  # results that are written together, at most
FULL = 4 * 1024 * 1024  # bytes of results after which no further item is begun
MOST_SHAPES = 256  # kinds of arguments that are remembered as good, for each command
_FLAT = frozenset((int, float, str, bool, type(None)))
_are_flat = _FLAT.issuperset
_NEVER = float("inf")


class Results:
    """What a batch gave: the payload of its results, and the failures by index."""

    __slots__ = ("count", "failures", "payload")

    def __init__(self, payload, count: int, failures: dict) -> None:
        self.payload = payload
        self.count = count
        self.failures = failures


def start(run, command, config, arena, look):
    """The Results of the batch that `run` is, or a coroutine that gives them. Raises InvalidArguments when
    there are no items to run.
    """
    batch = _Batch(run, command, config, arena, look)
    steps = batch.steps()
    coroutine = next(steps, None)
    return batch.results() if coroutine is None else _awaiting(batch, steps, coroutine)


async def _awaiting(batch: _Batch, steps, coroutine):
    try:
        while True:
            try:
                value = await coroutine
            except BaseException as error:  # noqa: BLE001 - also its cancellation: the item's own outcome
                coroutine = steps.throw(error)
            else:
                coroutine = steps.send(value)
    except StopIteration:
        return batch.results()


class _Batch:
    """One batch on its way through an interpreter."""

    def __init__(self, run, command, config, arena, look) -> None:
        if command.stream:
            raise is_a_stream(command.name)
        self._run = run
        self._items = _items(run.request, look)
        self._call = _caller(command, run.context)
        share = run.request.batch.share_ms
        self._ends_at = perf_counter() + share / 1000 if share else _NEVER
        self._written = _Written(command.name, config, arena)

    def results(self) -> Results:
        """What there is now."""
        return Results(self._written.payload(), self._written.count, self._written.failures)

    def steps(self):
        """Runs the items; yields what must be awaited and is sent what came of it."""
        run, call, ends_at, written = self._run, self._call, self._ends_at, self._written
        words, place = run.mark or (None, 0)
        size = flush_at = 1
        for number, args in enumerate(self._items, 1):
            if run.kind or written.size >= FULL or (perf_counter() > ends_at and number > 1):
                break
            if words is not None:
                words[place] = number
            try:
                value = call(args)
                if type(value) is CoroutineType:
                    value = yield value
            except BaseException as error:  # noqa: BLE001 - SystemExit of an item is a failure of that item
                written.failed(number - 1, failure_of(run.outcome(error)))
                value = None
            if forks.is_child:  # it came back from an item: the others are its parent's
                forks.leave(None)
            written.take(value)
            if number == flush_at:
                written.flush()
                size = min(2 * size, BLOCK)
                flush_at += size
        written.flush()
        if run.kind:
            self._stop(len(self._items))

    def _stop(self, count: int) -> None:
        """What has not begun never will."""
        begin = self._written.count
        stopped = failure_of(self._run.stopped())
        for index in range(begin, count):
            self._written.failed(index, stopped)
            self._written.take(None)
        self._written.flush()


def _items(request, look) -> list:
    """The argument objects that are to run; one that cannot be decoded is its InvalidArguments."""
    batch = request.batch
    if request.refs:
        raise InvalidArguments(f"{request.command}: a batch takes no refs")
    items = decode_items(request.args.json, look(request.args.buffers))
    chosen = items[batch.first : batch.first + batch.count]
    if len(chosen) != batch.count or not chosen:
        words = f"items {batch.first} to {batch.first + batch.count} of {len(items)}"
        raise InvalidArguments(f"{request.command}: the batch asks for {words}")
    return chosen


# ---- calls -----------------------------------------------------------------------------------------------


def _caller(command, context):
    """A function of one argument object that does what `command.call` does, and less each time."""
    signature = command.signature
    if signature is None or signature.context is not None or signature.has_choices:
        return lambda args: command.call(_object(command, args), context)
    function, check, shapes = command.function, signature.check, signature.shapes

    def call(args):
        # Arguments of the names and types of others that passed unchanged pass, too.
        if type(args) is not dict:
            _object(command, args)
        shape = (tuple(args), tuple(map(type, args.values())))
        if shape not in shapes:
            args = check(args)
            if len(shapes) < MOST_SHAPES and shape[1] == tuple(map(type, args.values())):
                shapes.add(shape)
        return function(**args)

    return call


def _object(command, args) -> dict:
    if type(args) is dict:
        return args
    if isinstance(args, InvalidArguments):
        raise args
    raise InvalidArguments(f"{command.name}: the arguments must be an object, got {type(args).__name__}")


# ---- results ---------------------------------------------------------------------------------------------


class _Written:
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
        kind = type(value)
        if kind is dict and _are_flat(map(type, value.values())):
            self._flat.append(value.copy())
        elif kind in _FLAT:
            self._flat.append(value)
        else:
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
