"""What does a forked start cost against an executed one, without Ray? For each wire one of each after the
other: from the order to the ready line and until it serves, the processor time of the interpreter until then,
and that of the host for its start and its end. The forker's own start is not in it."""

from __future__ import annotations

import asyncio
import functools
import resource
import time
from pathlib import Path

from benchmarks import common
from benchmarks.frames import refuse
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.worker.handshake import Ready
from snakepit_ray.process.child import spawn
from snakepit_ray.supervisor import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.beginning import Start
from snakepit_ray.supervisor.forkers import Forkers
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.specs import interpreter_spec

WIRES = ("auto", "frames")
EPOCH = pb.Epoch(incarnation=1, number=1)


def spec(wire: str) -> InterpreterSpec:
    return interpreter_spec(PoolConfig(name=f"bench-{wire}", size=1, wire=wire), f"w-{wire}")


def say(stream: str, line: str) -> None:
    print(line)


def cpu_ms(pid: int) -> float:
    """Processor time of all threads of a process; the scheduler counts it in nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def own_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3


class Timed(Interpreter):
    """One that remembers when it was ready, before anybody connects to it."""

    async def _handshake(self, seconds: float) -> Ready:
        ready = await super()._handshake(seconds)
        self.line_at = time.perf_counter()
        return ready


async def once(made: InterpreterSpec, start: Start) -> dict[str, float]:
    """Milliseconds of one start and one end: until it is ready, of its processor, of ours."""
    own, began = own_ms(), time.perf_counter()
    interpreter = await Timed.start(made, EPOCH, refuse, say, start=start)
    assert isinstance(interpreter, Timed)
    ready, serves = interpreter.line_at - began, time.perf_counter() - began
    used = cpu_ms(interpreter.child.pid)
    await interpreter.stop()
    return {"ready": ready * 1e3, "serves": serves * 1e3, "cpu": used, "host": own_ms() - own}


async def main() -> None:
    args = common.arguments(__doc__, rounds=30)
    header, rows = common.machine(), []
    kept = {}
    for wire in WIRES:
        forkers = Forkers(say)
        kept[wire] = (forkers, (await forkers.start(spec(wire))).forker.fork)
    for _ in range(args.rounds):
        row = {}
        for wire, (_, fork) in kept.items():
            for how, start in (("executed", spawn), ("forked", fork)):
                figures = await once(spec(wire), start)
                row |= {f"{wire}_{how}_{name}": figure for name, figure in figures.items()}
        rows.append(row)
    for forkers, _ in kept.values():
        await forkers.stop()
    report(rows)
    common.save("starts", args.json, {"machine": header, "rounds": rows})


def report(rows: list[dict[str, float]]) -> None:
    median = functools.partial(common.median, rows)
    print(
        "| wire, start | ms to its ready line | ms until it serves | its processor | the host's, to its end |"
    )
    print("|---|---|---|---|---|")
    for wire in WIRES:
        for how in ("executed", "forked"):
            figures = (median(f"{wire}_{how}_{name}") for name in ("ready", "serves", "cpu", "host"))
            print(f"| {wire}, {how} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    for wire in WIRES:
        ratios = {
            name: common.median(
                [{"r": row[f"{wire}_forked_{name}"] / row[f"{wire}_executed_{name}"]} for row in rows], "r"
            )
            for name in ("ready", "cpu")
        }
        print(
            f"\n{wire}: forked in {ratios['ready']:.2f} x the time, {ratios['cpu']:.2f} x the processor time"
        )


if __name__ == "__main__":
    asyncio.run(main())
