"""Knows one worker: lets requests in, runs them or hands them on, and accounts for each.

Rules: exactly one outcome for each request; what did not start never runs; a slot is held until the
interpreter has answered, also when nobody waits for the answer any more; one budget covers waiting and
running; when an interpreter is lost only what ran in it fails, the waiting stay for the next one; a session's
next request enters a new interpreter when its last one has left the old."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.core.lifecycle import WorkerEvent, WorkerState
from snakepit_ray.core.recycling import Reason
from snakepit_ray.errors import DeadlineExceeded, NotNow, SnakepitError, WorkerCrashed
from snakepit_ray.rpc.client import HostHandler
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.care import Care, CarePolicy
from snakepit_ray.supervisor.cargo import Cargo
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.keeper import Keeper
from snakepit_ray.supervisor.life import Life
from snakepit_ray.supervisor.outcomes import Counters, Done, Recalled, Relayed, Sink
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.story import Story
from snakepit_ray.supervisor.surroundings import Surroundings
from snakepit_ray.supervisor.waiting_room import Attempt, WaitingRoom

MOST_LOSSES = 5  # interpreters that may die with one request before they begin it: it may be what kills them


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
    """One worker. `make_spec` is asked before each start of an interpreter."""

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
        around: Surroundings | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.pool = pool
        self.policy = policy
        self.counters = Counters()
        self.cargo = Cargo()
        self.around = around or Surroundings()
        self.story = Story(pool, worker_id, lambda: self.epoch)
        self.admission = Admission(policy.capacity, policy.queue_limit, time.monotonic)
        self._runs = Running(policy.cancel_grace, self.admission.release, self.admission.took)
        self.admission.recall = self._runs.recall
        self.life = Life(self.admission, self._runs, self.story, self.counters, self.around)
        self.keeper = Keeper(make_spec, incarnation, on_host_call, forward, self.life, overlap=policy.overlap)
        self._waiting_room = WaitingRoom(
            self.admission, self.around, self.story, self.counters, worker_id=worker_id, pool=pool
        )
        self._care = Care(policy.care, self.keeper, self._runs, self.story)
        self.life.looked_after = self._care.begin
        self._present: dict[str, asyncio.Task[object]] = {}

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
        """Ends the interpreter; what waits or runs is refused. Safe to repeat."""
        self.life.happened(WorkerEvent.STOP)
        self._waiting_room.close()
        self._runs.refuse(self._waiting_room.closed())
        self._care.stop()
        await self.keeper.stop()

    def kill_now(self) -> None:
        """Ends the interpreter and what it started, at once: this process is about to end."""
        self.keeper.kill_now()

    @property
    def state(self) -> WorkerState:
        """What the worker is doing."""
        return self.life.state

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
        """Requests that have a slot of an interpreter, also of one that only finishes."""
        return max(0, len(self._runs) - len(self.admission.slots.ahead))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self.admission.waiting

    def drop(self, is_orphan: Callable[[str], bool]) -> int:
        """Cancels the requests whose ids say that their caller is gone; how many."""
        orphans = [task for request_id, task in self._present.items() if is_orphan(request_id)]
        for task in orphans:
            task.cancel()
        return len(orphans)

    # ---- requests -----------------------------------------------------------------------------------------

    async def execute(
        self,
        request: pb.Request,
        *,
        may_move: bool,
        on_slot: Callable[[], None] | None = None,
        sink: Sink | None = None,
    ) -> Done | Relayed:
        """Runs `request` here, or hands it on while it waits. Raises the typed error of whatever went wrong.

        `on_slot` is called when the slot is held and before anything is sent; it may raise. An idempotent
        request is tried again after a crash, within its budget and `options.retries`; a stream, whose chunks
        go into `sink`, never: its consumer may have seen some."""
        first_here = (
            not request.options.hops
        )  # requests and errors are counted once, where they first arrived
        size = request.batch.count or 1
        self.counters.requests += first_here * size
        attempt = Attempt(request, self._budget(request), sink)
        task = asyncio.current_task()
        assert task is not None
        self._present[request.id] = task
        try:
            done = await self._until_done(attempt, may_move, on_slot)
            self.story.executed(request, attempt.began, "")
            return done
        except SnakepitError as error:
            begun = error.begun if isinstance(error, WorkerCrashed) else None  # the others come again
            self.counters.errors += first_here * (begun or size)
            self.story.executed(request, attempt.began, type(error).__name__)
            raise
        finally:
            self._present.pop(request.id, None)

    async def _until_done(
        self, attempt: Attempt, may_move: bool, on_slot: Callable[[], None] | None
    ) -> Done | Relayed:
        crash: WorkerCrashed | None = None
        while True:
            try:
                return await self._try(attempt, may_move, on_slot)
            except Recalled:
                attempt.recalled = True
                continue
            except WorkerCrashed as error:
                if not error.may_have_started and self._stays(attempt.request):
                    self._lost_unbegun(attempt, error)
                    continue
                crash = error
                pause = self.policy.retry_backoff * 2 ** (attempt.number - 1) * random.uniform(0.5, 1.0)
                if not self._may_retry(attempt, pause):
                    raise
            except NotNow as error:
                if crash is None and not self.around.begun_before(attempt.request):
                    raise
                # It has begun once, here or elsewhere: "not executed" would be wrong.
                raise crash or self._earlier_crash(attempt.request) from error
            await asyncio.sleep(pause)
            attempt.number += 1
            attempt.entered = time.monotonic()

    def _lost_unbegun(self, attempt: Attempt, error: WorkerCrashed) -> None:
        """It waits for the next interpreter as if it had never left the queue. Raises `error` in the end."""
        attempt.losses += 1
        if attempt.losses > MOST_LOSSES:
            raise error
        attempt.entered = time.monotonic()
        attempt.recalled = True
        if attempt.place is None:
            attempt.place = self.admission.queue.next_seq()

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
        in_time = attempt.left is None or attempt.left > pause
        return in_time and self.is_idempotent(request) and attempt.number <= request.options.retries

    def _stays(self, request: pb.Request) -> bool:
        """Whether it may wait here for another try: else the worker that it came from tries again, where it
        may move."""
        return not request.options.hops or request.options.may_wait

    def is_idempotent(self, request: pb.Request) -> bool:
        """Whether running it twice does no harm: its caller or its command says so."""
        command = self.keeper.command(request.command)
        return bool(request.options.idempotent) or (command is not None and command.idempotent)

    async def _try(
        self, attempt: Attempt, may_move: bool, on_slot: Callable[[], None] | None
    ) -> Done | Relayed:
        request = attempt.request
        request.attempt = attempt.number
        may_move = may_move and not self.must_not_run_again(request)  # another worker would not know
        if attempt.recalled or not self.admission.start_now(request.id):
            relayed = await self._waiting_room.enter(attempt, may_move)
            if relayed is not None:
                return relayed
        attempt.recalled, attempt.place = False, self.admission.place_of(request.id)
        try:
            self._refuse_a_second_run(request)
            if request.session:
                await self._session_may_enter(attempt)
            if on_slot is not None:
                on_slot()
            interpreter, waited = self._entering(attempt)
        except BaseException:
            self.admission.release(request.id)
            raise
        answer = await self._runs.run(
            request,
            interpreter,
            attempt.left,
            attempt.budget,
            mark=self.around.begins(request, interpreter.ready.marks),
            sink=attempt.sink,
            beside=self.cargo.beside(request),
        )
        reply, done = answer.reply, Done(answer, waited, attempt.number, interpreter.child.pid)
        self.around.ended(request, done)
        self._care.answered()
        if not request.options.hops:
            self.counters.errors += len(reply.failures) or reply.HasField("failure") * (
                request.batch.count or 1
            )
        self.story.ran(request, reply)
        return done

    def must_not_run_again(self, request: pb.Request) -> bool:
        """Whether it may have begun in an earlier life of this worker, and a second run may do harm."""
        return self.around.begun_before(request) and not self.is_idempotent(request)

    def _refuse_a_second_run(self, request: pb.Request) -> None:
        """Ray sends a request again when its actor has died: what had begun then runs again only if that does
        no harm."""
        if self.must_not_run_again(request):
            raise self._earlier_crash(request)

    def _earlier_crash(self, request: pb.Request) -> WorkerCrashed:
        return WorkerCrashed(
            f"worker {self.worker_id} died while command {request.command!r} ran in it; the command may "
            "have had its effects, so it is not sent again unless it is idempotent (idempotent=True)",
            worker_id=self.worker_id,
            may_have_started=True,
        )

    async def _session_may_enter(self, attempt: Attempt) -> None:
        """A session's switch point: waits until none of its requests is in an interpreter before this one."""
        while self._runs.elsewhere(attempt.request.session, self.interpreter):
            try:
                await asyncio.wait_for(self._runs.fewer(), attempt.left)
            except asyncio.TimeoutError:
                raise DeadlineExceeded.after(
                    attempt.budget or 0.0, "waiting", attempt.request.command
                ) from None

    def _entering(self, attempt: Attempt) -> tuple[Interpreter, float]:
        """The interpreter that the request enters now, and how long it has waited."""
        if attempt.left is not None and attempt.left <= 0:
            raise DeadlineExceeded.after(attempt.budget or 0.0, "waiting", attempt.request.command)
        assert self.interpreter is not None
        return self.interpreter, attempt.waited
