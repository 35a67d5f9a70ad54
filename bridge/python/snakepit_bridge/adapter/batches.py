"""How the items of a batch run: one after the other in one thread or task, each with an outcome of its own.

Rules:
- One bad item fails alone.
- A cancellation, the budget's end and the batch's share of time are looked at between items. What they stop
  has never begun.
- A result is what it was when the command returned (batch_results.py).
- Each item sees the trace context of its own caller.
- A batch that has gathered much data gives the rest back.
"""

from __future__ import annotations

from itertools import chain
from time import perf_counter
from types import CoroutineType

from snakepit_bridge.adapter.batch_results import Written
from snakepit_bridge.adapter.commands import is_a_stream
from snakepit_bridge.lifeline import forks
from snakepit_bridge.values.decoding import decode_items
from snakepit_bridge.values.failures import InvalidArguments, failure_of

BLOCK = 256  # results that are written together, at most
FULL = 4 * 1024 * 1024  # bytes of results after which no further item is begun
MOST_SHAPES = 256  # kinds of arguments that are remembered as good, for each command
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
        self._calls = _Calls(command, run.context)
        share = run.request.batch.share_ms
        self._ends_at = perf_counter() + share / 1000 if share else _NEVER
        self._written = Written(command.name, config, arena)
        self._traces = _traces(run.request)

    def results(self) -> Results:
        """What there is now."""
        return Results(self._written.payload(), self._written.count, self._written.failures)

    def steps(self):
        """Runs the items; yields what must be awaited and is sent what came of it."""
        items, written = self._items, self._written
        begin, size = 0, 1
        while begin < len(items):
            block = items[begin : begin + size]
            yield from self._block(block, begin)
            written.flush()
            begin += len(block)
            if written.count < begin:  # stopped, its share of time is used up, or there is much data
                break
            size = min(2 * size, BLOCK)
        if self._run.kind:
            self._stop(len(items))

    def _block(self, items: list, begin: int):
        run, written, ends_at, traces = self._run, self._written, self._ends_at, self._traces
        call, unchecked, take = self._calls.one, self._calls.unchecked(items), written.take
        words, place = run.mark or (None, 0)
        for number, args in enumerate(items, begin + 1):
            if run.kind or written.size >= FULL or (perf_counter() > ends_at and number > 1):
                return
            if words is not None:
                words[place] = number
            if traces is not None:
                run.context.traceparent, run.context.tracestate = traces[number - 1]
            try:
                value = unchecked(**args) if unchecked is not None else call(args)
                if type(value) is CoroutineType:
                    value = yield value
            except BaseException as error:  # noqa: BLE001 - SystemExit of an item is a failure of that item
                written.failed(number - 1, failure_of(run.outcome(error)))
                value = None
            if forks.is_child:  # it came back from an item: the others are its parent's
                forks.leave(None)
            take(value)

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


def _traces(request) -> list | None:
    """(traceparent, tracestate) of each item that is to run; None where all have the request's."""
    batch, given = request.batch, request.item_traces
    if not given.places:
        return None
    own = request.traceparent, request.tracestate
    known = [own, *((trace.traceparent, trace.tracestate) for trace in given.traces)]
    places = given.places[batch.first : batch.first + batch.count]
    found = [known[place] if place < len(known) else own for place in places]
    return found + [own] * (batch.count - len(found))


# ---- calls -----------------------------------------------------------------------------------------------


class _Calls:
    """Calls a command for one argument object after the other: does what `command.call` does, and less each
    time. Arguments of the names and types of others that passed unchanged pass, too.
    """

    __slots__ = ("_context", "_may_skip", "_signature", "command")

    def __init__(self, command, context) -> None:
        signature = command.signature
        self.command = command
        self._context = context
        self._signature = signature
        self._may_skip = signature is not None and signature.context is None and not signature.has_choices

    def unchecked(self, items: list):
        """The function to call for these argument objects if all of them pass: a few passes at C speed. None:
        they go one by one.
        """
        if not self._may_skip or set(map(type, items)) != {dict}:
            return None
        names = set(map(tuple, items))
        if len(names) > 1:
            return None
        columns = zip(*map(dict.values, items))  # noqa: B905 - strict= needs Python 3.10
        kinds = [set(map(type, column)) for column in columns]
        if any(len(kind) > 1 for kind in kinds):
            return None
        shape = (*names.pop(), *chain.from_iterable(kinds))
        return self.command.function if shape in self._signature.shapes else None

    def one(self, args):
        """The command's result. Raises InvalidArguments, or whatever the command raises."""
        command, args = self.command, _object(self.command, args)
        if not self._may_skip:
            return command.call(args, self._context)
        shapes, shape = self._signature.shapes, _shape(args)
        if shape not in shapes:
            args = self._signature.check(args)
            if len(shapes) < MOST_SHAPES and shape == _shape(args):
                shapes.add(shape)
        return command.function(**args)


def _shape(args: dict) -> tuple:
    return (*args, *map(type, args.values()))


def _object(command, args) -> dict:
    if type(args) is dict:
        return args
    if isinstance(args, InvalidArguments):
        raise args
    raise InvalidArguments(f"{command.name}: the arguments must be an object, got {type(args).__name__}")
