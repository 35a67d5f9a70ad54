"""What becomes of a worker as its interpreters come, fail and go, as the keeper says.

Rules:
- The state changes by core/worker/lifecycle.py's table and nowhere else.
- Requests are let in while an interpreter serves, and wait while none does.
- What ran in a lost interpreter fails in the words of its end. What waits goes on.
- Why an interpreter was lost is remembered, so that sessions can be told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from snakepit_ray.core.worker.lifecycle import WorkerEvent, WorkerState, step
from snakepit_ray.core.worker.recycling import Reason, Stage
from snakepit_ray.core.worker.restarts import Quarantine
from snakepit_ray.errors import WorkerCrashed
from snakepit_ray.process import Exit
from snakepit_ray.supervisor.accounts import Counters
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.handover import Handover
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.ports import PoolSide
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.story import Story
from snakepit_ray.telemetry import Why

log = logging.getLogger("snakepit_ray.worker")
ENDINGS = 100  # epochs whose ending is remembered; of more, the oldest are taken for crashes


class Life:
    """One worker's state, and what changes it. `look_after`: takes care of an interpreter that serves from
    now on. `replacing`: how far the replacement of the present one is."""

    def __init__(
        self,
        admission: Admission,
        running: Running,
        story: Story,
        counters: Counters,
        pool: PoolSide,
        look_after: Callable[[Interpreter], None],
        replacing: Callable[[Stage], None],
        handover: Handover,
    ) -> None:
        self.state = WorkerState.STARTING
        self._look_after = look_after
        self._replacing = replacing
        self._handover = handover
        self._admission = admission
        self._running = running
        self._story = story
        self._counters = counters
        self._pool = pool
        self._lost_for = Why.CRASH_EXIT  # the last interpreter
        self._recycled: dict[int, None] = {}  # numbers of epochs that ended on purpose

    def happened(self, event: WorkerEvent) -> None:
        """Moves the state; whoever must know is told."""
        before, self.state = self.state, step(self.state, event)
        if self.state is not before:
            self._admission.sends_away = self.state in (WorkerState.DRAINING, WorkerState.QUARANTINED)
            self._story.tell(f"{before} -> {self.state}")
            try:
                self._pool.state_changed(self.state)
            except Exception:  # who listens cannot break what it listens to: an interpreter begins or ends
                log.exception("a listener of the worker's state failed")

    def why_ended(self, epoch_number: int) -> str:
        """`recycled` or `crashed`: how the interpreter of that epoch ended."""
        return "recycled" if epoch_number in self._recycled else "crashed"

    # ---- what the keeper says -----------------------------------------------------------------------------

    def serving(self, interpreter: Interpreter, number: int) -> None:
        """It takes requests from now on, as that epoch; the one before, if it lives, only finishes."""
        self._story.initialized(time.time() - interpreter.began_at, interpreter.child.pid)
        self._admission.renew(may_go_ahead=interpreter.has_marks)
        self._look_after(interpreter)
        self.happened(WorkerEvent.SERVING)
        self._handover.serving(interpreter, number)
        self._admission.set_open(True)

    def leaves(self, interpreter: Interpreter, epoch_number: int) -> None:
        """It is about to be replaced on purpose, and its sessions move."""
        self.replaced(epoch_number)
        self._handover.leaves(interpreter)

    def replaced(self, epoch_number: int) -> None:
        """The interpreter of that epoch ends on purpose: what it holds is not lost by a failure."""
        self._recycled[epoch_number] = None
        while len(self._recycled) > ENDINGS:
            del self._recycled[next(iter(self._recycled))]

    def down(self) -> None:
        """No interpreter takes requests: the waiting stay."""
        self._admission.set_open(False)
        self.happened(WorkerEvent.DOWN)

    def ended(self, interpreter: Interpreter, exit: Exit) -> None:
        """It is gone, not by our wish: what ran in it is lost."""
        story = self._story.last()

        def crash(begun: int | None) -> WorkerCrashed:
            return WorkerCrashed.from_exit(
                interpreter.spec.worker_id,
                exit.returncode,
                exit.stderr_tail,
                exit.argv,
                begun=begun,
                cause=interpreter.condemned,
                story=story,
            )

        lost, last = self._running.lose(interpreter, crash), crash(None)
        self._lost_for = interpreter.condemned_for or (Why.CRASH_SIGNAL if last.signal else Why.CRASH_EXIT)
        self._story.crashed(time.time() - interpreter.started_at, last, lost, self._lost_for)

    def holds(self, interpreter: Interpreter) -> bool:
        """Whether something runs in it."""
        return bool(self._running.of(interpreter))

    async def finished(self, interpreter: Interpreter) -> None:
        """Waits until nothing runs in it, and its sessions have left it."""
        await self._handover.out_of(interpreter)

    def start_failed(self, error: Exception, seconds: float) -> None:
        """A replacement could not be started, after so many seconds."""
        self._story.start_failed(error, seconds)
        self._replacing(Stage.FAILED)

    def restarted(self, attempt: int, delay: float) -> None:
        """A lost interpreter was replaced."""
        self._counters.restarts += 1
        self._story.restarted(attempt, delay, self._lost_for)

    def recycled(self, interpreter: Interpreter, reason: Reason) -> None:
        """It was replaced on purpose and has ended."""
        self._counters.recycled += 1
        self._story.recycled(time.time() - interpreter.started_at, interpreter.served, reason)

    def quarantined(self, quarantine: Quarantine) -> None:
        """The restart budget is spent."""
        self._story.quarantined(quarantine)
        self.happened(WorkerEvent.EXHAUSTED)

    def retry(self) -> None:
        """The quarantine is over: the next start is tried."""
        self.happened(WorkerEvent.RETRY)

    async def may_recycle(self) -> bool:
        """Whether this worker may be one of those that recycle now."""
        permitted = self.state is WorkerState.READY and await self._pool.may_recycle()
        self._replacing(Stage.STARTS if permitted else Stage.DENIED)
        return permitted

    def recycling_over(self) -> None:
        """The permit is free again."""
        self._pool.recycling_over()

    def replacement_ready(self) -> None:
        """A planned replacement is ready to serve."""
        self._replacing(Stage.READY)
