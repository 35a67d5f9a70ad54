"""What does a call cost? `add` on a pool of 4 against the peers, interleaved round by round in one run.

Peers: four bare async actors called the same way (the limit), Ray Serve's handle to a no-op replica,
ray.util.ActorPool over actors that each own a child over a pipe, raw gRPC without Ray."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util import ActorPool

import snakepit_ray as snakepit
from benchmarks.common import arguments, closed_loop, init_ray, latencies, machine, median, save
from benchmarks.peers import Bare, PipeOwner, no_op_of_serve

WORKERS = 4
IN_FLIGHT = (4, 16, 64)
CALLS = 1500
ALONE = 300


def main() -> None:
    args = arguments(__doc__, rounds=5)
    init_ray()
    rows: dict[str, list[dict[str, float]]] = {}
    header = machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        peers = {
            "bare actors": bare_actors,
            "pool": snakepit_pool,
            "Serve handle": serve_handle,
            "ActorPool, pipe child": actor_pool,
            "raw gRPC": lambda: raw_grpc(directory),
        }
        measured = {name: make() for name, make in peers.items()}
        for measure in measured.values():
            measure(200)  # warm
        for _ in range(args.rounds):
            for name, measure in measured.items():
                rows.setdefault(name, []).append(measure(CALLS))
    report(rows)
    save("unary", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def bare_actors() -> Callable[[int], dict[str, float]]:
    options = {"num_cpus": 0, "max_concurrency": 1_000_000, "enable_task_events": False}
    actors = [ray.remote(Bare).options(**options).remote() for _ in range(WORKERS)]
    methods = [actor.add for actor in actors]
    ray.get([actor.pid.remote() for actor in actors])
    return _through_ray(lambda i: methods[i % WORKERS].remote(i, 3))


def snakepit_pool() -> Callable[[int], dict[str, float]]:
    pool = snakepit.start(name="bench", size=WORKERS, interpreter=sys.executable)
    return _through_ray(lambda i: pool.execute.remote("add", {"a": i, "b": 3}))


def _through_ray(send: Callable[[int], Any]) -> Callable[[int], dict[str, float]]:
    def measure(calls: int) -> dict[str, float]:
        row = {f"rate_{n}": closed_loop(send, calls, n) for n in IN_FLIGHT}
        return row | latencies(lambda i: ray.get(send(i)), min(calls, ALONE))

    return measure


def serve_handle() -> Callable[[int], dict[str, float]]:
    handle = no_op_of_serve()

    def measure(calls: int) -> dict[str, float]:
        count = max(100, calls // 5)  # it is slow: fewer calls say as much
        row = {}
        for n in IN_FLIGHT:
            began, waiting = time.perf_counter(), []
            for _ in range(count):
                waiting.append(handle.remote())
                if len(waiting) >= n:
                    waiting.pop(0).result()
            for response in waiting:
                response.result()
            row[f"rate_{n}"] = count / (time.perf_counter() - began)
        return row | latencies(lambda _: handle.remote().result(), min(count, ALONE))

    return measure


def actor_pool() -> Callable[[int], dict[str, float]]:
    actors = [ray.remote(PipeOwner).options(num_cpus=0).remote() for _ in range(WORKERS)]
    pool = ActorPool(actors)

    def measure(calls: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in pool.map(lambda actor, i: actor.add.remote(i, 3), range(calls)):
            pass
        rate = calls / (time.perf_counter() - began)
        alone = latencies(lambda i: ray.get(actors[i % WORKERS].add.remote(i, 3)), min(calls, ALONE))
        return {f"rate_{n}": rate for n in IN_FLIGHT} | alone

    return measure


def raw_grpc(directory: str) -> Callable[[int], dict[str, float]]:
    import grpc

    server = grpc.server(ThreadPoolExecutor(8))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Call": echo}),))
    server.add_insecure_port(f"unix:{directory}/s")
    server.start()
    call = grpc.insecure_channel(f"unix:{directory}/s").unary_unary("/bench.Echo/Call")

    def measure(calls: int) -> dict[str, float]:
        row = {}
        for n in IN_FLIGHT:
            began, waiting = time.perf_counter(), []
            for _ in range(calls):
                waiting.append(call.future(b"x"))
                if len(waiting) >= n:
                    waiting.pop(0).result()
            for future in waiting:
                future.result()
            row[f"rate_{n}"] = calls / (time.perf_counter() - began)
        return row | latencies(lambda _: call(b"x"), min(calls, ALONE))

    measure.keep = server  # type: ignore[attr-defined]
    return measure


def report(rows: dict[str, list[dict[str, float]]]) -> None:
    columns = [*(f"rate_{n}" for n in IN_FLIGHT), "p50_ms", "p99_ms"]
    heads = " | ".join([*(f"calls/s, {n} in flight" for n in IN_FLIGHT), "p50 ms, alone", "p99 ms"])
    print(f"| | {heads} |\n|---|" + "---|" * len(columns))
    for name, kept in rows.items():
        print(f"| {name} | " + " | ".join(f"{median(kept, column):.4g}" for column in columns) + " |")
    pool, bare, serve = rows["pool"], rows["bare actors"], rows["Serve handle"]
    for n in IN_FLIGHT:
        key = f"rate_{n}"
        to_bare = median([{"r": p[key] / b[key]} for p, b in zip(pool, bare, strict=True)], "r")
        to_serve = median([{"r": p[key] / s[key]} for p, s in zip(pool, serve, strict=True)], "r")
        print(f"\npool at {n} in flight: {to_bare:.2f} x bare actors, {to_serve:.1f} x Serve's handle")
    more = median([{"d": p["p50_ms"] - b["p50_ms"]} for p, b in zip(pool, bare, strict=True)], "d")
    tail = median([{"t": p["p99_ms"] / p["p50_ms"]} for p in pool], "t")
    print(f"\none caller: p50 + {more:.2f} ms over a bare actor, p99 {tail:.1f} x the p50")


if __name__ == "__main__":
    main()
