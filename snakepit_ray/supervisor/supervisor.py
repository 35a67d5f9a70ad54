"""One worker: its interpreter, the requests that run in it, and what a pool asks of a worker.

Rules:
- A slot is held until the interpreter has answered, also when nobody waits for the answer any more.
- When an interpreter is lost only what ran in it fails. The waiting stay for the next one.
- Requests go through `dispatch`, which has rules of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from snakepit_ray.core.worker.lifecycle import WorkerEvent, WorkerState
from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.errors import SnakepitError
from snakepit_ray.supervisor.accounts import Accounts, Counters
from snakepit_ray.supervisor.attempt import Attempt
from snakepit_ray.supervisor.care import Care
from snakepit_ray.supervisor.cargo import Cargo
from snakepit_ray.supervisor.dispatch import Dispatch, OnSlot
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.keeper import Keeper
from snakepit_ray.supervisor.life import Life
from snakepit_ray.supervisor.outcomes import Done, Relayed
from snakepit_ray.supervisor.policy import WorkerPolicy
from snakepit_ray.supervisor.ports import Ports
from snakepit_ray.supervisor.serving import Serving
from snakepit_ray.supervisor.story import Story
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Epoch
from snakepit_ray.wire.host_call import HostHandler


class Load(NamedTuple):
    """How busy a worker is: slots that a request arriving now could start on, waiting requests that may move,
    since when the oldest of them waits (None: there is none), and all that wait or run."""

    free: int
    movable: int
    oldest_movable_at: float | None
    total: int


class Supervisor:
    """One worker. `make_spec` is asked before each start of an interpreter. `ports` makes what the worker has
    around it; it gets the supervisor before that is complete, to keep and not to use.

    Whoever serves requests takes `dispatch`, `accounts` and `cargo` from it. `clock` is time.monotonic, as
    that of the event loop."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.worker_id = worker_id
        self.pool = pool
        self.policy = policy
        self.counters = counters or Counters()
        self.cargo = Cargo()
        self.ports = ports(self)
        self.story = Story(pool, worker_id, lambda: self.epoch, clock)
        self.accounts = Accounts(self.counters, self.story, clock)
        self._serving = Serving(incarnation)
        limited = policy.care.limits.max_requests is not None
        self.dispatch = Dispatch(
            worker_id,
            pool,
            policy,
            self.ports,
            self._serving,
            self.story,
            self.counters,
            self.cargo,
            takes_more=self._takes_more if limited else None,
            items_left=self._items_left if limited else None,
            answered=self._answered if limited else None,
            clock=clock,
        )
        self.admission = self.dispatch.admission
        self._runs = self.dispatch.runs
        self.life = Life(
            self.admission,
            self._runs,
            self.story,
            self.counters,
            self.ports.pool,
            look_after=lambda interpreter: self._care.begin(interpreter),
            replacing=lambda stage: self._care.replacing(stage),
        )
        self.keeper = Keeper(
            make_spec,
            self._serving,
            on_host_call,
            forward,
            self.life,
            overlap=policy.overlap,
            clock=clock,
        )
        self._care = Care(
            policy.care, self.keeper, self._serving, self._runs, self.story, self.admission.look_again, clock
        )
        self._has_said_its_end = False

    # ---- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the interpreter and keeps one running from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        await self.keeper.start()

    async def try_to_start(self) -> None:
        """`start` where nobody hears what it raises: it is among the worker's events."""
        began = self.clock()
        try:
            await self.keeper.start()
        except SnakepitError as error:
            self.story.start_failed(error, self.clock() - began)

    def leave(self) -> None:
        """The pool shrinks: this worker takes no new work of its own. Safe to repeat."""
        self.life.happened(WorkerEvent.LEAVE)

    def recycle(self) -> None:
        """Wishes for a planned replacement of the interpreter."""
        self.keeper.recycle(Reason.MANUAL)

    async def stop(self) -> None:
        """Ends the interpreter; all that is present ends with PoolClosed. Safe to repeat."""
        self.life.happened(WorkerEvent.STOP)
        self.dispatch.stop()
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

    def _takes_more(self, occupied: int, is_full: bool) -> bool:
        return self._care.takes_more(occupied, is_full)

    def _items_left(self, occupied: int) -> int:
        return self._care.items_left(occupied)

    def _answered(self) -> None:
        self._care.answered()

    # ---- what it is like ----------------------------------------------------------------------------------

    @property
    def state(self) -> WorkerState:
        """What the worker is doing."""
        return self.life.state

    @property
    def takes_none(self) -> bool:
        """Whether requests that may move go elsewhere, because this worker drains or is quarantined."""
        return self.admission.sends_away

    @property
    def interpreter(self) -> Interpreter | None:
        """The present interpreter, or the last one while the next is starting."""
        return self._serving.interpreter

    @property
    def epoch(self) -> Epoch:
        """Which interpreter serves; between two, the one to come."""
        epoch = self._serving.epoch
        return Epoch(epoch.incarnation, epoch.number)

    @property
    def timeouts(self) -> tuple[tuple[str, float], ...]:
        """The timeouts that the interpreter's commands declare, in seconds."""
        return self._serving.timeouts

    def why_ended(self, epoch_number: int) -> str:
        """`recycled` or `crashed`: how the interpreter of that epoch ended."""
        return self.life.why_ended(epoch_number)

    def last_events(self, count: int) -> list[str]:
        """The newest events of the worker's life, the oldest of them first."""
        return self.story.last(count)

    async def memory(self) -> int:
        """Bytes of the interpreter and its children, as worker_max_memory counts them; 0 without one."""
        interpreter = self.interpreter
        if interpreter is None:
            return 0
        return await asyncio.to_thread(self._care.memory, interpreter) or 0

    # ---- requests -----------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Requests that have a slot of an interpreter, also of one that only finishes."""
        return max(0, len(self._runs) - len(self.admission.slots.ahead))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self.admission.waiting

    @property
    def movable(self) -> int:
        """Waiting requests that may move to another worker."""
        return self.admission.queue.movable

    @property
    def free(self) -> int:
        """Slots that a request arriving now could start on."""
        return self.admission.free

    def next_change(self) -> asyncio.Event:
        """Set by the next change of the slots or of what waits (see Admission.next_change)."""
        return self.admission.next_change()

    def load(self) -> Load:
        """How busy the worker is. A slot counts only while an interpreter serves."""
        admission, queue = self.admission, self.admission.queue
        free = admission.free if self.life.state is WorkerState.READY else 0
        total, movable = admission.slots.running + admission.waiting, admission.movable
        return Load(free, movable, queue.oldest_movable_at() if movable else None, total)

    def limit_queue(self, limit: int | None) -> None:
        """So many requests may wait; None: without a bound."""
        self.admission.queue.limit = limit

    def move(self, count: int, target: str) -> int:
        """Sends up to `count` waiting requests to the worker `target`; how many went."""
        return self.admission.move(count, target)

    def drop(self, is_orphan: Callable[[str], bool]) -> int:
        """Cancels the requests whose ids say that their caller is gone; how many."""
        return self.dispatch.drop(is_orphan)

    def beside(self, request: pb.Request) -> Sequence[Any]:
        """The buffers that `request` names by index; none for most."""
        return self.cargo.beside(request)

    def attempt_of(self, request_id: str) -> Attempt | None:
        """The request of that id; None where it is in no interpreter."""
        return self._runs.attempt_of(request_id)

    def is_idempotent(self, request: pb.Request) -> bool:
        """Whether running it twice does no harm: its caller or its command says so."""
        return self.dispatch.is_idempotent(request)

    async def execute(
        self, request: pb.Request, *, may_move: bool, on_slot: OnSlot | None = None
    ) -> Done | Relayed:
        """`dispatch.run` of a request that is counted here."""
        with self.accounts.opened(request) as account:
            outcome = await self.dispatch.run(request, may_move=may_move, on_slot=on_slot)
            account.is_(outcome)
            return outcome
