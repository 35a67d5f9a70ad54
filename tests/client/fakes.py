"""A pool without Ray: sends nothing, answers as it is told."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.client import map as batching
from snakepit_ray.client.sender import Sent
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import PoolClosed
from snakepit_ray.port import ray_port
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.telemetry.trace_context import Trace
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchOutcome, Reply
from snakepit_ray.wire.codec.envelope import Epoch
from snakepit_ray.wire.requests import Drawn, RequestBuilder

CONFIG = PoolConfig.build(name="fake", size=2)


class FakeSender:
    """Answers when `answer` is called; `arguments` are those that came, decoded."""

    def __init__(self, slots: int = 2, seconds: float = 0.001) -> None:
        self.slots = slots
        self.seconds = seconds  # an item
        self.sent: list[list[dict[str, Any]]] = []
        self.requests: list[pb.Request] = []
        self.preferred: list[str | None] = []
        self.ended_refs: set[Any] = set()
        self.cancelled: set[Any] = set()
        self.is_closed = False
        self.builder = RequestBuilder(
            CONFIG, resolve_runtime("python"), _Ref, map(str, itertools.count()).__next__
        )
        self.open: dict[Any, list[dict[str, Any]]] = {}
        self.answers: dict[Any, Any] = {}
        self.errors: dict[Any, Exception] = {}
        self.waits: list[list[Any]] = []  # the refs of each wait
        self.changed = threading.Condition()

    # ---- what a map uses ----------------------------------------------------------------------------------

    def fails_fast(self, options: Any) -> bool:
        return False

    def slots_for(self, options: Any) -> int:
        return 1 if options.session else self.slots

    def check_open(self) -> None:
        if self.is_closed:
            raise PoolClosed("it was shut down")

    def draw(self, command: str, args: Any, number: int = 0) -> Drawn:
        return self.builder.draw(command, args, number)

    def drawer(self, command: str) -> Callable[[Any, int], Drawn]:
        return self.builder.drawer(command)

    def one(
        self,
        command: str,
        drawn: Drawn,
        options: Any,
        *,
        patient: bool = False,
        trace: Trace | None = None,
        waits: Any = None,
    ) -> Sent:
        request, _ = self.builder.single(command, drawn, options, trace)
        self.requests.append(request)
        return self._send([json.loads(request.args.json)])

    def some(
        self,
        command: str,
        drawn: list[Drawn],
        options: Any,
        *,
        patient: bool = False,
        prefer: Any = None,
        traces: Sequence[Trace | None] = (),
        waits: Any = None,
    ) -> Sent:
        request = self.builder.batch(command, drawn, options, 0, [], traces)
        self.requests.append(request)
        self.preferred.append(prefer)
        return self._send(json.loads(request.args.json))

    def cancel(self, sent: Sent) -> None:
        self.cancelled.add(sent.ref)

    def ended(self, sent: Sent) -> None:
        self.ended_refs.add(sent.ref)

    def our(self, error: Exception, sent: Sent | None = None) -> BaseException:
        return error if sent is None else self.errors.get(sent.ref, error)

    def _send(self, items: list[dict[str, Any]]) -> Sent:
        ref = _Ref()
        with self.changed:
            self.sent.append(items)
            self.open[ref] = items
            self.changed.notify_all()
        return Sent(ref, "c", 60.0, time.monotonic() + 60, f"w-{len(self.sent) % self.slots}")

    # ---- what a test says ---------------------------------------------------------------------------------

    def answer(self, *, most: int | None = None, change: Callable[[Any], Any] = lambda item: item) -> None:
        """The oldest that is open is answered; of a chunk, only its first `most` items."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.open, 20), "nothing was sent"
            ref = next(iter(self.open))
            items = self.open.pop(ref)
            values = [change(item) for item in items[:most]]
            if len(items) == 1:
                info = ("w", Epoch(1, 1), 1, "n", "id", 0.0, self.seconds, 1, False)
                self.answers[ref] = Reply(values[0], *info)
            else:
                self.answers[ref] = BatchOutcome(values, [], self.seconds * len(values), 0)
            self.changed.notify_all()

    def fail(self, ref: Any, error: Exception) -> None:
        """One that is open fails; `our` makes `error` of what Ray says."""
        self.errors[ref] = error
        with self.changed:
            del self.open[ref]
            self.answers[ref] = ray_port.RayError()
            self.changed.notify_all()

    def wait(self, refs: list[Any], seconds: float | None) -> list[Any]:
        with self.changed:
            self.waits.append(refs)
            self.changed.notify_all()
            self.changed.wait_for(lambda: any(ref in self.answers for ref in refs), seconds)
            return [ref for ref in refs if ref in self.answers][:1]

    def get(self, ref: Any, timeout: float | None = None) -> Any:
        answer = self.answers.pop(ref)
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Ref:
    """An ObjectRef."""


def answering(sender: FakeSender) -> threading.Thread:
    """Answers everything that is sent, at once."""

    def run() -> None:
        while not sender.is_closed:
            with sender.changed:
                sender.changed.wait_for(lambda: sender.open or sender.is_closed, 0.05)
                busy = bool(sender.open)
            if busy:
                sender.answer()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fake sender, in place of Ray."""
    one = FakeSender()
    monkeypatch.setattr(batching, "answers", SimpleNamespace(wait=one.wait, get=one.get))
    yield one
    one.is_closed = True
