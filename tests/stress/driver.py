"""One stress run: a worker without Ray, real interpreters, and what a seed asks of them.

After the last step everything must be as before the first: every call has ended, all slots are free, both
arenas are empty, and no task, thread, descriptor, process, socket or file is left. What is left is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from snakepit_ray.core.worker.recycling import Limits
from snakepit_ray.core.worker.restarts import RestartBudget, RestartPolicy
from snakepit_ray.supervisor import CarePolicy, Supervisor, WorkerPolicy
from tests.stress import accounts, inside
from tests.stress.calls import Caller
from tests.stress.plan import Call, Recycle, Settings, Signal, settings_of, steps_of
from tests.supervisor.harness import request, supervisor, value

ADAPTER = f"{Path(__file__).with_name('adapter.py')}:Stressed"
HANG_SECONDS = 60.0  # no call has a budget of more than 8
GRACES = {"shutdown_grace": 0.4, "startup_timeout": 15.0}
log = logging.getLogger("tests.stress")


@dataclass
class Report:
    """What a run found and did."""

    seed: int
    settings: Settings
    faults: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    interpreters: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        done = sum(self.outcomes.values())
        head = f"seed {self.seed}: {done} requests, {self.interpreters} interpreters, {self.seconds:.1f} s"
        return "\n".join(
            [f"{head}, {self.settings}, {dict(self.outcomes)}", *(f"  {one}" for one in self.faults)]
        )


def run(seed: int, steps: int, where: Path) -> Report:
    """Runs one seed in the empty directory `where`."""
    report = Report(seed, settings_of(seed))
    began = time.monotonic()
    asyncio.run(_Run(report, steps, where).drive())
    report.seconds = time.monotonic() - began
    return report


class _Run:
    def __init__(self, report: Report, steps: int, where: Path) -> None:
        self._report = report
        self._steps = steps
        self._where = where
        self._log = where / "log"
        self._settings = report.settings
        self._fault = report.faults.append
        self._own = 0  # requests of the run itself

    async def drive(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._fault(f"the loop: {context}"))
        await asyncio.to_thread(int)  # the executor's thread and what it needs are here from now on
        before = _descriptors()
        (self._where / "node").mkdir()
        with inside.ledger(self._where / "node") as ledger:
            worker = self._worker(ledger)
            await worker.start()
            callers = Caller(worker)
            await self._act(worker, callers)
            await self._end(worker, callers)
            self._account(callers, worker)
        del worker, callers
        await self._nothing_is_left(before)

    def _worker(self, ledger: inside.Ledger) -> Supervisor:
        settings = self._settings
        limits = Limits(ttl=settings.ttl, max_requests=settings.max_requests, jitter=0.2)
        policy = WorkerPolicy(
            queue_limit=settings.queue_limit,
            capacity=settings.capacity,
            retry_backoff=0.02,
            cancel_grace=0.5,
            overlap=settings.overlap,
            care=CarePolicy(interval=0.5, silence=4.0, limits=limits),
        )
        worker = supervisor(
            self._where,
            adapter=ADAPTER,
            adapter_args={"log": str(self._log), "setup_seconds": settings.setup},
            policy=policy,
            capacity=settings.capacity,
            **inside.recorded_in(ledger),
            **GRACES,
        )
        # A run kills more often than any worker may be killed: the quarantine has tests of its own.
        never = RestartPolicy(fruitless=10**6, burst=10**6, first_delay=0.01, most_delay=0.1)
        worker.keeper.budget = RestartBudget(never)
        return worker

    # ---- what the seed asks -------------------------------------------------------------------------------

    async def _act(self, worker: Supervisor, callers: Caller) -> None:
        for step in steps_of(self._report.seed, self._steps):
            for action in step.actions:
                if isinstance(action, Call):
                    callers.begin(action)
                else:
                    _disturb(worker, action)
            await asyncio.sleep(step.pause)

    async def _end(self, worker: Supervisor, callers: Caller) -> None:
        if self._settings.is_stopped_early:
            await self._stop(worker)
        for call, task in await callers.finished(HANG_SECONDS):
            self._fault(
                f"{call.id} {call.command} has no end: {inside.about(worker, call.id)} {task.get_stack()}"
            )
        if not self._settings.is_stopped_early:
            await self._rests(worker, callers)
            await self._stop(worker)
        self._report.interpreters = worker.epoch.number
        for what, held in inside.held(worker).items():
            if held:
                self._fault(f"{what} after the stop: {held}")

    async def _stop(self, worker: Supervisor) -> None:
        try:
            await asyncio.wait_for(worker.stop(), HANG_SECONDS)
        except Exception as error:
            self._fault(f"stop: {error!r}")

    async def _rests(self, worker: Supervisor, callers: Caller) -> None:
        """All slots are free and the memory of both sides is empty, and the worker serves."""
        if not await _within(HANG_SECONDS, lambda: inside.is_quiet(worker)):
            self._fault(f"is not quiet: {inside.state(worker)}")
            return
        callers.let_go()
        try:
            await self._ask(worker, "forget")
            if not await _within(HANG_SECONDS, lambda: inside.is_empty(worker)):
                self._fault(f"memory: {inside.memory(worker)}")
            await self._holds_nothing(worker)
        except Exception as error:
            self._fault(f"does not serve at the end: {error!r}")

    async def _holds_nothing(self, worker: Supervisor) -> None:
        """What was released here is free there when the interpreter has read of it."""
        deadline = time.monotonic() + HANG_SECONDS
        while any((held := await self._ask(worker, "held")).values()):
            if time.monotonic() > deadline:
                self._fault(f"memory of the interpreter: {held}")
                return
            await asyncio.sleep(0.02)

    async def _ask(self, worker: Supervisor, command: str) -> Any:
        self._own += 1
        return await value(worker, request(command, 10**6 + self._own))

    # ---- what came of it ----------------------------------------------------------------------------------

    def _account(self, callers: Caller, worker: Supervisor) -> None:
        begun = Counter(line.split()[0] for line in self._log.read_text().splitlines())
        self._report.faults += accounts.faults(callers.fates, begun)
        ends = [end for fate in callers.fates.values() for end in fate.ends]
        self._report.outcomes.update(
            end.outcome if isinstance(end.outcome, str) else type(end.outcome).__name__ for end in ends
        )
        self._report.faults += self._wrong_counters(worker, callers)

    def _wrong_counters(self, worker: Supervisor, callers: Caller) -> list[str]:
        counted, (least, most) = worker.counters.requests - self._own, callers.entered
        return [] if least <= counted <= most else [f"{counted} requests counted of {least} to {most}"]

    async def _nothing_is_left(self, before: list[str]) -> None:
        own = asyncio.current_task()

        def tasks() -> list[asyncio.Task[object]]:
            return [task for task in asyncio.all_tasks() if task is not own]

        for what, left in (
            ("tasks", tasks),
            ("processes", _children),
            ("files", lambda: [path.name for path in _files()]),
            (
                "descriptors",
                lambda: [name for name in _descriptors() if _is_ours(name) and name not in before],
            ),
            ("threads", lambda: [one.name for one in threading.enumerate() if not _is_shared(one)]),
        ):
            gc.collect()
            if not await _within(10.0, lambda left=left: not left()):
                self._fault(f"left: {what} {left()}")


def _disturb(worker: Supervisor, action: Recycle | Signal) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(action, Recycle):
        worker.recycle()
        if action.then is not None:
            loop.call_later(action.then, _signal, signal.SIGKILL, action.then)
        return
    pid = _signal(getattr(signal, f"SIG{action.name}"), action.victim)
    if pid is not None and action.continued is not None:
        loop.call_later(action.continued, _send, pid, signal.SIGCONT)


def _signal(number: int, victim: float) -> int | None:
    living = _children()
    if not living:
        return None
    pid = living[int(victim * len(living))]
    log.info("%s to %d of %s", signal.Signals(number).name, pid, living)
    _send(pid, number)
    return pid


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


def _files() -> Iterator[Path]:
    """Sockets' directories, and registered processes: the node's own directory stays."""
    root = Path(os.environ["TMPDIR"])
    yield from root.glob("snakepit-*/processes/*")
    yield from (path for path in root.glob("snakepit-*") if not (path / "processes").exists())


def _descriptors() -> list[str]:
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return names


def _is_ours(name: str) -> bool:
    """What grpc and asyncio keep for the process (event and poll descriptors) is not a worker's."""
    return not name.startswith(("anon_inode:[event", "/proc/", "/dev/"))


def _is_shared(thread: threading.Thread) -> bool:
    return (
        thread.daemon
        or thread is threading.main_thread()
        or thread.name.startswith(
            ("asyncio_", "Thread", "snakepit-process")  # executors of the process
        )
    )


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        gc.collect()
        await asyncio.sleep(0.02)
    return True
