"""Knows how what an interpreter answered becomes what its caller gets, now or in a later life of this worker.

Rules: an outcome that is small is kept (process/outcome_ring.py) before it is handed to Ray; who asks for it
again gets it as it was, a failure too. Not kept is what nobody asks for again (a stream, which is never sent
again; the parts of a batch that is divided here, which comes again as a whole and is divided anew), what lies
in memory shared with the interpreter, which is gone with this process, and what is larger than the ring
takes: of those it is only known that they had begun."""

from __future__ import annotations

import struct
from typing import NamedTuple

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.codec import BatchEnvelope, Envelope, Info
from snakepit_ray.errors import SnakepitError
from snakepit_ray.process.outcome_ring import LARGEST, OutcomeRing
from snakepit_ray.requests import outcome
from snakepit_ray.supervisor import Answer, Done, Relayed

# Seconds waited, the interpreter's pid, and the attempt; the serialized Reply follows.
FACTS = struct.Struct("=dIH")
MOST_ATTEMPTS = 2**16 - 1


class About(NamedTuple):
    """Who answers."""

    worker_id: str
    node_id: str


class Answers:
    """The answers of one worker."""

    def __init__(self, about: About, ring: OutcomeRing) -> None:
        self._about = about
        self._ring = ring

    def keep(self, request: pb.Request, done: Done) -> None:
        """The interpreter has answered `request`, and nobody has heard of it yet."""
        answer, waited, attempt, pid = done
        reply = answer.reply
        value = reply.value
        if len(value.json) > LARGEST or request.stream or is_part(request):
            return
        if answer.buffers and not all(place.HasField("inline") for place in value.buffers):
            return
        facts = FACTS.pack(waited, pid, min(attempt, MOST_ATTEMPTS))
        self._ring.keep(request.id, facts + reply.SerializeToString())

    def kept(self, request: pb.Request) -> Relayed | None:
        """What `request` had come to: its envelope, or its error; None where that is not known."""
        found = self._ring.find(request.id)
        if found is None:
            return None
        waited, pid, attempt = FACTS.unpack_from(found)
        reply = pb.Reply.FromString(found[FACTS.size :])
        answer = Answer(reply, [place.inline for place in reply.value.buffers])
        try:
            return Relayed(self.of(request, Done(answer, waited, pid=pid, attempt=attempt)))
        except SnakepitError as error:
            return Relayed(error)

    def of(self, request: pb.Request, done: Done) -> Envelope | BatchEnvelope:
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


def is_part(request: pb.Request) -> bool:
    """Whether it is a part of a batch that is divided at this worker."""
    return not request.options.hops and "/" in request.id
