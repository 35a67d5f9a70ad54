"""How many chunks a second from an interpreter to the driver, how soon the first, and what does an idle
stream cost? Peers: the same pool without lanes, and Ray's own streaming generator of a bare async actor, one
chunk a ref, interleaved round by round.

Chunks are dicts of four small values (the showcase's `stream_data`). Idle: processor time of all processes of
the pool while a stream that yields nothing for IDLE_SECONDS is open, against the same time without one."""

from __future__ import annotations

import sys
import time
from typing import Any

import psutil
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, median, router_pid, save
from benchmarks.peers import Chunks

CHUNKS = 300_000
REFS = 3_000
FIRSTS = 200
IDLE_SECONDS = 5.0


def main() -> None:
    args = arguments(__doc__, rounds=3, chunks=CHUNKS)
    init_ray(2)
    header = machine()
    pool = snakepit.start(name="bench", size=1, interpreter=sys.executable)
    by_ray = snakepit.start(name="bench-by-ray", size=1, interpreter=sys.executable, lane="off")
    actor = ray.remote(Chunks).options(num_cpus=0).remote()
    rate(pool, 1000), rate(by_ray, 1000), refs(pool, 100), bare(actor, 100)  # warm
    rows: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        row = {"rate": rate(pool, args.chunks), "refs": refs(pool, REFS), "bare_refs": bare(actor, REFS)}
        row |= {"first_ms": first(pool), "bare_first_ms": bare_first(actor)}
        row |= {"by_ray_rate": rate(by_ray, args.chunks), "by_ray_first_ms": first(by_ray)}
        row["idle_ms_per_s"] = idle(pool, True) - idle(pool, False)
        rows.append(row)
    report(rows)
    save("streams", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def rate(pool: Any, count: int) -> float:
    """Chunks a second of `pool.stream`."""
    began = time.perf_counter()
    got = sum(1 for _ in pool.stream("stream_data", {"count": count}))
    assert got == count
    return count / (time.perf_counter() - began)


def refs(pool: Any, count: int) -> float:
    """Refs a second of `pool.execute_stream.remote`, each read."""
    began = time.perf_counter()
    for ref in pool.execute_stream.remote("stream_data", {"count": count}):
        ray.get(ref)
    return count / (time.perf_counter() - began)


def bare(actor: Any, count: int) -> float:
    """The same of Ray's own generator."""
    began = time.perf_counter()
    for ref in actor.stream_data.options(num_returns="streaming").remote(count):
        ray.get(ref)
    return count / (time.perf_counter() - began)


def first(pool: Any) -> float:
    """Milliseconds to the first chunk, the median of FIRSTS."""
    return _median_ms(lambda: next(iter(pool.stream("stream_data", {"count": 1}))))


def bare_first(actor: Any) -> float:
    """The same of Ray's own generator."""
    return _median_ms(lambda: ray.get(next(actor.stream_data.options(num_returns="streaming").remote(1))))


def _median_ms(call: Any) -> float:
    times = []
    for _ in range(FIRSTS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)[len(times) // 2]


def idle(pool: Any, with_stream: bool) -> float:
    """Milliseconds of processor time a second of the pool's processes, with an idle stream open or not."""
    pids = [pid for worker in pool.workers() for pid in (worker.pid, worker.actor_pid)]
    stream = pool.stream("infinite_stream", {"delay_ms": 1e7}) if with_stream else iter(())
    next(iter(stream), None)
    before = _cpu([*pids, router_pid(pool.name)])
    time.sleep(IDLE_SECONDS)
    used = _cpu([*pids, router_pid(pool.name)]) - before
    if with_stream:
        stream.close()
    return used * 1e3 / IDLE_SECONDS


def _cpu(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def report(rows: list[dict[str, Any]]) -> None:
    def cell(name: str, form: str = ",.0f") -> str:
        return format(median(rows, name), form)

    print("| | pool | without lanes | Ray's generator |\n|---|---|---|---|")
    print(f"| chunks/s, `pool.stream` | {cell('rate')} | {cell('by_ray_rate')} | |")
    print(f"| refs/s, one chunk each | {cell('refs')} | | {cell('bare_refs')} |")
    firsts = " | ".join(cell(name, ".2f") for name in ("first_ms", "by_ray_first_ms", "bare_first_ms"))
    print(f"| first chunk, p50 ms | {firsts} |")
    print(f"| an idle stream, ms of processor time a second | {cell('idle_ms_per_s', '.2f')} | | |")


if __name__ == "__main__":
    main()
