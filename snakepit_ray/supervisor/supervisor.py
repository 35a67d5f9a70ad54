"""Knows one worker: keeps an interpreter running, lets requests in, runs them, and accounts for each.

Rules: exactly one outcome for each request; what did not start never runs; a slot is held until the
interpreter has answered, also when nobody waits for the answer any more; one budget covers waiting and
running; when an interpreter is lost only what ran in it fails, the waiting stay for the next one (a new
epoch)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.errors import (
    DeadlineExceeded,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    SnakepitError,
    WorkerCrashed,
)
from snakepit_ray.process import Exit
from snakepit_ray.rpc.client import HostHandler
from snakepit_ray.supervisor.admission import CLOSED, START, Admission, Expired, Move, Verdict
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.keeper import Hooks, Keeper
from snakepit_ray.supervisor.outcomes import Counters, Done, Relayed, WorkerState
from snakepit_ray.supervisor.story import Story

CALLER, DEADLINE = pb.Cancel.Reason.CALLER, pb.Cancel.Reason.DEADLINE


# (target worker, request, whether it is chained) -> the answer, None where it was refused
Delegate = Callable[[str, pb.Request, bool], Awaitable[Relayed | None]]


@dataclass
class Run:
    """A request that holds a slot."""

    request: pb.Request
    outcome: asyncio.Future[pb.Reply | SnakepitError]
    began: float = field(default_factory=time.monotonic)


class Supervisor:
    """One worker. `make_spec` is asked before each start of an interpreter; `delegate` takes a waiter
    elsewhere, `overflow` one that finds the queue full."""

    def __init__(
        self,
        make_spec: Callable[[], InterpreterSpec],
        *,
        worker_id: str,
        pool: str,
        capacity: int,
        queue_limit: int | None,
        incarnation: int,
        retry_backoff: float,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
    ) -> None:
        self.worker_id = worker_id
        self.pool = pool
        self.state = WorkerState.STARTING
        self.counters = Counters()
        self.story = Story(pool, worker_id)
        self.admission = Admission(capacity, queue_limit, time.monotonic)
        self.keeper = Keeper(
            make_spec, incarnation, on_host_call, forward, Hooks(self._up, self._down, self._ended)
        )
        self.delegate: Delegate | None = None
        self.overflow: Callable[[pb.Request], Awaitable[Relayed | None]] | None = None
        self._retry_backoff = retry_backoff
        self._running: dict[str, Run] = {}

    # ---- the interpreter ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the interpreter and keeps one running from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        await self.keeper.start()

    def _up(self) -> None:
        assert self.interpreter is not None
        seconds = time.time() - self.interpreter.began_at
        self.story.initialized(seconds, self.interpreter.child.pid, self.epoch)
        self._set_state(WorkerState.READY)
        self.admission.set_open(True)

    def _down(self) -> None:
        self._set_state(WorkerState.STARTING)
        self.admission.set_open(False)

    def _ended(self, exit: Exit) -> None:
        """What ran in the lost interpreter fails, in the words of its end."""
        crash = WorkerCrashed.from_exit(
            self.worker_id, exit.returncode, exit.stderr_tail, exit.argv, may_have_started=True
        )
        assert self.interpreter is not None
        self.story.crashed(time.time() - self.interpreter.started_at, crash)
        lost, self._running = self._running, {}
        for request_id, run in lost.items():
            self.admission.release(request_id)
            if not run.outcome.done():
                run.outcome.set_result(crash)

    def _set_state(self, state: WorkerState) -> None:
        if self.state not in (WorkerState.DRAINING, WorkerState.DEAD):
            self.state = state

    # ---- requests -----------------------------------------------------------------------------------------

    async def execute(
        self, request: pb.Request, *, may_move: bool, on_slot: Callable[[], None] | None = None
    ) -> Done | Relayed:
        """Runs `request` here, or hands it on while it waits. Raises the typed error of whatever went wrong.

        `on_slot` is called when the slot is held and before anything is sent; it may raise. An idempotent
        request is tried again after a crash, within its budget and `options.retries`."""
        self.counters.requests += not request.options.hops  # counted once, where it first arrived
        began = time.monotonic()
        budget = self._budget(request)
        attempt = 1
        try:
            while True:
                try:
                    done = await self._attempt(request, attempt, began, budget, may_move, on_slot)
                    self.story.executed(request, began, "")
                    return done
                except WorkerCrashed:
                    if not self._may_retry(request, attempt):
                        raise
                    await asyncio.sleep(self._retry_backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
                    attempt += 1
        except SnakepitError as error:
            self.counters.errors += not request.options.hops  # counted once, as requests are
            self.story.executed(request, began, type(error).__name__)
            raise

    def _budget(self, request: pb.Request) -> float | None:
        if request.options.default_budget:
            command = self.keeper.command(request.command)
            if command is not None and command.timeout is not None:
                return command.timeout
        return request.budget_ms / 1000 if request.budget_ms else None

    def _may_retry(self, request: pb.Request, attempt: int) -> bool:
        command = self.keeper.command(request.command)
        idempotent = request.options.idempotent or (command is not None and command.idempotent)
        return idempotent and attempt <= request.options.retries

    async def _attempt(
        self,
        request: pb.Request,
        attempt: int,
        began: float,
        budget: float | None,
        may_move: bool,
        on_slot: Callable[[], None] | None,
    ) -> Done | Relayed:
        request.attempt = attempt
        if not self.admission.start_now(request.id):
            relayed = await self._wait(request, began, budget, may_move)
            if relayed is not None:
                return relayed
        if on_slot is not None:
            try:
                on_slot()
            except SnakepitError:
                self.admission.release(request.id)
                raise
        waited = time.monotonic() - began
        assert self.interpreter is not None
        pid = self.interpreter.child.pid
        return Done(await self._run(request, waited, budget), waited, attempt, pid)

    async def _wait(
        self, request: pb.Request, began: float, budget: float | None, may_move: bool
    ) -> Relayed | None:
        """Waits for a slot: None when it is held, or the answer of the worker that took the request over."""
        if self.state is WorkerState.DEAD:
            raise self._closed()
        limit = request.options.queue_ms / 1000
        expires_at = began + (limit if budget is None else min(limit, budget))
        verdict = self.admission.wait(request.id, expires_at, may_move and self.delegate is not None)
        if verdict is None:
            return await self._overflowed(request, may_move)
        self.story.enqueued(request, self.waiting)
        while True:
            decided = await self._verdict(request.id, verdict)
            if decided is START:
                self.story.dequeued(request, began)
                return None
            if decided is CLOSED:
                raise self._closed()
            if isinstance(decided, Expired):
                raise self._waited_too_long(request, decided.waited, budget)
            assert isinstance(decided, Move)
            assert self.delegate is not None
            sent = _with_less_budget(request, began, budget)
            relayed = await self.delegate(decided.target, sent, decided.chained)
            if relayed is not None:
                self.counters.delegated += 1
                self.story.moved(request, decided.target, began)
                self._chain(decided.target, relayed)
                relayed.unwrap()  # its error is this request's
                return relayed
            verdict = self.admission.back(decided.waiting)

    def _chain(self, target: str, relayed: Relayed) -> None:
        """The next waiter follows at once to the slot that has just become free: no message to the router."""
        if relayed.free and not self.admission.slots.free:
            self.admission.move(1, target, chained=True)

    async def _verdict(self, request_id: str, verdict: asyncio.Future[Verdict]) -> Verdict:
        try:
            return await verdict
        except asyncio.CancelledError:
            self.admission.leave(request_id, verdict)
            raise

    async def _overflowed(self, request: pb.Request, may_move: bool) -> Relayed:
        relayed = await self.overflow(request) if may_move and self.overflow is not None else None
        if relayed is None:
            self.counters.saturated += 1
            self.story.saturated(self.waiting, self.admission.queue.limit or 0)
            raise PoolSaturated.full(self.pool, len(self.admission.queue), self.admission.queue.limit or 0)
        self.counters.delegated += 1
        relayed.unwrap()
        return relayed

    def _closed(self) -> PoolClosed:
        return PoolClosed(f"pool {self.pool!r} was shut down (worker {self.worker_id} has stopped)")

    def _waited_too_long(self, request: pb.Request, waited: float, budget: float | None) -> SnakepitError:
        self.counters.queue_timeouts += 1
        limit = request.options.queue_ms / 1000
        self.story.timed_out(request, waited, limit)
        if budget is not None and budget < limit:
            return DeadlineExceeded.after(budget, "waiting", request.command)
        return QueueTimeout.after(waited, limit, self.pool)

    async def _run(self, request: pb.Request, waited: float, budget: float | None) -> pb.Reply:
        if budget is not None:
            if waited >= budget:
                self.admission.release(request.id)
                raise DeadlineExceeded.after(budget, "waiting", request.command)
            request.budget_ms = max(1, int((budget - waited) * 1000))
        loop = asyncio.get_running_loop()
        run = self._running[request.id] = Run(request, loop.create_future())
        assert self.interpreter is not None
        client = self.interpreter.client
        client.request(request, lambda reply: self._answered(request.id, reply))
        timer = None
        if budget is not None:
            timer = loop.call_later(budget - waited, self._overdue, run, budget)
        try:
            outcome = await run.outcome
        except asyncio.CancelledError:
            client.cancel(request.id, CALLER)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(outcome, SnakepitError):
            raise outcome
        self.counters.errors += outcome.HasField("failure") and not request.options.hops
        self.story.ran(request, outcome)
        return outcome

    def _answered(self, request_id: str, reply: pb.Reply | None) -> None:
        if reply is None:
            return  # the stream ended: `_lost` gives these their outcome, with the child's last words
        run = self._running.pop(request_id)
        self.admission.release(request_id)
        if not run.outcome.done():
            run.outcome.set_result(reply)

    def _overdue(self, run: Run, budget: float) -> None:
        if run.outcome.done() or self.interpreter is None:
            return
        run.outcome.set_result(DeadlineExceeded.after(budget, "running", run.request.command))
        self.interpreter.client.cancel(run.request.id, DEADLINE)

    # ---- the end ------------------------------------------------------------------------------------------

    @property
    def interpreter(self) -> Interpreter | None:
        """The present interpreter, or the last one while the next is starting."""
        return self.keeper.interpreter

    @property
    def epoch(self) -> pb.Epoch:
        """Which interpreter serves; between two, the one to come."""
        return self.keeper.epoch

    @property
    def running(self) -> int:
        """Slots in use."""
        return self.admission.slots.running

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self.admission.queue)

    async def stop(self) -> None:
        """Ends the interpreter; what waits or runs is refused. Safe to repeat."""
        self.state = WorkerState.DEAD
        self.admission.close()
        for run in self._running.values():
            if not run.outcome.done():
                run.outcome.set_result(self._closed())
        await self.keeper.stop()


def _with_less_budget(request: pb.Request, began: float, budget: float | None) -> pb.Request:
    """A copy to send on: one hop more, and what is left of its times."""
    moved = pb.Request()
    moved.CopyFrom(request)
    spent = int((time.monotonic() - began) * 1000)
    if budget is not None:
        moved.budget_ms = max(1, int(budget * 1000) - spent)
    moved.options.queue_ms = max(1, request.options.queue_ms - spent)
    moved.options.hops += 1
    return moved
