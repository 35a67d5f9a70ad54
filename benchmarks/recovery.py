"""How long is something gone that was killed? From SIGKILL until it serves again, over --kills kills of each.

Interpreter and worker actor: idle, in a pool of 1, until a request is answered by the next interpreter (sent
again at once where it fails). Router: of a pool of 4, until stats() answers with all workers. Session store:
until a variable is set; no worker has copies, for which the next store would wait 2 s."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, router_pid, save
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE

ROUTER_WORKERS = 4
AGAIN_SECONDS = 0.005
LIMIT_SECONDS = 120.0
# An interpreter that lived shorter counts as failing at its start, and its successor is made to wait.
STEADY_SECONDS = 11.0


def main() -> None:
    args = arguments(__doc__, rounds=1, kills=20, pause=STEADY_SECONDS)
    init_ray()
    header = machine()
    one = snakepit.start(name="one", size=1, interpreter=sys.executable)
    four = snakepit.start(name="four", size=ROUTER_WORKERS, interpreter=sys.executable)
    one.execute("ping"), four.execute("ping")
    one.session("s").variables.register("x", "float", 0.0)
    kills = {
        "interpreter": lambda: after_kill(one, one.workers()[0].pid),
        "worker actor": lambda: after_kill(one, one.workers()[0].actor_pid),
        "router": lambda: router_gone(four),
        "session store": lambda: store_gone(one),
    }
    seconds: dict[str, list[float]] = {}
    print("| killed | back after, median s | p90 s | longest s | kills |\n|---|---|---|---|---|")
    for name, kill in kills.items():
        times = seconds[name] = sorted(paused(kill, args.pause) for _ in range(args.kills * args.rounds))
        p90 = times[min(len(times) - 1, int(len(times) * 0.9))]
        middle = statistics.median(times)
        print(f"| {name} | {middle:.2f} | {p90:.2f} | {times[-1]:.2f} | {len(times)} |", flush=True)
    save("recovery", args.json, {"machine": header, "pause_s": args.pause, "seconds": seconds})
    snakepit.shutdown()


def paused(kill: Callable[[], float], pause: float) -> float:
    """One kill, and then long enough that the next one finds something steady."""
    seconds = kill()
    threading.Event().wait(pause)
    return seconds


def after_kill(pool: Any, pid: int) -> float:
    """Seconds until another interpreter than the present one has answered."""
    (before,) = pool.workers()
    os.kill(pid, signal.SIGKILL)
    return until(lambda: pool.execute("get_worker_info")["worker_pid"] != before.pid)


def router_gone(pool: Any) -> float:
    pid = router_pid(pool.name)
    os.kill(pid, signal.SIGKILL)
    return until(lambda: pool.stats().available == ROUTER_WORKERS and router_pid(pool.name) != pid)


def store_gone(pool: Any) -> float:
    pid = ray.get(ray.get_actor(STORE, NAMESPACE).get_pid.remote())
    os.kill(pid, signal.SIGKILL)
    return until(lambda: pool.session("s").variables.set("x", 1.0) > 0)


def until(condition: Callable[[], bool]) -> float:
    """Seconds until it holds; errors mean not yet."""
    began, last = time.perf_counter(), None
    while time.perf_counter() - began < LIMIT_SECONDS:
        try:
            if condition():
                return time.perf_counter() - began
        except Exception as error:
            last = repr(error)
        threading.Event().wait(AGAIN_SECONDS)
    raise SystemExit(f"not back within {LIMIT_SECONDS:g} s: the last error: {last}")


if __name__ == "__main__":
    main()
