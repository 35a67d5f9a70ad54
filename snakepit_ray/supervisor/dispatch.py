"""The requests at one worker: lets each in, runs it or hands it on, tries it again, and gives it its outcome.

Rules:
- Exactly one outcome for each request. What did not start never runs.
- `present` is the book of all requests that have no outcome yet. Whatever raises between a request's arrival
  and its outcome is that request's outcome, and `run` then takes everything back that the request holds.
- From the moment when a request has its slot until it is sent nothing is awaited, so that slot and
  interpreter belong together.
- One budget covers waiting and running.
- A session's next request enters a new interpreter when its last one has left the old."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from snakepit_ray.core.tools.ages import Age, Holder, may_wait
from snakepit_ray.errors import WorkerBusy, WorkerCrashed, WorkerFault
from snakepit_ray.supervisor.accounts import Counters
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.attempt import Attempt
from snakepit_ray.supervisor.cargo import Cargo
from snakepit_ray.supervisor.outcomes import Closing, Done, Recalled, Relayed, Sink, TooLate
from snakepit_ray.supervisor.policy import WorkerPolicy
from snakepit_ray.supervisor.ports import Ports
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.serving import Serving
from snakepit_ray.supervisor.story import Story
from snakepit_ray.supervisor.waiting_room import WaitingRoom
from snakepit_ray.telemetry import listening
from snakepit_ray.wire._pb import interpreter_pb2 as pb

MOST_LOSSES = 5  # interpreters that may die with one request before they begin it: it may be what kills them

OnSlot = Callable[[], Callable[[], None] | None]


class Dispatch:
    """The requests of one worker. `takes_more(occupied, is_full)`: whether another one may start beside so
    many, None: always. `items_left(occupied)`: how many items of a batch may begin that is one of so many
    requests, 0 or None: all. `answered` is called when an interpreter has answered, None: nobody asks.
    `is_on_its_way(session)`: whether the state of a session is in no interpreter now."""

    def __init__(
        self,
        worker_id: str,
        pool: str,
        policy: WorkerPolicy,
        ports: Ports,
        serving: Serving,
        story: Story,
        counters: Counters,
        cargo: Cargo,
        takes_more: Callable[[int, bool], bool] | None,
        items_left: Callable[[int], int] | None,
        answered: Callable[[], None] | None,
        is_on_its_way: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.present: dict[str, Attempt] = {}
        self._waiting_for: Counter[str] = Counter()  # calls of a command that it waits for, by its request
        self.admission = Admission(policy.capacity, policy.queue_limit, clock, ports.pool, self, takes_more)
        took = self.admission.took if answered is None else self._took
        self.runs = Running(policy.cancel_grace, self.admission.release, took, self._came_back, clock)
        self.waiting_room = WaitingRoom(self.admission, ports.others, story, counters, pool=pool, clock=clock)
        self._worker_id = worker_id
        self._pool = pool
        self._record = ports.record
        self._serving = serving
        self._story = story
        self._cargo = cargo
        self._retry_backoff = policy.retry_backoff
        self._answered = answered
        self._items_left = items_left
        self._is_on_its_way = is_on_its_way

    def stop(self) -> None:
        """Nobody is let in any more, and nobody waits."""
        self.waiting_room.close()
        self.runs.refuse()

    def drop(self, is_orphan: Callable[[str], bool]) -> int:
        """Cancels the requests whose ids say that their caller is gone; how many."""
        orphans = [attempt.task for request_id, attempt in self.present.items() if is_orphan(request_id)]
        for task in orphans:
            task.cancel()
        return len(orphans)

    async def run(
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
        attempt = self._enter(request, sink)
        attempt.may_move = may_move
        try:
            while True:
                try:
                    return await self._try(attempt, on_slot)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told from here
                    await self._go_on_after(attempt, error)
        except BaseException as error:
            if request.id not in self.runs:
                was_waiting = self.admission.leave(request.id)
                if was_waiting and isinstance(error, asyncio.CancelledError):
                    self._story.dropped(request, attempt.waited)
            raise
        finally:
            del self.present[request.id]
            self._waiting_for.pop(request.id, None)

    def _enter(self, request: pb.Request, sink: Sink | None) -> Attempt:
        if request.id in self.present:
            raise WorkerFault(
                f"worker {self._worker_id} has a request {request.id!r} already: an id is used once. Nothing "
                "was executed"
            )
        task = asyncio.current_task()
        assert task is not None
        attempt = self.present[request.id] = Attempt(
            request,
            self._budget(request),
            self._record.begun_before,
            task,
            sink=sink,
            worker_id=self._worker_id,
            pool=self._pool,
            clock=self._clock,
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
            attempt.entered = self._clock()
        else:
            pause = self._retry_backoff * 2 ** (attempt.number - 1) * random.uniform(0.5, 1.0)
            if not self._may_retry(attempt, pause):
                raise said
            self._story.retried(attempt.request, attempt.number + 1, pause, crash)
            try:
                await self.waiting_room.unless_closed(asyncio.sleep(pause))
            except Closing as closing:
                raise attempt.closed(closing.began) from None
            attempt.number += 1
            attempt.entered = self._clock()
        self._waits_again(attempt)

    def _waits_again(self, attempt: Attempt) -> None:
        attempt.is_back = True
        if self.admission.verdict_for(attempt.request.id) is None:
            self._came_back(attempt)

    def _took(self, seconds: float) -> None:
        self.admission.took(seconds)
        if self._answered is not None:
            self._answered()

    def _came_back(self, attempt: Attempt) -> None:
        self.admission.come_back(attempt.request.id, *attempt.terms)

    def _budget(self, request: pb.Request) -> float | None:
        if request.options.default_budget:
            command = self._serving.command(request.command)
            if command is not None and command.timeout is not None:
                return command.timeout
        return request.budget_ms / 1000 if request.budget_ms else None

    def _may_retry(self, attempt: Attempt, pause: float) -> bool:
        request = attempt.request
        if attempt.sink is not None or not self._stays(request):
            return False
        in_time = self._clock() + pause < attempt.ends_at
        return in_time and self.is_idempotent(request) and attempt.number <= request.options.retries

    def _stays(self, request: pb.Request) -> bool:
        """Whether it may wait here for another try: else the worker that it came from tries again, where it
        may move."""
        return not request.options.hops or request.options.may_wait

    def is_idempotent(self, request: pb.Request) -> bool:
        """Whether running it twice does no harm: its caller or its command says so."""
        command = self._serving.command(request.command)
        return bool(request.options.idempotent) or (command is not None and command.idempotent)

    async def _try(self, attempt: Attempt, on_slot: OnSlot | None) -> Done | Relayed:
        request = attempt.request
        request.attempt = attempt.number
        is_held_up = fails_fast = False
        if request.session:
            is_held_up = self.is_held_up(request.id)
            fails_fast = request.options.affinity == pb.AFFINITY_STRICT_FAIL_FAST
        if attempt.is_back or is_held_up or not self.admission.start_now(request.id, not fails_fast):
            if fails_fast and not attempt.is_back:
                raise self._busy(request)
            # Another worker would not know that it must not run again.
            attempt.may_move = attempt.may_move and not self.must_not_run_again(request)
            relayed = await self.waiting_room.enter(attempt)
            if relayed is not None:
                return relayed
        # It has a slot of the interpreter that serves: nothing is awaited until it is in the book of what
        # runs there.
        attempt.is_back = False
        if self.must_not_run_again(request):
            raise attempt.begun_elsewhere()
        inside = self.admission.inside
        request.inside = inside.get(request.id, "") if inside else ""
        undo = None if on_slot is None else on_slot()
        now, interpreter = self._clock(), self._serving.interpreter
        if now >= attempt.ends_at:
            raise TooLate(False)
        assert interpreter is not None
        try:
            beside = self._cargo.beside(request) if self._cargo.buffers else ()
            most = self._most_items(request) if request.batch.share_ms else 0
            answer = await self.runs.run(attempt, interpreter, self._record.begins, beside, most)
        except (Recalled, WorkerCrashed) as error:
            if undo is not None and not getattr(error, "may_have_started", False):
                undo()
            raise
        if listening["worker.request"]:
            self._story.ran(request, answer.reply)
        return Done(answer, now - attempt.began, attempt.number, interpreter.child.pid)

    def _busy(self, request: pb.Request) -> WorkerBusy:
        slots = self.admission.slots
        return WorkerBusy.pinned(request.session, self._worker_id, slots.running, slots.capacity)

    def _most_items(self, request: pb.Request) -> int:
        """How many of its items may begin, of a batch that takes the rest back; 0: all of them."""
        if request.batch.count <= 1 or self._items_left is None:
            return 0
        return self._items_left(self.admission.occupied)

    def recall(self, ids: list[str]) -> list[str]:
        """Takes requests back that have not begun in their interpreter (see Running)."""
        return self.runs.recall(ids)

    def has_begun(self, request_id: str) -> bool:
        """Whether a request has begun in its interpreter, or nobody knows."""
        return self.runs.has_begun(request_id)

    def is_held_up(self, request_id: str) -> bool:
        """A session's switch point: its request does not enter an interpreter while another of it, or its
        state, is in the one before."""
        session = self.present[request_id].request.session
        if not session:
            return False
        return self.runs.elsewhere(session, self._serving.interpreter) or self._is_on_its_way(session)

    # ---- chains of calls ----------------------------------------------------------------------------------

    def is_nested(self, request_id: str) -> bool:
        """Whether a command has made the request, and holds a slot while it waits for that."""
        attempt = self.present.get(request_id)
        return attempt is not None and attempt.request.HasField("chain")

    def outer_of(self, request_id: str) -> str:
        """The request of the same chain that waits in the interpreter that serves, the last of them: its
        command runs this one meanwhile. "" for none."""
        attempt, interpreter = self.present[request_id], self._serving.interpreter
        if interpreter is None or not interpreter.nests or not attempt.may_nest:
            return ""
        age = _age(attempt)
        waiting = [
            (len(other.request.chain.calls), one)
            for one, count in self._waiting_for.items()
            if count > 0 and (other := self.present.get(one)) is not None
            if _age(other) == age and self.runs.are_in(one, interpreter)
        ]
        return max(waiting, default=(0, ""))[1]

    def may_wait(self, request_id: str, holders: Sequence[str]) -> bool:
        """Whether the chain of a nested request may wait while those requests have the slots."""
        held = [holder for one in holders if (holder := self._holder(one)) is not None]
        # One that nobody waits for any more ends soon, and is none of them.
        return may_wait(_age(self.present[request_id]), held, self.admission.slots.capacity)

    def _holder(self, request_id: str) -> Holder | None:
        attempt = self.present.get(request_id)
        if attempt is None:
            return None
        # A stream that a command takes waits for that command.
        sink = attempt.sink if attempt.request.HasField("chain") else None
        is_held_up = sink is not None and sink.is_held_up
        return Holder(_age(attempt), is_held_up or self._waiting_for[request_id] > 0)

    def waits_for_pool(self, request_id: str, waits: bool) -> None:
        """A command waits for a pool that it has called; or one such wait is over."""
        if request_id in self.present:
            self._waiting_for[request_id] += 1 if waits else -1
            if waits:
                self.admission.look_again()

    def must_not_run_again(self, request: pb.Request) -> bool:
        """Whether it may have begun in an earlier life of this worker, and a second run may do harm: Ray
        sends a request again when its actor has died."""
        return self._record.begun_before(request) > 0 and not self.is_idempotent(request)


def _age(attempt: Attempt) -> Age:
    """Of the chain that the request belongs to; a request that no command has made begins one."""
    request = attempt.request
    if request.HasField("chain"):
        return Age(request.chain.began_ms, request.chain.root)
    return Age(attempt.came_ms, request.id)
