"""Knows the requests that are in an interpreter: sends them, tells them to stop, and gives each its outcome.

Rules: a run belongs to one interpreter until that has answered or is gone; who is told to stop and does not
within `cancel_grace` seconds costs its interpreter its life, unless it has not begun; a run that nobody waits
for any more still counts until then; one that is recalled before it began is no run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.errors import DeadlineExceeded, SnakepitError
from snakepit_ray.process.marks import Mark
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.outcomes import Answer, Recalled, Sink

WORD_SECONDS = 0.5  # for an interpreter to say whether what is too late has begun
CALLER, DEADLINE, RECALL = pb.Cancel.Reason.CALLER, pb.Cancel.Reason.DEADLINE, pb.Cancel.Reason.RECALL


@dataclass(eq=False)
class Run:
    """A request in an interpreter; `deadline` is of time.monotonic(), None without a budget."""

    request: pb.Request
    interpreter: Interpreter
    outcome: asyncio.Future[Answer | Exception]
    budget: float | None
    deadline: float | None
    mark: Mark | None = None  # where the interpreter says what it has begun of it
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    sent: bool = False
    stopping: bool = False
    recalled: bool = False
    overdue: bool = False  # and it had not begun

    def settle(self, outcome: Answer | Exception) -> None:
        """Gives the outcome, unless there is one."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Running:
    """What runs at one worker. `released(request_id)` is called when a run is over, before its outcome is
    known to whoever awaits it, `took(seconds)` with what each run took."""

    def __init__(
        self, cancel_grace: float, released: Callable[[str], None], took: Callable[[float], None]
    ) -> None:
        self._cancel_grace = cancel_grace
        self._released = released
        self._took = took
        self._runs: dict[str, Run] = {}
        self._less: asyncio.Event | None = None  # made when somebody waits for runs to end

    def __len__(self) -> int:
        return len(self._runs)

    def of(self, interpreter: Interpreter) -> list[Run]:
        """What runs in one interpreter."""
        return [run for run in self._runs.values() if run.interpreter is interpreter]

    def elsewhere(self, session: str, interpreter: Interpreter | None) -> bool:
        """Whether a request of the session is in another interpreter than this one."""
        return any(
            run.request.session == session and run.interpreter is not interpreter
            for run in self._runs.values()
        )

    def works(self, interpreter: Interpreter, now: float) -> bool:
        """Whether something runs in it that is within its budget and was not told to stop."""
        return any(
            not run.stopping and (run.deadline is None or now < run.deadline) for run in self.of(interpreter)
        )

    async def run(
        self,
        request: pb.Request,
        interpreter: Interpreter,
        left: float | None,
        budget: float | None,
        *,
        mark: Mark | None = None,
        sink: Sink | None = None,
        beside: Sequence[Any] = (),
    ) -> Answer:
        """Runs `request`, which holds a slot, within the `left` seconds of its `budget`; a stream's chunks
        go into `sink`; `beside` are the buffers that travel beside it; `mark` is given back at its end.
        Raises DeadlineExceeded, WorkerCrashed and whatever else ended it."""
        loop = asyncio.get_running_loop()
        deadline = None if left is None else time.monotonic() + left
        run = self._runs[request.id] = Run(request, interpreter, loop.create_future(), budget, deadline, mark)
        if left is not None:
            run.timers.append(loop.call_later(left, self._overdue, run))
        try:
            if beside:
                request = await self._loaded(run, beside)
            if not run.outcome.done():
                self._send(run, request, sink)
            outcome = await run.outcome
        except asyncio.CancelledError:
            self._tell_to_stop(run, CALLER)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _loaded(self, run: Run, beside: Sequence[Any]) -> pb.Request:
        """The request with its buffers where the interpreter finds them; while they are copied it may end."""
        try:
            request = await run.interpreter.arena.carry(run.request, beside)
        except Exception:
            self._withdrawn(run)
            raise
        if run.outcome.done():
            run.interpreter.arena.withdraw(request)
        return request

    def _send(self, run: Run, request: pb.Request, sink: Sink | None) -> None:
        if run.deadline is not None:
            request.budget_ms = max(1, int((run.deadline - time.monotonic()) * 1000))
        run.sent = True
        request.mark = 0 if run.mark is None else run.mark.word + 1
        on_chunk = None if sink is None else sink.opened(run.interpreter)
        run.interpreter.client.request(request, lambda reply: self._answered(run, reply), on_chunk)

    def _answered(self, run: Run, reply: pb.Reply | None) -> None:
        if reply is None:
            return  # the stream ended: `lose` gives these their outcome, with the child's last words
        began = not _never_began(reply)
        if began:
            run.interpreter.served += max(1, reply.items)
            self._took(reply.ran_us / 1e6)
        if run.overdue or (not began and reply.failure.kind == pb.Failure.Kind.DEADLINE):
            self._too_late(run, began)  # the interpreter's clock may be the first to say so
        self._over(run)
        if run.recalled and not (began or run.stopping):
            run.settle(Recalled())
            return
        try:
            run.settle(Answer(reply, run.interpreter.arena.views(reply.value) if reply.value.buffers else ()))
        except SnakepitError as error:
            run.settle(error)

    def _overdue(self, run: Run) -> None:
        if run.sent and self._begun(run) == 0:  # it may begin until the interpreter says that it never will
            run.overdue = True
            run.timers.append(asyncio.get_running_loop().call_later(WORD_SECONDS, self._too_late, run, True))
        else:
            self._too_late(run, run.sent)
        self._tell_to_stop(run, DEADLINE)

    def _too_late(self, run: Run, may_have_begun: bool) -> None:
        phase = "running" if may_have_begun else "waiting"
        run.settle(DeadlineExceeded.after(run.budget or 0.0, phase, run.request.command))

    def _tell_to_stop(self, run: Run, reason: pb.Cancel.Reason) -> None:
        if run.stopping or run.request.id not in self._runs:
            return
        run.stopping = True
        if not run.sent:
            self._withdrawn(run)
            return
        run.interpreter.client.cancel(run.request.id, reason)
        why = "was cancelled" if reason == CALLER else "had used up its budget"
        loop = asyncio.get_running_loop()
        run.timers.append(loop.call_later(self._cancel_grace, self._stuck, run, why))

    def _withdrawn(self, run: Run) -> None:
        """It ends before it was sent."""
        if self._runs.get(run.request.id) is run:
            self._over(run)

    def recall(self, ids: list[str]) -> None:
        """Takes back those that have not begun: they end as Recalled, soon or when what runs lets the
        interpreter answer."""
        for request_id in ids:
            run = self._runs.get(request_id)
            if run is not None and run.sent and not (run.recalled or run.stopping):
                run.recalled = True
                run.interpreter.client.cancel(request_id, RECALL)

    def _stuck(self, run: Run, why: str) -> None:
        if self._begun(run) == 0:  # what runs before it holds it up, and is called to account itself
            loop = asyncio.get_running_loop()
            run.timers.append(loop.call_later(self._cancel_grace, self._stuck, run, why))
            return
        run.interpreter.condemn(
            f"its command {run.request.command!r} {why} and did not stop within "
            f"cancel_grace={self._cancel_grace:g} s"
        )

    def lose(self, interpreter: Interpreter, crash: Callable[[int | None], SnakepitError]) -> int:
        """The interpreter has ended: what was in it ends with `crash(calls of it that have begun)`, None
        where nobody knows how many; how many did."""
        lost = self.of(interpreter)
        for run in lost:
            begun = self._begun(run)
            self._over(run)
            run.settle(crash(begun))
        return len(lost)

    def _begun(self, run: Run) -> int | None:
        if not run.sent:
            return 0
        return None if run.mark is None else run.mark.begun

    def refuse(self, error: SnakepitError) -> None:
        """The worker stops: nobody waits any longer."""
        for run in self._runs.values():
            run.settle(error)

    def _over(self, run: Run) -> None:
        del self._runs[run.request.id]
        if run.mark is not None:
            run.mark.give_back()
        for timer in run.timers:
            timer.cancel()
        self._released(run.request.id)
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


def _never_began(reply: pb.Reply) -> bool:
    stopped = reply.failure.kind in (pb.Failure.Kind.CANCELLED, pb.Failure.Kind.DEADLINE)
    return stopped and not reply.ran_us
