"""What calls come to, whichever way they go: refs of Ray, and answers of lanes.

- An answer is settled once: by its lane, or by Ray when the request had to go again that way.
- Nobody who settles one waits for a lock that a caller's thread may hold: an interrupt of a caller holds up
  no other call.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import ray

from snakepit_ray.errors import RequestCancelled
from snakepit_ray.port import ray_port
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import lane_pb2


class LaneCall(NamedTuple):
    """A request that goes by a lane. `read`: makes its value of the answer. `by_ray`: sends it by Ray, with
    the same id, and gives the ref. `by_ray(is_large)`: because its answer is too large for the lane."""

    request_id: str
    kind: int
    payload: bytes
    read: Callable[[lane_pb2.LaneAnswer], Any]
    by_ray: Callable[[bool], Any]


class Road(Protocol):
    """The lane that a request has gone."""

    def cancel(self, request_id: str) -> None:
        """Nobody waits for it any more."""


class Outcome(NamedTuple):
    """What a call has come to: an error, or what gives its value."""

    error: BaseException | None
    read: Callable[[], Any]

    def value(self) -> Any:
        """Raises its error, or what the decoding raises."""
        if self.error is not None:
            raise self.error
        return self.read()


class Wait(Protocol):
    """How a caller waits for an outcome."""

    def settle(self, outcome: Outcome) -> None:
        """The outcome, where the lane is read. Once."""

    def settle_elsewhere(self, outcome: Outcome) -> None:
        """The outcome, in a thread of Ray's. Once."""


class Answer:
    """The outcome of one call, which its lane brings, or Ray. `wait`: ThreadWait, or LoopWait."""

    __slots__ = ("__weakref__", "_is_cancelled", "_ref", "_road", "call", "wait")

    def __init__(self, call: LaneCall, road: Road, wait: Wait) -> None:
        self.call = call
        self.wait: Any = wait
        self._road = road
        self._ref: Any = None  # when it goes by Ray
        self._is_cancelled = False

    def arrived(self, answer: lane_pb2.LaneAnswer) -> None:
        """By the lane."""
        if answer.by_ray:
            self.goes_by_ray(is_large=True)
            return
        read = self.call.read
        self.wait.settle(Outcome(lane.error_of(answer), lambda: read(answer)))

    def part(self, message: lane_pb2.LaneChunks) -> None:
        """Raises ValueError: only streams have parts."""
        raise ValueError("a part came of what is no stream")

    def lane_ended(self) -> None:
        """Before the answer came."""
        self.goes_by_ray()

    def goes_by_ray(self, *, is_large: bool = False) -> None:
        """The lane has ended before it, or cannot carry it: the request goes again, with the same id. What
        has begun is not begun a second time, because its worker's ledger knows that id."""
        if self._is_cancelled and not is_large:
            self.wait.settle(_failed(RequestCancelled.because("the caller cancelled it")))
            return
        try:
            self._ref = ref = self.call.by_ray(is_large)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self.wait.settle(_failed(error))
            return
        if self._is_cancelled:
            ray.cancel(ref)
        ref.future().add_done_callback(self._came_by_ray)

    def cancel(self) -> None:
        """Nobody waits for it any more. Safe to repeat."""
        self._is_cancelled = True
        if self._ref is not None:
            ray.cancel(self._ref)
        else:
            self._road.cancel(self.call.request_id)

    def _came_by_ray(self, future: Any) -> None:
        self.wait.settle_elsewhere(Outcome(future.exception(), future.result))

    def future(self) -> ThreadWait:
        """As `ObjectRef.future()`: what has callbacks, and the outcome."""
        wait: ThreadWait = self.wait
        return wait

    def __await__(self) -> Generator[Any, None, Any]:
        wait: LoopWait = self.wait
        outcome = yield from wait.outcome.__await__()
        return outcome.value()


