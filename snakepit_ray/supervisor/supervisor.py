"""One worker: lets requests in, runs them or hands them on, and accounts for each.

Rules:
- Exactly one outcome for each request. What did not start never runs.
- `_present` is the book of all requests that have no outcome yet. Whatever raises between a request's arrival
  and its outcome is that request's outcome, and `execute` then takes everything back that the request holds.
- From the moment when a request has its slot until it is sent nothing is awaited, so that slot and
  interpreter belong together.
- A slot is held until the interpreter has answered, also when nobody waits for the answer any more.
- One budget covers waiting and running.
- When an interpreter is lost only what ran in it fails. The waiting stay for the next one.
- A session's next request enters a new interpreter when its last one has left the old."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from snakepit_ray.core.worker.lifecycle import WorkerEvent, WorkerState
from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.errors import WorkerCrashed, WorkerFault
from snakepit_ray.rpc.client import HostHandler
from snakepit_ray.supervisor.accounts import Accounts, Counters
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.attempt import Attempt
from snakepit_ray.supervisor.care import Care, CarePolicy
from snakepit_ray.supervisor.cargo import Cargo
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.keeper import Keeper
from snakepit_ray.supervisor.life import Life
from snakepit_ray.supervisor.outcomes import Closing, Done, Recalled, Relayed, Sink, TooLate
from snakepit_ray.supervisor.ports import Ports
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.story import Story
from snakepit_ray.supervisor.waiting_room import WaitingRoom
from snakepit_ray.telemetry import listening
from snakepit_ray.wire._pb import interpreter_pb2 as pb

MOST_LOSSES = 5  # interpreters that may die with one request before they begin it: it may be what kills them


OnSlot = Callable[[], Callable[[], None] | None]


@dataclass(frozen=True)
class WorkerPolicy:
    """How a worker behaves; times in seconds."""

    capacity: int = 1
    queue_limit: int | None = None
    retry_backoff: float = 0.1
    cancel_grace: float = 2.0
    overlap: bool = True
    care: CarePolicy = field(default_factory=CarePolicy)


class Supervisor:
    """One worker. `make_spec` is asked before each start of an interpreter. `ports` makes what the worker has
    around it; it gets the supervisor before that is complete, to keep and not to use."""

    def __init__(
        self,
        make_spec: Callable[[], InterpreterSpec],
        *,
        worker_id: str,
        pool: str,
        policy: WorkerPolicy,
        incarnation: int,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
        ports: Callable[[Supervisor], Ports] = lambda supervisor: Ports(),
        counters: Counters | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.pool = pool
        self.policy = policy
        self.counters = counters or Counters()
        self.cargo = Cargo()
        self.ports = ports(self)
        self.story = Story(pool, worker_id, lambda: self.epoch)
        self.accounts = Accounts(self.counters, self.story)
        limited = policy.care.limits.max_requests is not None
        self.admission = Admission(
            policy.capacity,
            policy.queue_limit,
            time.monotonic,
            self.ports.pool,
            self,
            (lambda occupied, is_full: self._care.takes_more(occupied, is_full)) if limited else None,
        )
        took = self._took if limited else self.admission.took
        self._runs = Running(policy.cancel_grace, self.admission.release, took, self._came_back)
        self.life = Life(
            self.admission,
            self._runs,
            self.story,
            self.counters,
            self.ports.pool,
            look_after=lambda interpreter: self._care.begin(interpreter),
            replacing=lambda stage: self._care.replacing(stage),
        )
        self.keeper = Keeper(make_spec, incarnation, on_host_call, forward, self.life, overlap=policy.overlap)
        self._waiting_room = WaitingRoom(
            self.admission, self.ports.others, self.story, self.counters, pool=pool
        )
        self._care = Care(policy.care, self.keeper, self._runs, self.story, self.admission.look_again)
        self._present: dict[str, Attempt] = {}
        self._has_said_its_end = False

    # ---- the worker ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the interpreter and keeps one running from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        await self.keeper.start()

    def leave(self) -> None:
        """The pool shrinks: this worker takes no new work of its own. Safe to repeat."""
        self.life.happened(WorkerEvent.LEAVE)

    def recycle(self) -> None:
        """Wishes for a planned replacement of the interpreter."""
        self.keeper.recycle(Reason.MANUAL)

    async def stop(self) -> None:
        """Ends the interpreter; all that is present ends with PoolClosed. Safe to repeat."""
        self.life.happened(WorkerEvent.STOP)
        self._waiting_room.close()
        self._runs.refuse()
        self._care.stop()
        last = self.interpreter
        try:
            await self.keeper.stop()
        finally:
            self._runs.close()
            if last is not None and not self._has_said_its_end:
                self._has_said_its_end = True
                self.story.terminated(time.time() - last.started_at, last.served)

    def kill_now(self) -> None:
        """Ends the interpreter and what it started, at once: this process is about to end."""
        self.keeper.kill_now()

    @property
    def state(self) -> WorkerState:
        """What the worker is doing."""
        return self.life.state

    @property
    def takes_none(self) -> bool:
        """Whether requests that may move go elsewhere, because this worker drains or is quarantined."""
        return self.life.state in (WorkerState.DRAINING, WorkerState.QUARANTINED)

    @property
    def interpreter(self) -> Interpreter | None:
        """The present interpreter, or the last one while the next is starting."""
        return self.keeper.interpreter

    @property
    def epoch(self) -> pb.Epoch:
        """Which interpreter serves; between two, the one to come."""
        return self.keeper.epoch

    async def memory(self) -> int:
        """Bytes of the interpreter and its children, as worker_max_memory counts them; 0 without one."""
        interpreter = self.interpreter
        if interpreter is None:
            return 0
        return await asyncio.to_thread(self._care.memory, interpreter) or 0

    @property
    def running(self) -> int:
        """Requests that have a slot of an interpreter, also of one that only finishes."""
        return max(0, len(self._runs) - len(self.admission.slots.ahead))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self.admission.waiting

    def drop(self, is_orphan: Callable[[str], bool]) -> int:
        """Cancels the requests whose ids say that their caller is gone; how many."""
        orphans = [attempt.task for request_id, attempt in self._present.items() if is_orphan(request_id)]
        for task in orphans:
            task.cancel()
        return len(orphans)

    # ---- requests -----------------------------------------------------------------------------------------

    async def execute(
        self,
        request: pb.Request,
        *,
        may_move: bool,
        on_slot: OnSlot | None = None,
        sink: Sink | None = None,
    ) -> Done | Relayed:
        """Runs `request` here, or hands it on while it waits. Raises the typed error of whatever went wrong.

        `on_slot` is called when the slot is held and before anything is sent; it may raise, and may return
        what takes it back when the request has not begun in that interpreter after all. An idempotent
        request is tried again after a crash, within its budget and `options.retries`; a stream, whose chunks
        go into `sink`, never: its consumer may have seen some."""
        with self.accounts.opened(request) as account:
            outcome = await self.run(request, may_move=may_move, on_slot=on_slot, sink=sink)
            account.is_(outcome)
            return outcome

    async def run(
        self,
        request: pb.Request,
        *,
        may_move: bool,
        on_slot: OnSlot | None = None,
        sink: Sink | None = None,
    ) -> Done | Relayed:
        """`execute` of a request whose account is open."""
        attempt = self._enter(request, sink)
        attempt.may_move = may_move
        try:
            while True:
                try:
                    return await self._try(attempt, on_slot)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told from here
                    await self._go_on_after(attempt, error)
        except BaseException as error:
            if request.id not in self._runs:
                was_waiting = self.admission.leave(request.id)
                if was_waiting and isinstance(error, asyncio.CancelledError):
                    self.story.dropped(request, attempt.waited)
            raise
        finally:
            del self._present[request.id]

    def _enter(self, request: pb.Request, sink: Sink | None) -> Attempt:
        if request.id in self._present:
            raise WorkerFault(
                f"worker {self.worker_id} has a request {request.id!r} already: an id is used once. Nothing "
                "was executed"
            )
        task = asyncio.current_task()
        assert task is not None
        attempt = self._present[request.id] = Attempt(
            request,
            self._budget(request),
            self.ports.record.begun_before,
            task,
            sink=sink,
            worker_id=self.worker_id,
            pool=self.pool,
        )
        return attempt

    async def _go_on_after(self, attempt: Attempt, error: Exception) -> None:
        """A try has ended without an answer: returns when the request waits for the next one. Raises what its
        caller is told."""
        if isinstance(error, Recalled):
            attempt.is_back = True
        elif isinstance(error, WorkerCrashed):
            await self._again_after(attempt, error)
        else:
            raise attempt.told(error)

    async def _again_after(self, attempt: Attempt, crash: WorkerCrashed) -> None:
        """The interpreter died with it: returns when it waits for another try. Raises where there is none."""
        said = attempt.crashed(crash)
        if not crash.may_have_started:
            attempt.losses += 1
            if attempt.losses > MOST_LOSSES or not self._stays(attempt.request):
                raise said
            attempt.entered = time.monotonic()
        else:
            pause = self.policy.retry_backoff * 2 ** (attempt.number - 1) * random.uniform(0.5, 1.0)
            if not self._may_retry(attempt, pause):
                raise said
            self.story.retried(attempt.request, attempt.number + 1, pause, crash)
            try:
                await self._waiting_room.unless_closed(asyncio.sleep(pause))
            except Closing as closing:
                raise attempt.closed(closing.began) from None
            attempt.number += 1
            attempt.entered = time.monotonic()
        self._waits_again(attempt)

    def _waits_again(self, attempt: Attempt) -> None:
        attempt.is_back = True
        if self.admission.verdict_for(attempt.request.id) is None:
            self._came_back(attempt)

    def _came_back(self, attempt: Attempt) -> None:
        self.admission.come_back(attempt.request.id, *attempt.terms)

    def _took(self, seconds: float) -> None:
        self.admission.took(seconds)
        self._care.answered()

    def _budget(self, request: pb.Request) -> float | None:
        if request.options.default_budget:
            command = self.keeper.command(request.command)
            if command is not None and command.timeout is not None:
                return command.timeout
        return request.budget_ms / 1000 if request.budget_ms else None

    def _may_retry(self, attempt: Attempt, pause: float) -> bool:
        request = attempt.request
        if attempt.sink is not None or not self._stays(request):
            return False
        in_time = time.monotonic() + pause < attempt.ends_at
        return in_time and self.is_idempotent(request) and attempt.number <= request.options.retries

    def _stays(self, request: pb.Request) -> bool:
        """Whether it may wait here for another try: else the worker that it came from tries again, where it
        may move."""
        return not request.options.hops or request.options.may_wait

    def is_idempotent(self, request: pb.Request) -> bool:
        """Whether running it twice does no harm: its caller or its command says so."""
        command = self.keeper.command(request.command)
        return bool(request.options.idempotent) or (command is not None and command.idempotent)

    async def _try(self, attempt: Attempt, on_slot: OnSlot | None) -> Done | Relayed:
        request = attempt.request
        request.attempt = attempt.number
        is_held_up = bool(request.session) and self.is_held_up(request.id)
        if attempt.is_back or is_held_up or not self.admission.start_now(request.id):
            # Another worker would not know that it must not run again.
            attempt.may_move = attempt.may_move and not self.must_not_run_again(request)
            relayed = await self._waiting_room.enter(attempt)
            if relayed is not None:
                return relayed
        # It has a slot of the interpreter that serves: nothing is awaited until it is in the book of what
        # runs there.
        attempt.is_back = False
        if self.must_not_run_again(request):
            raise attempt.begun_elsewhere()
        undo = None if on_slot is None else on_slot()
        now, interpreter = time.monotonic(), self.keeper.interpreter
        if now >= attempt.ends_at:
            raise TooLate(False)
        assert interpreter is not None
        try:
            beside = self.cargo.beside(request) if self.cargo.buffers else ()
            answer = await self._runs.run(attempt, interpreter, self.ports.record.begins, beside)
        except (Recalled, WorkerCrashed) as error:
            if undo is not None and not getattr(error, "may_have_started", False):
                undo()
            raise
        if listening["worker.request"]:
            self.story.ran(request, answer.reply)
        return Done(answer, now - attempt.began, attempt.number, interpreter.child.pid)

    def recall(self, ids: list[str]) -> list[str]:
        """Takes requests back that have not begun in their interpreter (see Running)."""
        return self._runs.recall(ids)

    def has_begun(self, request_id: str) -> bool:
        """Whether a request has begun in its interpreter, or nobody knows."""
        return self._runs.has_begun(request_id)

    def is_held_up(self, request_id: str) -> bool:
        """A session's switch point: its request does not enter an interpreter while another of it is in the
        one before."""
        session = self._present[request_id].request.session
        return bool(session) and self._runs.elsewhere(session, self.keeper.interpreter)

    def must_not_run_again(self, request: pb.Request) -> bool:
        """Whether it may have begun in an earlier life of this worker, and a second run may do harm: Ray
        sends a request again when its actor has died."""
        return self.ports.record.begun_before(request) > 0 and not self.is_idempotent(request)
