"""The requests that are in an interpreter: sends them, tells them to stop, and gives each its outcome.

Rules:
- A run belongs to one interpreter until that has answered or is gone. A run that nobody waits for any more
  still counts until then.
- Whatever fails between the slot and the outcome is the outcome of that request: a run that was not sent is
  taken out of the book, and so its slot, mark and timers are free.
- A run that is told to stop and does not within `cancel_grace` seconds costs its interpreter its life, unless
  it has not begun.
- A run that has not begun and that nobody told to stop is no run: it comes back to its place in the queue,
  whether it was recalled, the interpreter refused it because it leaves, or the interpreter died."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from snakepit_ray.core.worker.runs import IN_INTERPRETER, TOLD_TO_STOP, TRANSITIONS, RunEvent, RunState, step
from snakepit_ray.errors import SnakepitError, WorkerCrashed, WorkerFault
from snakepit_ray.ledger import Entry
from snakepit_ray.supervisor.attempt import Attempt
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.outcomes import Answer, Closing, Recalled, TooLate
from snakepit_ray.telemetry import Why
from snakepit_ray.wire._pb import interpreter_pb2 as pb

WORD_SECONDS = 0.5  # for an interpreter to say whether what is too late has begun
CALLER, DEADLINE, RECALL = pb.Cancel.Reason.CALLER, pb.Cancel.Reason.DEADLINE, pb.Cancel.Reason.RECALL
log = logging.getLogger("snakepit_ray.worker")


@dataclass(eq=False)
class Run:
    """A request in an interpreter."""

    attempt: Attempt
    request: pb.Request
    interpreter: Interpreter
    outcome: asyncio.Future[Answer | Exception]
    mark: Entry | None = None  # where the interpreter says what it has begun of it
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    state: RunState = RunState.ENTERED

    def happened(self, event: RunEvent) -> RunState:
        """Moves the state; the state before."""
        before = self.state
        self.state = TRANSITIONS.get((before, event)) or step(before, event)
        return before

    @property
    def sent(self) -> bool:
        """Whether the interpreter has it."""
        return self.state in IN_INTERPRETER

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop, or will never be sent."""
        return self.state in TOLD_TO_STOP

    def settle(self, outcome: Answer | Exception) -> None:
        """Gives the outcome, unless there is one."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Running:
    """What runs at one worker. Of each run that is over, before its outcome is known to whoever awaits it,
    `released(request_id)` is called, or `came_back(attempt)` when it has not begun and goes on;
    `took(seconds)` with what each run took."""

    def __init__(
        self,
        cancel_grace: float,
        released: Callable[[str], None],
        took: Callable[[float], None],
        came_back: Callable[[Attempt], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._cancel_grace = cancel_grace
        self._released = released
        self._took = took
        self._came_back = came_back
        self._runs: dict[str, Run] = {}
        self._unsent: dict[
            str, list[asyncio.Event]
        ] = {}  # by session: set when each has been sent, or is over
        self._less: asyncio.Event | None = None  # made when somebody waits for runs to end

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    def attempt_of(self, request_id: str) -> Attempt | None:
        """The request of that id; None where it is in no interpreter."""
        run = self._runs.get(request_id)
        return None if run is None else run.attempt

    def of(self, interpreter: Interpreter) -> list[Run]:
        """What runs in one interpreter."""
        return [run for run in self._runs.values() if run.interpreter is interpreter]

    def more_items(self, interpreter: Interpreter) -> int:
        """Items of batches in one interpreter, beyond one for each request."""
        return sum(max(1, run.request.batch.count) - 1 for run in self.of(interpreter))

    def elsewhere(self, session: str, interpreter: Interpreter | None) -> bool:
        """Whether a request of the session is in another interpreter than this one."""
        return any(
            run.request.session == session and run.interpreter is not interpreter
            for run in self._runs.values()
        )

    def works(self, interpreter: Interpreter, now: float) -> bool:
        """Whether something runs in it that is within its budget and was not told to stop."""
        return any(
            run.state not in TOLD_TO_STOP and now < run.attempt.ends_at for run in self.of(interpreter)
        )

    async def run(
        self,
        attempt: Attempt,
        interpreter: Interpreter,
        begins: Callable[[pb.Request, bool], Entry | None],
        beside: Sequence[Any] = (),
        most: int = 0,
    ) -> Answer:
        """Runs a request, which holds a slot of `interpreter`, within what is left of its budget.

        - `begins` is called before it is sent, and says where its mark is.
        - `beside` are the buffers that travel beside it.
        - Of a batch at most `most` items begin, 0: all of them.

        Raises Recalled, TooLate, Closing, WorkerCrashed, and whatever kept it from being sent."""
        loop = asyncio.get_running_loop()
        request = _first_items(attempt.request, most) if most else attempt.request
        run = self._runs[request.id] = Run(attempt, request, interpreter, loop.create_future())
        try:
            if attempt.budget is not None:
                left = max(0.0, attempt.ends_at - self._clock())
                run.timers.append(loop.call_later(left, self._overdue, run))
            if beside or request.session in self._unsent:
                request = await self._carry(run, beside)
            if not run.outcome.done():  # while its buffers were copied it may have ended
                if interpreter.lacks:
                    interpreter.refuse_unknown(request)
                run.mark = begins(request, interpreter.has_marks)
                self._send(run, request)
        except BaseException:
            self._not_sent(run, request)
            raise
        if run.state not in IN_INTERPRETER:
            self._not_sent(run, request)
        try:
            outcome = await run.outcome
        except asyncio.CancelledError:
            self._tell_to_stop(run, CALLER)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _carry(self, run: Run, beside: Sequence[Any]) -> pb.Request:
        """The request with its buffers in the interpreter's memory, which takes a while. What its session
        sends after it meanwhile waits for it, so that it does not begin before."""
        if not run.request.session:
            return await run.interpreter.arena.carry(run.request, beside)
        unsent, own = self._unsent.setdefault(run.request.session, []), asyncio.Event()
        before = list(unsent)
        unsent.append(own)
        try:
            request = await run.interpreter.arena.carry(run.request, beside) if beside else run.request
            for one in before:
                await one.wait()
            return request
        finally:
            unsent.remove(own)
            if not unsent:
                del self._unsent[run.request.session]
            asyncio.get_running_loop().call_soon(own.set)  # when it has been sent

    def _not_sent(self, run: Run, carried: pb.Request) -> None:
        """It ends before it was sent: what was taken for it is free."""
        if carried is not run.request:
            run.interpreter.arena.withdraw(carried)
        self._over(run, Closing(False))

    def _send(self, run: Run, request: pb.Request) -> None:
        if run.attempt.budget is not None:
            request.budget_ms = max(1, int((run.attempt.ends_at - self._clock()) * 1000))
        request.mark = 0 if run.mark is None else run.mark.word + 1
        sink = run.attempt.sink
        on_chunk = None if sink is None else sink.opened(run.interpreter)
        run.interpreter.client.request(request, partial(self._answered, run), on_chunk)
        run.happened(RunEvent.SEND)

    def _answered(self, run: Run, reply: pb.Reply | None) -> None:
        if reply is None:
            return  # the stream ended: `lose` gives these their outcome, with the child's last words
        began = not (reply.HasField("failure") and _says_unbegun(reply) and not self._begun(run))
        if began:
            run.interpreter.served += max(1, reply.items)
            self._took(reply.ran_us / 1e6)
        elif reply.failure.kind == pb.Failure.Kind.CANCELLED and run.state is RunState.SENT:
            run.interpreter.client.leave()  # it refuses what nobody has cancelled: it ends
        self._over(run, self._outcome(run, reply, began))

    def _outcome(self, run: Run, reply: pb.Reply, began: bool) -> Answer | Exception:
        if run.state is RunState.OVERDUE or _says_too_late(reply):
            return TooLate(began)  # the interpreter's clock may be the first to say so
        if not began and not run.stopping:
            return Recalled()
        try:
            return Answer(reply, run.interpreter.arena.views(reply.value) if reply.value.buffers else ())
        except SnakepitError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's outcome
            return _unreadable(run.request, error)

    def _overdue(self, run: Run) -> None:
        if run.sent and self._begun(run) == 0:  # it may begin until the interpreter says that it never will
            loop = asyncio.get_running_loop()
            run.timers.append(loop.call_later(WORD_SECONDS, run.settle, TooLate(True)))
            self._tell_to_stop(run, DEADLINE, RunEvent.LATE)
        else:
            run.settle(TooLate(run.sent))
            self._tell_to_stop(run, DEADLINE)

    def _tell_to_stop(self, run: Run, reason: pb.Cancel.Reason, event: RunEvent = RunEvent.STOP) -> None:
        if self._runs.get(run.request.id) is not run:
            return
        before = run.happened(event)
        if before in TOLD_TO_STOP or not run.sent:  # not sent: `run` sees that it has its outcome
            return
        run.interpreter.client.cancel(run.request.id, reason)
        why = "was cancelled" if reason == CALLER else "had used up its budget"
        loop = asyncio.get_running_loop()
        run.timers.append(loop.call_later(self._cancel_grace, self._stuck, run, why))

    def recall(self, ids: list[str]) -> list[str]:
        """Takes back those that have not begun: they end as Recalled, soon or when what runs lets the
        interpreter answer. Which ones it asked for; one that begins before it is asked does not come back."""
        asked: list[str] = []
        for request_id in ids:
            run = self._runs.get(request_id)
            if run is not None and run.state is RunState.SENT:
                run.happened(RunEvent.RECALL)
                run.interpreter.client.cancel(request_id, RECALL)
                asked.append(request_id)
        return asked

    def has_begun(self, request_id: str) -> bool:
        """Whether its interpreter says that it has begun, or nobody knows."""
        run = self._runs.get(request_id)
        return run is None or self._begun(run) != 0

    def _stuck(self, run: Run, why: str) -> None:
        if self._begun(run) == 0:  # what runs before it holds it up, and is called to account itself
            loop = asyncio.get_running_loop()
            run.timers.append(loop.call_later(self._cancel_grace, self._stuck, run, why))
            return
        run.interpreter.condemn(
            Why.CANCEL_GRACE,
            f"its command {run.request.command!r} {why} and did not stop within "
            f"cancel_grace={self._cancel_grace:g} s",
        )

    def lose(self, interpreter: Interpreter, crash: Callable[[int | None], WorkerCrashed]) -> int:
        """The interpreter has ended: what was in it ends with `crash(calls of it that have begun)`, None
        where nobody knows how many; how many did."""
        lost = self.of(interpreter)
        # Those that had begun first: what has not begun is told after it, and may depend on it (of one
        # session).
        for run in sorted(lost, key=lambda run: self._begun(run) == 0):
            self._over(run, crash(self._begun(run)))
        return len(lost)

    def _begun(self, run: Run) -> int | None:
        if not run.sent:
            return 0
        return None if run.mark is None else run.mark.begun

    def refuse(self) -> None:
        """The worker stops: nobody waits any longer."""
        for run in list(self._runs.values()):
            run.settle(Closing(run.sent))

    def close(self) -> None:
        """Every interpreter has ended, and was not lost: nothing is in it any more."""
        for run in list(self._runs.values()):
            self._over(run, Closing(run.sent))

    def _over(self, run: Run, outcome: Answer | Exception) -> None:
        """It is in no interpreter: its place in the book, its mark, its timers and its slot are free, and it
        has its outcome, if it had none."""
        if self._runs.get(run.request.id) is not run:
            return
        del self._runs[run.request.id]
        run.happened(RunEvent.END)
        for timer in run.timers:
            timer.cancel()
        try:
            if run.mark is not None:
                run.mark.left()
        finally:
            if run.outcome.done() or isinstance(outcome, Answer) or not _goes_on(outcome):
                # First: the next is sent before this one's answer is looked at.
                self._released(run.request.id)
                run.settle(outcome)
            else:
                run.settle(outcome)  # first: it has its turn before those that start after it
                self._came_back(run.attempt)
            if self._less is not None:
                self._less.set()
                self._less = None

    async def fewer(self) -> None:
        """Waits until the next run is over."""
        if self._less is None:
            self._less = asyncio.Event()
        await self._less.wait()

    async def drained(self, interpreter: Interpreter) -> None:
        """Waits until nothing runs in it."""
        while self.of(interpreter):
            await self.fewer()


def _first_items(request: pb.Request, most: int) -> pb.Request:
    """The batch without the items after the first `most`, as if it had given them back."""
    if most >= request.batch.count:
        return request
    sent = pb.Request()
    sent.CopyFrom(request)
    sent.batch.count = most
    return sent


def _says_unbegun(reply: pb.Reply) -> bool:
    stopped = reply.failure.kind in (pb.Failure.Kind.CANCELLED, pb.Failure.Kind.DEADLINE)
    return stopped and not reply.ran_us


def _says_too_late(reply: pb.Reply) -> bool:
    return reply.HasField("failure") and reply.failure.kind == pb.Failure.Kind.DEADLINE


def _goes_on(outcome: Exception) -> bool:
    """Whether a run that ended so waits for another try in its old place."""
    if isinstance(outcome, WorkerCrashed):
        return not outcome.may_have_started
    return isinstance(outcome, Recalled)


def _unreadable(request: pb.Request, error: Exception) -> WorkerFault:
    return WorkerFault(
        f"the result of command {request.command!r} cannot be read: {type(error).__name__}: {error}; the "
        "command has "
        "run"
    )