class ThreadWait:
    """A thread waits, or a callback."""

    __slots__ = ("_bell", "_callbacks", "_outcome")

    def __init__(self) -> None:
        # A lock of C as a bell: whoever settles rings it, and an interrupted wait has taken nothing.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._outcome: Outcome | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def settle(self, outcome: Outcome) -> None:
        """See Wait."""
        self._outcome = outcome
        self._bell.release()
        self._call_back()

    settle_elsewhere = settle

    def _call_back(self) -> None:
        while self._callbacks:
            with contextlib.suppress(IndexError):  # the other thread was faster
                self._callbacks.pop()(self)

    def happens(self, seconds: float) -> bool:
        """Waits for the outcome; whether it is there. For one thread."""
        return self._outcome is not None or self._bell.acquire(timeout=max(0.0, seconds))

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls `callback` with this when there is an outcome, in the thread that brings it."""
        self._callbacks.append(callback)
        if self._outcome is not None:
            self._call_back()

    def forget(self, callback: Callable[[Any], None]) -> None:
        """It is not to be called any more."""
        with contextlib.suppress(ValueError):
            self._callbacks.remove(callback)

    def exception(self) -> BaseException | None:
        """The error that it came to."""
        assert self._outcome is not None
        return self._outcome.error

    def result(self) -> Any:
        """The value. Raises its error."""
        assert self._outcome is not None
        return self._outcome.value()


class LoopWait:
    """A task of the running event loop awaits."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Outcome) -> None:
        """See Wait."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def settle_elsewhere(self, outcome: Outcome) -> None:
        """See Wait."""
        with contextlib.suppress(RuntimeError):  # nobody waits in a loop that is closed
            self.outcome.get_loop().call_soon_threadsafe(self.settle, outcome)


Ref: TypeAlias = Any  # an ObjectRef, or an Answer


def _failed(error: BaseException) -> Outcome:
    return Outcome(error, lambda: None)


def get(ref: Ref, seconds: float | None = None) -> Any:
    """The value of a ref or an answer. Raises its error, and GetTimeout when it is not there in time."""
    if not isinstance(ref, Answer):
        return ray.get(ref, timeout=seconds)
    wait: ThreadWait = ref.wait
    if not wait.happens(threading.TIMEOUT_MAX if seconds is None else seconds):
        raise ray_port.GetTimeout("no answer came by the lane in time")
    return wait.result()


def cancel(ref: Ref) -> None:
    """Cancels what a ref or an answer stands for."""
    if isinstance(ref, Answer):
        ref.cancel()
    else:
        ray.cancel(ref)


def wait(refs: Sequence[Ref], seconds: float) -> list[Ref]:
    """Waits until one of them has an outcome, at most so many seconds: those that have, one at least."""
    answers = [ref for ref in refs if isinstance(ref, Answer)]
    if not answers:
        ready: list[Ref] = ray.wait(list(refs), num_returns=1, timeout=seconds)[0]
        return ready
    done = [answer for answer in answers if answer.future().done()]
    return done or _wait(answers, [ref for ref in refs if not isinstance(ref, Answer)], seconds)


def _wait(answers: Sequence[Answer], refs: Sequence[Any], seconds: float) -> list[Ref]:
    if refs and (ready := ray.wait(list(refs), num_returns=1, timeout=0)[0]):
        return list(ready)
    bell = _Bell()
    for answer in answers:
        answer.future().add_done_callback(bell.ring)
    for ref in refs:
        _watch(ref, bell)
    bell.wait(seconds)
    for answer in answers:
        answer.future().forget(bell.ring)
    for ref in refs:
        _watched.get(ref, set()).discard(bell)
    done: list[Ref] = [answer for answer in answers if answer.future().done()]
    return done or (list(ray.wait(list(refs), num_returns=1, timeout=0)[0]) if refs else [])


class _Bell:
    """Rung once, or more often."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self, rung_by: Any = None) -> None:
        with contextlib.suppress(RuntimeError):  # it was rung
            self._lock.release()

    def wait(self, seconds: float) -> None:
        self._lock.acquire(timeout=max(0.0, seconds))


_watched: dict[Any, set[_Bell]] = {}  # refs that are waited for beside answers, and what each rings


def _watch(ref: Any, bell: _Bell) -> None:
    if ref in _watched:
        _watched[ref].add(bell)
        return
    _watched[ref] = {bell}

    def rang(_: Any) -> None:
        for one in _watched.pop(ref, set()):
            one.ring()

    ref.future().add_done_callback(rang)
