"""What does a call of a tool cost? One caller, p50, against its peers in the same rounds:

- where="worker" against a unary gRPC call between two processes (sync server, sync client).
- where="here" against a call of a bare async actor.
- `pool.command` against `pool.execute` of the same command and two calls of the host.

And calls a second with 100 in flight, and what a process costs whose tool nobody calls: 20 workers of the
process, as a share of a core."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, latencies, machine, median, save
from benchmarks.peers import Bare

ADAPTER = f"{Path(__file__).parent / 'adapters' / 'tools.py'}:Tools"
CALLS = 500
ARGS = {"a": 5, "b": 3}
IDLE_SECONDS = 10.0
SERVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
server = grpc.server(ThreadPoolExecutor(8))
echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Call": echo}),))
server.add_insecure_port(sys.argv[1])
server.start()
print("ready", flush=True)
sys.stdin.read()
"""
TARGETS = {"worker": ("grpc", 1.5), "here": ("bare", 2.3)}


def main() -> None:
    args = arguments(__doc__, rounds=5, calls=CALLS)
    init_ray()
    with raw_grpc() as grpc_call, pools() as (one, other):
        header = machine()
        measured = {
            "grpc": lambda calls: latencies(grpc_call, calls)["p50_ms"],
            "bare": bare_actor(),
            "host": lambda calls: inside(one, "host_times", count=calls),
            "worker": lambda calls: inside(one, "times", tool="there", args=ARGS, count=calls),
            "task": lambda calls: inside(one, "times", tool="task", args=ARGS, count=max(10, calls // 10)),
            "here": lambda calls: inside(one, "times", tool="here", args=ARGS, count=calls),
            "command": lambda calls: inside(one, "times", tool=f"{other.name}.add", args=ARGS, count=calls),
            "execute": lambda calls: latencies(lambda i: other.execute("add", ARGS), calls)["p50_ms"],
        }
        for measure in measured.values():
            measure(50)  # warm
        rows = []
        for _ in range(args.rounds):
            row = {name: measure(args.calls) for name, measure in measured.items()}
            rate = {"tool": "here", "args": ARGS, "count": args.calls * 4, "in_flight": 100}
            row["here_rate"] = float(one.execute("at_once", rate))
            rows.append(row)
        idle = idle_share(one)
    report(rows, idle)
    save("tools", args.json, {"machine": header, "rounds": rows, "idle": idle})
    snakepit.shutdown()


def add(a: int, b: int) -> dict[str, int]:
    return {"result": a + b}


@contextmanager
def pools() -> Iterator[tuple[snakepit.Pool, snakepit.Pool]]:
    """A pool whose commands call, and one that is called."""
    settings: dict[str, Any] = {"interpreter": sys.executable, "adapter": ADAPTER}
    with (
        snakepit.start(name="bench-tools", size=1, **settings) as one,
        snakepit.start(name="bench-other", size=1, **settings) as other,
    ):
        one.register_tool("here", add)
        one.register_tool("there", lambda a, b: {"result": a + b}, where="worker")
        one.register_tool("task", lambda a, b: {"result": a + b}, where="task")
        yield one, other


def inside(pool: snakepit.Pool, command: str, **args: Any) -> float:
    """The p50, in milliseconds, of what a command has measured."""
    seconds: list[float] = pool.execute(command, args, timeout=300)
    return statistics.median(seconds) * 1e3


def bare_actor() -> Callable[[int], float]:
    options = {"num_cpus": 0, "max_concurrency": 1_000_000, "enable_task_events": False}
    actor = ray.remote(Bare).options(**options).remote()
    ray.get(actor.pid.remote())
    return lambda calls: latencies(lambda i: ray.get(actor.add.remote(5, 3)), calls)["p50_ms"]


@contextmanager
def raw_grpc() -> Iterator[Callable[[int], Any]]:
    """A unary call to a process of its own, over a unix socket."""
    import grpc

    with tempfile.TemporaryDirectory() as directory:
        address = f"unix:{directory}/s"
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        server.stdout.readline()
        channel = grpc.insecure_channel(address)
        call = channel.unary_unary("/bench.Echo/Call")
        yield lambda i: call(b'{"a":5,"b":3}')
        channel.close()
        server.kill()
        server.wait()


def idle_share(pool: snakepit.Pool) -> float:
    """Processor time of this process, whose tools nobody calls, as a share of a core for each worker."""
    used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return spent / (time.perf_counter() - began) / len(pool.workers())


def report(rows: list[dict[str, float]], idle: float) -> None:
    at = {name: median(rows, name) for name in rows[0]}  # type: ignore[arg-type] # a dict is a Mapping
    print(f"{'':10} {'p50, ms':>9}")
    for name in ("grpc", "bare", "host", "worker", "task", "here", "command", "execute"):
        print(f"{name:10} {at[name]:9.2f}")
    print()
    for name, (peer, target) in TARGETS.items():
        print(f"{name} / {peer}: {at[name] / at[peer]:.2f} x (target {target})")
    bound = at["execute"] + 2 * at["host"]
    print(f"pool.command / (pool.execute + 2 host calls): {at['command'] / bound:.2f} x (target 1)")
    print(f"here, 100 in flight: {at['here_rate']:,.0f} calls/s")
    print(f"idle: {idle:.2%} of a core for each worker (pid {os.getpid()})")


if __name__ == "__main__":
    main()
