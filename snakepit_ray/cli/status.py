"""The command `status`: every pool that runs, whether it is ready, and its workers.

Exit status: 0 when every worker of every pool is ready, 3 when one is not or a pool does not answer. A worker
that is on its way out is none that is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from snakepit_ray.cli.clusters import join
from snakepit_ray.cli.printing import coloured, print_json, table
from snakepit_ray.client.pool import Pool
from snakepit_ray.client.start import connect
from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.errors import SnakepitError
from snakepit_ray.port import ray_port

NOT_READY_STATUS = 3
COLUMNS = (
    "worker_id",
    "state",
    "pid",
    "node_name",
    "running",
    "waiting",
    "requests",
    "errors",
    "restarts",
    "recycled",
)
STATE_COLOURS = {"ready": "good", "starting": "busy", "draining": "busy", "quarantined": "bad", "dead": "bad"}


def status(as_json: bool, detailed: bool, address: str | None) -> int:
    """Prints every pool and its workers; `detailed`: with the last events of each worker, and why its lane
    is not used from here."""
    join(address)
    facts = {name: _facts(name, detailed) for name in ray_port.pool_names()}
    if as_json:
        print_json(facts, indent=2)
    elif not facts:
        print("no pool is running")
    else:
        for name, pool in facts.items():
            _print(name, pool)
    return 0 if all(pool["ready"] for pool in facts.values()) else NOT_READY_STATUS


def lanes() -> dict[str, dict[str, str] | str]:
    """Of each pool of the cluster that was joined: why the lane of each worker is not used from here, ""
    where it is; or why the pool does not say."""
    found: dict[str, dict[str, str] | str] = {}
    for name in ray_port.pool_names():
        try:
            found[name] = connect(name).lanes()
        except SnakepitError as error:  # the others are still to be shown
            found[name] = f"{type(error).__name__}: {error}"
    return found


def verdict(states: Sequence[str]) -> tuple[bool, str]:
    """Whether a pool with workers in these states is ready, and how to say it."""
    counted = Counter(states)
    leaving = counted.pop(WorkerState.DRAINING, 0)
    size = sum(counted.values())
    ready = counted.pop(WorkerState.READY, 0)
    words = [f"{ready} of {size} workers ready", *(f"{n} {state}" for state, n in sorted(counted.items()))]
    words += [f"{leaving} leaving"] if leaving else []
    good = ready == size > 0
    return good, ("ready: " if good else "NOT READY: ") + ", ".join(words)


def _facts(name: str, detailed: bool) -> dict[str, Any]:
    try:
        return _facts_of(connect(name), detailed)
    except SnakepitError as error:  # the others are still to be shown
        return {"ready": False, "error": f"{type(error).__name__}: {error}"}


def _facts_of(pool: Pool, detailed: bool) -> dict[str, Any]:
    workers = [worker._asdict() for worker in pool.workers()]
    good, words = verdict([worker["state"] for worker in workers])
    facts = {"ready": good, "verdict": words, "stats": asdict(pool.stats()), "workers": workers}
    return {**facts, "stories": pool.stories(), "lanes": pool.lanes()} if detailed else facts


def _print(name: str, pool: dict[str, Any]) -> None:
    if "error" in pool:
        print(f"{name}: " + coloured(f"NOT READY: {pool['error']}", "bad"))
        return
    print(f"{name}: " + coloured(pool["verdict"], "good" if pool["ready"] else "bad"))
    print("  " + ", ".join(f"{key} {value}" for key, value in pool["stats"].items()))
    _print_workers(pool["workers"])
    for worker_id, why in pool.get("lanes", {}).items():
        print(f"  {worker_id}: calls of this machine go by {f'Ray: {why}' if why else 'its lane'}")
    for worker_id, story in pool.get("stories", {}).items():
        print(f"  {worker_id}:", *(f"    {event}" for event in story), sep="\n")


def _print_workers(workers: list[dict[str, Any]]) -> None:
    rows = [COLUMNS, *(tuple(str(worker[column]) for column in COLUMNS) for worker in workers)]
    header, *lines = table(rows, "  ")
    print(header)
    for line, worker in zip(lines, workers, strict=True):
        state = str(worker["state"])
        print(line.replace(state, coloured(state, STATE_COLOURS.get(state, "bad")), 1))
        if worker["error"]:
            print(f"    {coloured(worker['error'].strip(), 'bad')}")
