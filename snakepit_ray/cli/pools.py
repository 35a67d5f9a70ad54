"""The commands that work on pools: up, down, call, recycle, demo."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from snakepit_ray.cli.clusters import join, join_or_begin
from snakepit_ray.cli.printing import print_json
from snakepit_ray.cli.status import verdict
from snakepit_ray.client.start import connect, shutdown, start, start_all
from snakepit_ray.config import CallOptions, read_toml
from snakepit_ray.errors import ConfigError, InvalidArguments, SnakepitError
from snakepit_ray.port import leftovers, ray_port

STEP_SECONDS = 0.1


def up(file: str, address: str | None) -> int:
    """Starts the pools of a file, detached, showing how far they are."""
    read_toml(file)  # a file that is not there or wrong is told before any cluster is joined
    join(address)
    pools = start_all(file, detached=True, on_progress=_show)
    for name, pool in sorted(pools.items()):
        print(f"{name}: {verdict([worker.state for worker in pool.workers()])[1]}")
    for name, error in sorted(pools.failed.items()):
        print(f"{name}: FAILED: {error}", file=sys.stderr)
    return 1 if pools.failed else 0


def down(names: Sequence[str], everything: bool, address: str | None) -> int:
    """Ends the pools of these names, or with `everything` all of the cluster: some may be somebody else's, so
    that is asked for in a word. Raises ConfigError for neither and for both."""
    if names and everything:
        raise ConfigError("down: name pools, or --all: one of the two")
    join(address)
    running = sorted({*ray_port.pool_names(), *(worker.pool for worker in leftovers.find())})
    if not names and not everything:
        there_are = f"running: {', '.join(running)}" if running else "no pool is running"
        raise ConfigError(f"down: name the pools that are to end, or --all; {there_are}")
    if everything and not running:
        print("no pool is running")
    failed = False
    for name in names or running:
        try:
            shutdown(name)
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
    print_json(value)
    return 0


def arguments(text: str) -> dict[str, Any]:
    """A command's arguments from JSON. Raises InvalidArguments."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"the arguments are not JSON: {error}; got {text!r:.200}") from error
    if not isinstance(values, dict):
        raise InvalidArguments(f'the arguments: got {text}, expected a JSON object such as {{"a": 5}}')
    return values


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


def describe(name: str, as_json: bool, address: str | None) -> int:
    """Prints what a pool offers: its commands and its tools."""
    join(address)
    said = connect(name).describe()
    if as_json:
        print_json(said.to_dict(), indent=2)
        return 0
    for command in said.commands.values():
        print(described(command.name, command.parameters, command.is_stream, command.doc))
    for tool in said.tools:
        kind = f"tool of session {tool.session!r}" if tool.session else "tool"
        about = f"{kind}, {tool.where}" + (f": {tool.description}" if tool.description else "")
        print(described(tool.name, tool.parameters, tool.is_stream, about))
    return 0


def described(name: str, schema: Mapping[str, Any], is_stream: bool, doc: str) -> str:
    """One line: `add(a: number, b: number = 1)  Adds.`"""
    required = schema.get("required", ())
    words = [
        argument_words(argument, said, argument in required)
        for argument, said in schema.get("properties", {}).items()
    ]
    if schema.get("additionalProperties"):
        words.append("...")
    text = f"{name}({', '.join(words)})" + (" -> stream" if is_stream else "")
    return f"{text}  {doc.partition(chr(10))[0]}".rstrip()


def argument_words(name: str, said: Mapping[str, Any], is_required: bool) -> str:
    """`b: number = 1` of an argument; `?` where it may be left out and has no default that JSON can say."""
    kinds = [str(one.get("type", "any")) for one in said.get("anyOf", [said])]
    kind = " | ".join(map(json.dumps, said["enum"])) if "enum" in said else " | ".join(kinds)
    text = name if kind == "any" else f"{name}: {kind}"
    if "default" in said:
        return f"{text} = {json.dumps(said['default'])}"
    return text if is_required else f"{text}?"


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
        stats = pool.stats()
        print(f"in all: {stats.requests} requests on {stats.workers} workers, {stats.errors} errors")
    return 0


def _show(name: str, ready: int, failed: int, wanted: int) -> None:
    """How far a start is: on a terminal, in one line that goes when it is over."""
    if not sys.stderr.isatty():
        return
    over = ready + failed >= wanted
    text = f"{name}: {ready} of {wanted} workers ready" + (f", {failed} failed" if failed else "")
    print("\r\x1b[K" + ("" if over else text), file=sys.stderr, end="", flush=True)
