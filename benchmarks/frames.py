"""What do frames save between a worker and its interpreter, without Ray? One supervisor for each wire in one
process, one round of each after the other: `add`, one request after the other and 64 in flight. Then starts
of interpreters: the time until one is ready, and its private memory after one request."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from typing import Any

from benchmarks import common
from snakepit_ray.config import PoolConfig
from snakepit_ray.process import usage
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.specs import interpreter_spec, worker_policy

WIRES = ("grpc", "auto", "frames")
NUMBERS = itertools.count()


async def refuse(call: HostCall) -> Encoded:
    raise NotImplementedError(call.method)


def supervisor(wire: str) -> Supervisor:
    """A worker without an actor."""
    config = PoolConfig(name=f"bench-{wire}", size=1, wire=wire)
    return Supervisor(
        lambda: interpreter_spec(config, f"w-{wire}"),
        worker_id=f"w-{wire}",
        pool=config.name,
        policy=worker_policy(config),
        incarnation=1,
        on_host_call=refuse,
        forward=lambda stream, line: print(line),
    )


async def call(worker: Supervisor) -> None:
    asked = pb.Request(
        id=str(next(NUMBERS)),
        command="add",
        args=pb.Payload(json=b'{"a":5,"b":3}'),
        budget_ms=60_000,
        options=pb.CallOptions(queue_ms=60_000),
    )
    await worker.execute(asked, may_move=False)


async def measured(worker: Supervisor, calls: int, in_flight: int) -> dict[str, float]:
    """Microseconds a call: of time, and of the processor in the worker and in the interpreter."""
    assert worker.interpreter is not None
    pid, left = worker.interpreter.child.pid, itertools.repeat(None, calls)
    before, own = usage.cpu_seconds(pid) or 0.0, cpu()
    latencies: list[float] = []

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await call(worker)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    took = time.perf_counter() - began
    spent = cpu() - own, (usage.cpu_seconds(pid) or 0.0) - before
    return {
        "rate": calls / took,
        "p50_us": sorted(latencies)[calls // 2] * 1e6,
        "worker_us": spent[0] / calls * 1e6,
        "interpreter_us": spent[1] / calls * 1e6,
    }


async def started(wire: str) -> dict[str, float]:
    """One start: milliseconds until it is ready, of the processor too, and MB of its own."""
    worker = supervisor(wire)
    await worker.start()
    try:
        one = worker.interpreter
        assert one is not None
        ready, spent = one.start_seconds, usage.cpu_seconds(one.child.pid) or 0.0
        await call(worker)
        memory = common.uss_mb([one.child.pid])
        return {"ready_ms": ready * 1e3, "start_cpu_ms": spent * 1e3, "uss_mb": memory}
    finally:
        await worker.stop()


def cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


async def rounds(count: int, calls: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    rows: dict[str, dict[str, list[dict[str, float]]]] = {
        kind: {wire: [] for wire in WIRES} for kind in ("1", "64", "start")
    }
    workers = {wire: supervisor(wire) for wire in WIRES}
    for worker in workers.values():
        await worker.start()
        await measured(worker, calls // 4, 8)  # warm
    for _ in range(count):
        for wire, worker in workers.items():
            rows["1"][wire].append(await measured(worker, calls, 1))
            rows["64"][wire].append(await measured(worker, calls, 64))
    for worker in workers.values():
        await worker.stop()
    for _ in range(count):
        for wire in WIRES:
            rows["start"][wire].append(await started(wire))
    return rows


def table(rows: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Prints the medians of each wire and what they are of gRPC's; returns them."""
    medians: dict[str, Any] = {}
    print("| | " + " | ".join(WIRES) + " | of gRPC's |\n|---|" + "---|" * (len(WIRES) + 1))
    for kind, of in rows.items():
        for key in of["grpc"][0]:
            values = [common.median(of[wire], key) for wire in WIRES]
            shares = " / ".join(f"{value / values[0]:.2f}" for value in values[1:])
            name = key if kind == "start" else f"{kind} in flight: {key}"
            print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in values) + f" | {shares} |")
            medians[name] = dict(zip(WIRES, values, strict=True))
    return medians


def main() -> None:
    args = common.arguments(__doc__, rounds=5, calls=2000)
    machine = common.machine()
    rows = asyncio.run(rounds(args.rounds, args.calls))
    common.save("frames", args.json, {"machine": machine, "rounds": rows, "medians": table(rows)})


if __name__ == "__main__":
    main()
