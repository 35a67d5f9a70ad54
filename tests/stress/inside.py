"""What the stress run knows of the inside of a worker. Only this module looks at private names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snakepit_ray.ledger import Entry, Ledger
from snakepit_ray.supervisor import Stream, Supervisor, WorkerState
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.requests import _payload
from tests.supervisor.harness import Marked

THRESHOLD = 10_240


@contextmanager
def ledger(node: Path) -> Iterator[Ledger]:
    """The record of what one worker's requests have begun."""
    one = Ledger.open("w-0", node)
    try:
        yield one
    finally:
        one.close()


def recorded_in(ledger: Ledger) -> dict[str, Any]:
    """Settings of a worker that keeps its record there."""
    return {"around": Marked(ledger), "marks": ledger.descriptor}


def payload(text: bytes, buffers: Sequence[Any], beside: list[Any]) -> pb.Payload:
    """The arguments of a request; large buffers go into `beside`."""
    return _payload(text, buffers, beside, THRESHOLD)


def failure_of(stream: Stream) -> pb.Failure | None:
    """The failure that ended a stream, None where it came to its own end."""
    reply = stream.result().answer.reply
    return reply.failure if reply.HasField("failure") else None


def about(worker: Supervisor, request_id: str) -> str:
    """Where a request that does not end is."""
    run = worker._runs._runs.get(request_id)
    places = {
        "present": request_id in worker.dispatch.present,
        "queued": request_id in worker.admission.queue,
        "has a slot": request_id in worker.admission.slots,
        "run": run and {name: getattr(run, name) for name in ("sent", "stopping", "recalled", "overdue")},
        "in the serving interpreter": run is not None and run.interpreter is worker.interpreter,
    }
    return str(places)


def is_quiet(worker: Supervisor) -> bool:
    """Nothing waits, runs or is being replaced, and every slot is free."""
    return (
        worker.state is WorkerState.READY
        and worker.running == worker.waiting == 0
        and worker.admission.free == worker.policy.capacity
        and not worker.keeper._retiring
        and not worker.keeper._others
    )


def state(worker: Supervisor) -> str:
    """What `is_quiet` looks at."""
    keeper, admission = worker.keeper, worker.admission
    runs = [run.request.id for run in worker._runs._runs.values()]
    return (
        f"{worker.state}, running {worker.running} {runs}, waiting {worker.waiting}, free {admission.free}, "
        f"retiring {len(keeper._retiring)}, other ends {len(keeper._others)}"
    )


def memory(worker: Supervisor) -> dict[str, int]:
    """Bytes and places in use on this side of both arenas."""
    assert worker.interpreter is not None
    arena = worker.interpreter.arena
    return {"lent": len(arena._lent), "used": arena._space.used}


def is_empty(worker: Supervisor) -> bool:
    """Whether this side of both arenas is empty."""
    return not any(memory(worker).values())


def held(worker: Supervisor) -> dict[str, list[Any]]:
    """What a worker that has stopped still holds: all of it should be empty."""
    client = worker.interpreter.client if worker.interpreter is not None else None
    return {
        "present requests": list(worker.dispatch.present),
        "runs": list(worker._runs._runs),
        "places": list(worker.admission._places),
        "verdicts": list(worker.admission._verdicts),
        "held up": list(worker.admission._aside),
        "recalled": list(worker.admission._recalled),
        "marks": list(worker_marks(worker)),
        "buffers": list(worker.cargo.buffers),
        "answers": list(client._answers) if client is not None else [],
        "streams": list(client._streams) if client is not None else [],
        "care": [task for task in worker._care._tasks if not task.done()],
    }


def worker_marks(worker: Supervisor) -> set[int]:
    """Words that an interpreter may store to."""
    record = worker.ports.record
    assert isinstance(record, Marked)
    entries = record.ledger._entries.values()
    return {entry.word for entry in entries if isinstance(entry, Entry) and entry._inside}
