"""Calls leave this process here, and what their failure means is said here.

- Nothing here waits, except `value`. A request, or a batch of them, goes straight to a worker: as one Ray
  actor call, or by the worker's lane (ways.py) where nobody asks for an ObjectRef.
- What cannot be sent fails before anything has left.
- Every call that is sent has a deadline at the caller: the budget that its worker keeps it to, and a
  margin for the answer to travel. It is what ends a call whose worker is stopped, cut off or being restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from snakepit_ray.client import answers, pending, stores
from snakepit_ray.client.directory import Directory
from snakepit_ray.client.inbox import LaneLost
from snakepit_ray.client.lanes import Waits
from snakepit_ray.client.pending import Ticket
from snakepit_ray.client.talks import Access
from snakepit_ray.client.ways import Ways
from snakepit_ray.config import Affinity, CallOptions
from snakepit_ray.core.work.batch_size import SHARE
from snakepit_ray.errors import DeadlineExceeded, PayloadTooLarge, PoolClosed, SnakepitError, WorkerCrashed
from snakepit_ray.port import ray_port
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.telemetry.trace_context import Trace, current
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import nbytes, refuse_refs
from snakepit_ray.wire.requests import Drawn, RequestBuilder, drawn_refs, parcel

PIECE = 1000  # items of a batch that are encoded together, at most
PIECE_BYTES = 8 * 1024 * 1024  # of buffers beside them: a piece is not divided further
DEPARTED_MARGIN = 0.5  # seconds by which the router may hear of a death too late
ANSWER_MARGIN = 2.0  # seconds for an answer to travel, beyond the request's own budget


async def awaited(ref: Any) -> Any:
    """A ref as a coroutine: asyncio makes no task of an awaitable that is none."""
    return await ref


def may_block(error: BaseException) -> bool:
    """Whether `Sender.our` asks the router what became of the worker."""
    return isinstance(error, (ray_port.ActorDied, LaneLost))


def is_unbegun(error: BaseException) -> bool:
    """Whether a worker was gone before the call came to it."""
    return isinstance(error, WorkerCrashed) and not error.may_have_started


class Sent(NamedTuple):
    """A call that is under way: the ref of its answer, an ObjectRef or an Answer of a lane, of a stream
    ChunkRefs or an Inbox, and when its caller gives up (time.monotonic())."""

    ref: Any
    command: str
    budget: float
    deadline: float
    worker_id: str
    nbytes: int = 0
    turn: tuple[str, int] | None = None  # its session, and its number among this caller's calls of it
    sent_at: float = 0.0
    again: Callable[[], Sent] | None = None  # sends it once more, to another worker

    @property
    def left(self) -> float:
        """Seconds until its caller gives up."""
        return max(0.0, self.deadline - time.monotonic())


class Sender:
    """Sends the calls of one pool handle. Picklable and small, as what holds it is."""

    def __init__(self, directory: Directory) -> None:
        runtime = resolve_runtime(directory.config.runtime)
        self._directory = directory
        self._ways = Ways(directory)
        self._builder = RequestBuilder(
            directory.config, runtime, ray.ObjectRef, directory.new_id, directory.declared
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Sender, (self._directory,)

    @property
    def pool_name(self) -> str:
        """The name of the pool that the calls go to."""
        return self._directory.config.name

    @property
    def access(self) -> Access:
        """How the pool's handle gets at the store of sessions."""
        return stores.access(self._directory)

    @property
    def slots(self) -> int:
        """Slots of the pool, as far as this process knows the workers."""
        return self._directory.config.capacity * max(1, self._directory.workers)

    def slots_for(self, options: CallOptions) -> int:
        """Slots that such a call may run on: those of one worker in a session."""
        return self._directory.config.capacity if options.session else self.slots

    def fails_fast(self, options: CallOptions) -> bool:
        """Whether such a call waits for no slot."""
        affinity = options.affinity or self._directory.config.affinity
        return options.session is not None and affinity is Affinity.STRICT_FAIL_FAST

    def check_open(self) -> None:
        """Raises PoolClosed when the pool, or the Ray session that it belongs to, has ended."""
        self._directory.check_open()

    def draw(self, command: str, args: Any, number: int = 0) -> Drawn:
        """Encodes a call's arguments now, to be sent later. Raises as `now`."""
        return self._builder.draw(command, args, number)

    def drawer(self, command: str) -> Callable[[Any, int], Drawn]:
        """`draw` for many calls of one command: takes the arguments of each, and its number."""
        return self._builder.drawer(command)

    # ---- out ----------------------------------------------------------------------------------------------

    def now(
        self,
        command: str,
        args: Any,
        options: CallOptions,
        *,
        encoded: bool = False,
        waits: Waits = Waits.REF,
    ) -> Sent:
        """Sends one call. `encoded`: what comes by Ray arrives as an Envelope, which the caller decodes.

        Raises EncodingError, InvalidArguments, PayloadTooLarge, PoolClosed."""
        self._directory.check_open()
        request, values = self._builder.build(command, args, options)
        request.options.encoded = encoded
        return self._sent(request, values, waits)

    def one(
        self,
        command: str,
        drawn: Drawn,
        options: CallOptions,
        *,
        patient: bool = False,
        trace: Trace | None = None,
        waits: Waits = Waits.THREAD,
    ) -> Sent:
        """Sends one call that was drawn, in its caller's trace context. `patient`: it may wait for as long
        as its budget lasts."""
        request, values = self._builder.single(command, drawn, options, trace)
        return self._sent(request, values, waits, patient)

    def some(
        self,
        command: str,
        drawn: Sequence[Drawn],
        options: CallOptions,
        *,
        patient: bool = False,
        prefer: str | None = None,
        traces: Sequence[Trace | None] = (),
        waits: Waits = Waits.THREAD,
    ) -> Sent:
        """Sends calls that one worker runs in one slot, until their share of time is over: the answer is a
        BatchOutcome, whose values may be fewer than the calls. `prefer`: the worker to choose, if it is
        there. `traces`: the trace contexts of the calls, or one for all of them."""
        beside: list[Any] = []
        request = self._builder.batch(command, drawn, options, pb.BATCH_ERRORS_APART, beside, traces)
        request.batch.share_ms = int(SHARE * 1000)
        sent = self._sent(request, parcel(beside), waits, patient, prefer)
        return sent._replace(nbytes=len(request.args.json) + sum(map(nbytes, beside)))

    def all(
        self,
        command: str,
        drawn: Sequence[Drawn],
        options: CallOptions,
        errors: int,
        waits: Waits = Waits.REF,
    ) -> Sent:
        """Sends calls that the worker that gets them spreads over the pool: the answer is their results."""
        if set(map(type, drawn)) != {dict}:
            for number, one in enumerate(drawn):
                refuse_refs(drawn_refs(one), number)
        size = max(1, min(PIECE, len(drawn) // (4 * self.slots_for(options))))
        requests, beside, trace = [], list[Any](), current()

        def build(some: Sequence[Drawn]) -> pb.Request:
            return self._builder.batch(command, some, options, errors, beside, (trace,))

        for begin in range(0, len(drawn), size):
            requests += _pieces(build, drawn[begin : begin + size], beside)
        target = self._directory.target(options.session)
        turn = self._stamp(requests, options.session, target.incarnation)
        # Without a timeout each item has the pool's: the whole may take as long as all of them in turn.
        ref = self._ways.batch(target, requests, parcel(beside), waits)
        budget = requests[0].budget_ms / 1000
        rounds = 1 if options.timeout is not None else -(-len(drawn) // self.slots_for(options))
        return self._under_way(ref, requests[0], budget, budget * rounds, target.worker_id, turn)

    def stream(self, command: str, args: Any, options: CallOptions, *, pack: bool, waits: Waits) -> Sent:
        """Sends a call whose command yields: its ref is an Inbox of a lane, or ChunkRefs. `pack`: the chunks
        come as Parts. Raises as `now`."""
        self._directory.check_open()
        request, values = self._builder.build(command, args, options, stream=True, pack=pack)
        target = self._directory.target(options.session)
        turn = self._stamp([request], options.session, target.incarnation)
        ref = self._ways.stream(target, request, values, waits)
        budget = request.budget_ms / 1000
        return self._under_way(ref, request, budget, budget, target.worker_id, turn)

    def _sent(
        self,
        request: pb.Request,
        values: list[Any],
        waits: Waits,
        patient: bool = False,
        prefer: str | None = None,
    ) -> Sent:
        if patient:
            request.options.queue_ms = request.budget_ms
        if request.HasField("chain"):  # what comes back to a worker of its chain needs no slot there
            prefer = chains.worker_of(request.chain, self.pool_name) or prefer
        target = self._directory.target(request.session or None, prefer)
        turn = self._stamp([request], request.session, target.incarnation)
        ref = self._ways.request(target, request, values, waits)
        budget = request.budget_ms / 1000
        sent = self._under_way(ref, request, budget, budget, target.worker_id, turn)
        return sent._replace(again=lambda: self._sent(request, values, waits, patient))

    def _stamp(
        self, requests: Sequence[pb.Request], session: str | None, incarnation: int
    ) -> tuple[str, int] | None:
        """Numbers a call among this process's calls of its session: its worker lets them in in that order."""
        turn = self._directory.take_turn(session) if session else None
        for request in requests:
            request.options.incarnation = incarnation
            if turn is not None:
                request.options.turn, request.options.turns_done = turn
        return None if session is None or turn is None else (session, turn[0])

    def _under_way(
        self,
        ref: Any,
        request: pb.Request,
        budget: float,
        bound: float,
        worker_id: str,
        turn: tuple[str, int] | None,
    ) -> Sent:
        now = time.monotonic()
        return Sent(
            ref, request.command, budget, now + bound + ANSWER_MARGIN, worker_id, turn=turn, sent_at=now
        )

    # ---- in -----------------------------------------------------------------------------------------------

    def value(self, sent: Sent) -> Any:
        """Waits for the answer. Raises our error for whatever went wrong; what interrupts the wait cancels
        the command. What a dead worker had not begun is sent to another one."""
        while True:
            try:
                return answers.get(sent.ref, sent.left)
            except ray_port.GetTimeout:
                self.cancel(sent)
                raise self.too_late(sent) from None
            except Exception as error:  # noqa: BLE001 - user code among it: a runtime's process_response
                ours = self.our(error, sent)
                again = self.again(sent, ours)
                if again is None:
                    raise ours from None
                sent = again
            except BaseException:  # an interrupt: nobody waits any more
                self.cancel(sent)
                raise
            finally:
                self.ended(sent)

    def again(self, sent: Sent, error: BaseException) -> Sent | None:
        """The call once more, where `error` says that its worker was gone before it came; else None."""
        if sent.again is None or not is_unbegun(error) or sent.left <= ANSWER_MARGIN:
            return None
        return sent.again()

    def arm(self, sent: Sent, expire: Callable[[bool], None]) -> Ticket:
        """Watches a call that no thread waits for: `expire(is_over)` when its deadline passes, or when the
        Ray session is over."""
        return pending.arm(self._directory, sent.deadline, expire)

    def gave_up(self, sent: Sent, is_over: bool) -> SnakepitError:
        """The error of a call that has expired."""
        if not is_over:
            return self.too_late(sent)
        try:
            self._directory.check_open()
        except PoolClosed as closed:
            return closed
        return self.too_late(sent)

    def too_late(self, sent: Sent) -> DeadlineExceeded:
        """The error of a call whose deadline at the caller has passed."""
        return DeadlineExceeded.after(sent.budget, "running", sent.command)

    def cancel(self, sent: Sent) -> None:
        """Nobody waits for it any more. Safe to repeat."""
        if self._directory.is_current():
            answers.cancel(sent.ref)

    def ended(self, sent: Sent) -> None:
        """Its outcome is known here."""
        if sent.turn is not None:
            self._directory.end_turn(*sent.turn)

    def our(self, error: Exception, sent: Sent | None = None) -> BaseException:
        """Our error for one of Ray's; itself where it has no meaning of ours. May block where a worker has
        died (`may_block`): its router is asked since when."""
        if sent is not None and may_block(error):
            return self._of_lost_worker(sent)
        budget = None if sent is None else sent.budget
        return ray_port.translate(error, self._directory.config.name, budget) or error

    def _of_lost_worker(self, sent: Sent) -> SnakepitError:
        """A worker's death is told as the worker's; the pool is closed only when its router is gone."""
        self._directory.avoid(sent.worker_id)
        try:
            self._directory.check_open()
            gone = self._directory.departed(sent.worker_id)
        except PoolClosed as closed:
            return closed
        since = time.monotonic() - sent.sent_at
        began = gone is None or gone < since + DEPARTED_MARGIN
        words = (
            "died while it had the request, which may or may not have run; retry it if it is idempotent"
            if began
            else "was gone before the request came; nothing was executed"
        )
        return WorkerCrashed(
            f"worker {sent.worker_id} {words}", worker_id=sent.worker_id, may_have_started=began
        )


def _pieces(
    build: Callable[[Sequence[Drawn]], pb.Request], items: Sequence[Drawn], beside: list[Any]
) -> list[pb.Request]:
    """The items as requests of which each is small enough to be sent, and moves little beside it."""
    half, before = len(items) // 2, len(beside)
    try:
        request = build(items)
        if not half or sum(map(nbytes, beside[before:])) <= PIECE_BYTES:
            return [request]
    except PayloadTooLarge:
        if not half:
            raise
    del beside[before:]
    first = _pieces(build, items[:half], beside)
    return first + _pieces(build, items[half:], beside)
