"""What one worker remembers of the requests that come to it: the ledger, in words of requests and answers.

Rules:

- A request is noted before it is sent to an interpreter or to another worker, and its outcome before anybody
  hears of it.
- A request that comes again, because Ray sends it again, gets the outcome as it was, a failure too.
- A batch that is divided here comes again as a whole, and is divided anew. So it is asked for as a whole, and
  has begun when one of its parts has, or was moved. The parts have entries only while they are served.
- A stream is never sent again.
- While an interpreter of an earlier life may still live, what it could begin counts as begun. So the verdict
  on such a request is given when it has its slot, not when it arrives.
- Not kept is an outcome whose buffers lie in memory shared with the interpreter, which is gone with this
  process, and one that is larger than the ledger takes."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from snakepit_ray.core.work.request_ids import PART, whole_of
from snakepit_ray.errors import SnakepitError
from snakepit_ray.ledger import ALL, LARGEST, NOT_BEGUN, UNKNOWN, Begun, Ended, Entry, Ledger, Plain, State
from snakepit_ray.supervisor import Answer, Done, Record, Relayed
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, Envelope, Info
from snakepit_ray.wire.replies import outcome

# Seconds waited, the interpreter's pid, and the attempt; the serialized Reply follows.
FACTS = struct.Struct("=dIH")
MOST_ATTEMPTS = 2**16 - 1
SETTLE_SECONDS = 5.0  # an interpreter ends with its host, and takes what it started along


class About(NamedTuple):
    """Who answers."""

    worker_id: str
    node_id: str


class Memory(Record):
    """The memory of one worker. `incarnation` is its actor's."""

    def __init__(
        self, about: About, ledger: Ledger, incarnation: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._about = about
        self._ledger = ledger
        self._incarnation = incarnation
        self._entries: dict[str, Entry] = {}  # of requests that are here now
        self._begun: dict[str, int] = {}  # of these, calls that had begun before they came, or elsewhere
        self._unsettled: set[str] = set()  # of these, those whose earlier interpreter may live
        self._parts: dict[str, int] = {}  # of a batch that is divided here: how many have begun or were moved

    # ---- before -------------------------------------------------------------------------------------------

    def arrives(self, request: pb.Request) -> State:
        """What was known of the request before it came. To be asked once, before anything is done for it."""
        if PART in request.id and _is_part(request):
            return UNKNOWN
        state = self._ledger.recall(request.id)
        # It was sent to an earlier life of this worker, whose ledger is not here (another node): whatever was
        # sent to that may have begun there.
        is_earlier = 0 < request.options.incarnation < self._incarnation
        if state is UNKNOWN and is_earlier and not self._ledger.found:
            state = Begun(ALL)
        if not isinstance(state, Plain):
            self._begun[request.id] = _calls(state)
            if not self._ledger.settled:
                self._unsettled.add(request.id)
        return state

    def begun_before(self, request: pb.Request) -> int:
        """Calls of the request that have begun, or may have, before it came or at another worker that died
        with it; ALL where nobody can tell how many."""
        if not self._begun:
            return 0
        noted = _noted_as(request)
        if noted in self._unsettled and self._ledger.settled:
            self._unsettled.discard(noted)
            self._begun[noted] = _calls(self._ledger.recall(noted))
        return max(self._begun.get(request.id, 0), self._begun.get(noted, 0))

    async def may_have_begun(self, request_id: str) -> bool:
        """Whether a request that another worker had moved here has begun, or may have. Waits a while for the
        end of an earlier interpreter."""
        deadline = self._clock() + SETTLE_SECONDS
        while not self._ledger.settled and self._clock() < deadline:  # noqa: ASYNC110 - a lock of another process: nobody tells when it is free
            await asyncio.sleep(0.02)
        state = self._ledger.recall(request_id)
        return state is not NOT_BEGUN and (state is not UNKNOWN or not self._ledger.found)

    # ---- meanwhile ----------------------------------------------------------------------------------------

    def begins(self, request: pb.Request, marked: bool) -> Entry | None:
        """The request is about to reach the interpreter; its entry where that stores to it."""
        if PART in request.id and _is_part(request):
            self._note_whole(request.id)
        entry = self._entries[request.id] = self._ledger.begin(request.id, marked=marked)
        return entry if marked else None

    def moves(self, request_id: str, place: int) -> None:
        """The request, which came here first, is about to be sent to the worker of that number, counted from
        1."""
        if PART in request_id:
            self._note_whole(request_id)
        self._entries[request_id] = self._ledger.begin(request_id, place)

    def refused(self, request_id: str) -> None:
        """The worker that the request was moved to did not begin it, and never will."""
        self._entries[request_id].refused()
        whole = whole_of(request_id)
        if whole in self._parts:
            self._parts[whole] -= 1
            if not self._parts[whole]:
                self._entries[whole].refused()

    def lost(self, request_id: str) -> None:
        """The worker that the request was moved to died with it, and it may have begun there."""
        self._begun[request_id] = ALL

    def _note_whole(self, part_id: str) -> None:
        whole = whole_of(part_id)
        parts = self._parts.get(whole, 0)
        if not parts:
            self._entries[whole] = self._ledger.begin(whole)
        self._parts[whole] = parts + 1

    # ---- after --------------------------------------------------------------------------------------------

    def ended(self, request: pb.Request, done: Done) -> None:
        """The interpreter has answered `request`, and nobody has heard of it yet."""
        answer, waited, attempt, pid = done
        reply = answer.reply
        if request.stream or len(reply.value.json) > LARGEST or (PART in request.id and _is_part(request)):
            return  # `over` ends it
        if answer.buffers and not all(place.HasField("inline") for place in reply.value.buffers):
            return
        facts = FACTS.pack(waited, pid, min(attempt, MOST_ATTEMPTS))
        entry = self._entries.pop(request.id, None)
        if entry is not None:
            entry.end(facts + reply.SerializeToString())

    def over(self, request: pb.Request) -> None:
        """The request is served no more, whatever it came to. Safe to repeat."""
        self._begun.pop(request.id, None)
        self._unsettled.discard(request.id)
        self._parts.pop(request.id, None)
        entry = self._entries.pop(request.id, None)
        if entry is None:
            return
        if request.stream or _is_part(request):
            entry.drop()
        else:
            entry.end(None)

    # ---- answers ------------------------------------------------------------------------------------------

    def answer(self, request: pb.Request, ended: Ended) -> Relayed:
        """What `request` had come to: its envelope, or its error."""
        found = ended.outcome
        waited, pid, attempt = FACTS.unpack_from(found)
        reply = pb.Reply.FromString(found[FACTS.size :])
        answer = Answer(reply, [place.inline for place in reply.value.buffers])
        try:
            return Relayed(self.envelope(request, Done(answer, waited, pid=pid, attempt=attempt)))
        except SnakepitError as error:
            return Relayed(error)

    def recall(self, request: pb.Request) -> Relayed | None:
        """What a request that another worker had moved here has come to; None where that is not known."""
        state = self._ledger.recall(request.id)
        return self.answer(request, state) if isinstance(state, Ended) else None

    def envelope(self, request: pb.Request, done: Done) -> Envelope | BatchEnvelope:
        """What the caller gets. Raises the error that a failed reply describes."""
        wanted = request.options.info or request.batch.count
        info = self._info(request, done) if wanted else None
        return outcome(done.answer.reply, done.answer.buffers, request, info)

    def _info(self, request: pb.Request, done: Done) -> Info:
        reply = done.answer.reply
        epoch = reply.epoch.incarnation, reply.epoch.number
        return self.info(request, epoch, done.pid, done.waited, reply.ran_us / 1e6, done.attempt)

    def info(
        self, request: pb.Request, epoch: tuple[int, int], pid: int, waited: float, ran: float, attempt: int
    ) -> Info:
        """What a caller is told who asks how it came to be."""
        worker_id, node_id = self._about
        return worker_id, epoch, pid, node_id, request.id, waited, ran, attempt, bool(request.options.hops)


def _calls(state: State) -> int:
    if isinstance(state, Begun):
        return state.calls
    return ALL if isinstance(state, Ended) else 0  # of one that is not to be answered with its outcome


def _is_part(request: pb.Request) -> bool:
    """Whether it is a part of a batch that is divided at this worker."""
    return not request.options.hops and PART in request.id


def _noted_as(request: pb.Request) -> str:
    """What a request is asked for by where it first arrived: of a batch that is divided here, the whole."""
    return request.id if request.options.hops else whole_of(request.id)
