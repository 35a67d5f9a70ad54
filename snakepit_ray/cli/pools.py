"""Knows the commands that work on running pools: up, down, call, status, demo."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import ray

from snakepit_ray.actors import ray_port
from snakepit_ray.config import CallOptions
from snakepit_ray.errors import InvalidArguments, PoolNotFound, SnakepitError
from snakepit_ray.pool import Pool
from snakepit_ray.starting import connect, start, start_all

KNOCK_SECONDS = 5.0
STEP_SECONDS = 0.1
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


def up(file: str, address: str | None) -> int:
    """Starts the pools of a file, detached, showing how far they are."""
    join(address)
    pools = start_all(file, detached=True, on_progress=_show)
    for name, pool in sorted(pools.items()):
        print(f"{name}: {len(pool.workers())} workers ready")
    for name, error in sorted(pools.failed.items()):
        print(f"{name}: FAILED: {error}", file=sys.stderr)
    return 1 if pools.failed else 0


def down(names: Sequence[str], address: str | None) -> int:
    """Ends the pools of these names, or all."""
    join(address)
    running = ray_port.pool_names()
    if not names and not running:
        print("no pool is running")
    failed = False
    for name in names or running:
        try:
            connect(name).shutdown()
            print(f"{name}: down")
        except SnakepitError as error:  # the others are still to be ended
            print(f"{name}: FAILED: {error}", file=sys.stderr)
            failed = True
    return int(failed)


def call(args: argparse.Namespace) -> int:
    """Runs one command on a pool and prints what it returns."""
    values = arguments(args.args)
    given = {"session": args.session, "timeout": args.timeout}
    options = {key: value for key, value in given.items() if value is not None}
    CallOptions(**options)  # refuses what is wrong before anything is looked for
    join(args.address)
    value = connect(args.pool).execute(args.command, values, **options)
    print(json.dumps(value, default=_plain, ensure_ascii=False))
    return 0


def arguments(text: str) -> dict[str, Any]:
    """A command's arguments from JSON. Raises InvalidArguments."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidArguments(f"the arguments are not JSON: {error}; got {text!r}") from error
    if not isinstance(values, dict):
        raise InvalidArguments(f'the arguments: got {text}, expected a JSON object such as {{"a": 5}}')
    return values


def _plain(value: Any) -> Any:
    """JSON for what has none: arrays and tables as lists, the rest as it shows itself."""
    for method in ("tolist", "to_pylist"):
        if hasattr(value, method):
            return getattr(value, method)()
    return repr(value)


def status(as_json: bool, detailed: bool, address: str | None) -> int:
    """Every pool that runs and its workers; `detailed`: with the last events of each worker."""
    join(address)
    facts = {name: _facts(connect(name), detailed) for name in ray_port.pool_names()}
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    if not facts:
        print("no pool is running")
    for name, pool in facts.items():
        numbers = ", ".join(f"{key} {value}" for key, value in pool["stats"].items())
        print(f"{name}: {numbers}")
        _table(pool["workers"])
        for worker_id, story in pool.get("stories", {}).items():
            print(f"  {worker_id}:", *(f"    {event}" for event in story), sep="\n")
    return 0


def _facts(pool: Pool, detailed: bool) -> dict[str, Any]:
    stats = pool.stats()
    facts = {
        "stats": {key: getattr(stats, key) for key in stats.__dataclass_fields__},
        "workers": [worker._asdict() for worker in pool.workers()],
    }
    return {**facts, "stories": pool.stories()} if detailed else facts


def recycle(name: str, worker_id: str | None, address: str | None) -> int:
    """Replaces the interpreters of a pool, or one of them; returns when that is done."""
    join(address)
    pool = connect(name)
    before = {worker.worker_id: worker.epoch for worker in pool.workers()}
    told = pool.recycle(worker_id)
    if not told:
        print(f"{name}: no worker {worker_id or ''} that is ready; see snakepit-ray status", file=sys.stderr)
        return 1
    deadline = time.monotonic() + told * pool.config.startup_timeout
    wanted = {worker_id} if worker_id else set(before)
    while left := [w for w in pool.workers() if w.worker_id in wanted and w.epoch == before.get(w.worker_id)]:
        if time.monotonic() > deadline:
            names = ", ".join(worker.worker_id for worker in left)
            print(
                f"{name}: not replaced within {told * pool.config.startup_timeout:g} s: {names}",
                file=sys.stderr,
            )
            return 1
        time.sleep(STEP_SECONDS)
    print(f"{name}: {told} replaced")
    return 0


COLUMNS = (
    "worker_id",
    "state",
    "pid",
    "node_id",
    "running",
    "waiting",
    "requests",
    "errors",
    "restarts",
    "recycled",
)


def _table(workers: list[dict[str, Any]]) -> None:
    rows = [COLUMNS, *(tuple(_short(worker[column]) for column in COLUMNS) for worker in workers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 56 else text  # a Ray node id in hex


def demo(address: str | None) -> int:
    """A short tour on the showcase adapter: in the cluster that is named, else in one of its own."""
    join_or_begin(address)
    with start(name="snakepit-demo", size=2, on_progress=_show) as pool:
        print(f"pool: {pool!r}")
        print(f"add:  {ray.get(pool.execute.remote('add', {'a': 5, 'b': 3}))}")
        session = pool.session("tour")
        for _ in range(3):
            counted = session.execute("increment_counter")
        print(f"session 'tour', counted to: {counted}")
        total = sum(1 for _ in pool.map("lightweight_task", ({"iteration": i} for i in range(200))))
        print(f"map:  {total} requests")
        print(f"numbers: {pool.stats()}")
    return 0


def _show(name: str, ready: int, failed: int, wanted: int) -> None:
    text = f"{name}: {ready} of {wanted} workers ready" + (f", {failed} failed" if failed else "")
    end = "\n" if not sys.stderr.isatty() or ready + failed >= wanted else "\r"
    if end == "\r" or ready + failed >= wanted:
        print(text, file=sys.stderr, end=end, flush=True)


def join_or_begin(address: str | None) -> None:
    """The cluster that is named, by `address` or RAY_ADDRESS, else one of its own that ends with this
    process."""
    if ray_port.is_connected():
        return
    if address is not None or "RAY_ADDRESS" in os.environ:
        join(address)
    else:
        print("starting Ray on this machine", file=sys.stderr, flush=True)
        ray_port.ensure_ray(address="local", include_dashboard=False, **QUIET)


def join(address: str | None) -> None:
    """Connects to the cluster that is there. Raises PoolNotFound when there is none."""
    if ray_port.is_connected():
        return
    try:
        _knock(address)
        ray_port.ensure_ray(address=address or "auto", **QUIET)
    except (OSError, RuntimeError, ray_port.RayError) as error:  # nobody there; another version; no token
        raise PoolNotFound(
            f"no Ray cluster was joined ({error}); start one with `ray start --head`, or name it: --address"
        ) from error


def _knock(address: str | None) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself takes more than a minute to say so."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
        except OSError as error:
            raise OSError(f"{address} does not answer: {error}") from error
