"""The command `doctor`: looks at what this machine has to run pools, and says of each failing line what to do
about it.

- It works where Ray does not, and says more where Ray does.
- It changes nothing.
- Its exit status is 1 when something that pools need is missing.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from snakepit_ray.cli.interpreters import Interpreter, ask
from snakepit_ray.config import environment_default
from snakepit_ray.config.languages import TABLE
from snakepit_ray.core.state.asked import StoreStats
from snakepit_ray.errors import ConfigError, SnakepitError
from snakepit_ray.runtimes.python import VARIABLE

STORE_SECONDS = 10.0
SHM_WARN_BYTES = 512 * 1024 * 1024
LOCAL = os.path.join(".venv", "bin", "python")


class Finding(NamedTuple):
    """One line: `level` is ok, note (nothing that pools need) or bad; `advice` says what to do."""

    level: str
    what: str
    advice: str = ""


def run(interpreters: Sequence[str], address: str | None = None) -> int:
    """Looks at this machine, and at the pools of its cluster, and prints what it finds. `address`: the
    cluster, where it is not the only one here."""
    bad = False
    for level, what, advice in chain(look(interpreters), pools(address)):
        said = f"{'ok  ' if level == 'ok' else level:<5}{what}" + (f"\n     -> {advice}" if advice else "")
        print(said, flush=True)  # to join a cluster takes seconds, and says which one to stderr
        bad = bad or level == "bad"
    return int(bad)


def look(interpreters: Sequence[str]) -> list[Finding]:
    """Everything that there is to say of this machine."""
    return [*packages(), shared_memory(), *lane(), *pythons(interpreters), *languages()]


def packages() -> Iterator[Finding]:
    """Ray and gRPC in this Python."""
    for name, least in (("ray", (2, 60)), ("grpcio", (1, 80)), ("protobuf", (6, 31)), ("pyarrow", (17,))):
        wanted = ".".join(map(str, least))
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("bad", f"{name} is not installed", f"pip install '{name}>={wanted}'")
            continue
        new = tuple(int(part) for part in re.findall(r"\d+", version)[: len(least)]) >= least
        advice = "" if new else f"pip install --upgrade '{name}>={wanted}'"
        yield Finding("ok" if new else "bad", f"{name} {version}", advice)


def shared_memory() -> Finding:
    """Free bytes in /dev/shm, where Ray's object store lives."""
    try:
        facts = os.statvfs("/dev/shm")
    except OSError:
        return Finding("note", "no /dev/shm on this system: Ray keeps objects elsewhere")
    free = facts.f_bavail * facts.f_frsize
    advice = "" if free >= SHM_WARN_BYTES else "in a container: docker run --shm-size=2g"
    return Finding("ok" if not advice else "note", f"shared memory: {free / 1e9:.1f} GB free", advice)


def lane() -> Iterator[Finding]:
    """Whether workers of this user can have lanes here, and callers reach them: tried out."""
    try:
        from snakepit_ray.process import lanes
    except ImportError:  # `packages` has said so
        return
    try:
        yield Finding("ok", f"lanes of user {os.geteuid()} lie in {lanes.try_out()}")
    except ConfigError as error:  # it says what to do
        yield Finding("note", f"no lanes, calls go by Ray: {error}")
    except (OSError, lanes.NoLane) as error:
        advice = f"set TMPDIR to a short directory that user {os.geteuid()} can write to"
        yield Finding("note", f"no lanes, calls go by Ray: {error}", advice)


def pools(address: str | None) -> Iterator[Finding]:
    """Of each pool that runs: the workers whose lanes calls from here do not take, and why. Nothing where no
    cluster is named and none runs here."""
    try:
        from snakepit_ray.cli import clusters, status
        from snakepit_ray.store import spawn
    except ImportError:  # `packages` has said so
        return
    if address is None and not os.environ.get("RAY_ADDRESS") and not clusters.running():
        return
    try:
        with clusters.left_at_the_end():
            clusters.join(address)
            for name, reasons in status.lanes().items():
                yield from _of_pool(name, reasons)
            yield from _of_store(spawn.ask_stats(STORE_SECONDS))
    except SnakepitError as error:
        yield Finding("note", f"the pools were not looked at: {error}")


def _of_store(stats: StoreStats | SnakepitError | None) -> Iterator[Finding]:
    """What the store of sessions says of itself; None where the cluster has none."""
    if isinstance(stats, SnakepitError):
        yield Finding("note", f"session store: {stats}")
    elif stats is not None:
        where = f"{stats.kind}{' at ' if stats.path else ''}{stats.path}"
        yield Finding("ok", f"session store: {where}, {stats.sessions} sessions, {stats.bytes / 1e6:.1f} MB")
        if stats.full:
            yield Finding(
                "bad", f"session store: the last write failed: {stats.full}", "make room on its disk"
            )
        if stats.reset_from:
            yield Finding("note", f"session store: a damaged one was set aside as {stats.reset_from}")


def _of_pool(name: str, reasons: dict[str, str] | str) -> Iterator[Finding]:
    if isinstance(reasons, str):
        yield Finding("note", f"pool {name}: {reasons}")
        return
    by_reason: dict[str, list[str]] = {}
    for worker_id, why in sorted(reasons.items()):
        by_reason.setdefault(why, []).append(worker_id)
    for why, workers in by_reason.items():
        way = f"go by Ray: {why}" if why else "take their lanes"
        yield Finding("note" if why else "ok", f"pool {name}: calls from here to {', '.join(workers)} {way}")


def pythons(more: Sequence[str]) -> Iterator[Finding]:
    """Each Python that is found, once: whether the bridge runs there. Those that pools take are first: the
    named ones, SNAKEPIT_PYTHON, .venv of this directory, this one."""
    named = [(path, path) for path in more]
    variable = environment_default(VARIABLE)
    if variable is not None:
        named.append((variable, f"{VARIABLE}={variable}"))
    if os.path.exists(LOCAL):
        named.append((LOCAL, LOCAL))
    needed = {path for path, _ in named} | {sys.executable}
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for path, words in [*named, *((path, path) for path in [sys.executable, *_found()])]:
        found = ask(os.path.abspath(shutil.which(path) or path))
        if found is None:
            if path in needed:
                yield Finding("bad", f"{words} does not run", "name the path of a working interpreter")
        elif (found.prefix, found.version) not in seen:  # many paths lead to one environment
            seen.add((found.prefix, found.version))
            yield _finding(found, path in needed)


def _finding(found: Interpreter, needed: bool) -> Finding:
    if not found.unfit:
        how = "; without grpcio, so requests travel as frames alone" if found.alone else ""
        return Finding("ok", f"{found}: the bridge imports{how}")
    words, level = f"{found}: {found.unfit}", "bad" if needed else "note"
    if found.is_too_old:
        return Finding(level, words, "name another interpreter" if needed else "")
    return Finding(level, words, f"snakepit-ray setup {found.path}")


def _found() -> Iterable[str]:
    names = ["python3", *(f"python3.{minor}" for minor in range(6, 16))]
    on_path = (shutil.which(name) for name in names)
    return [path for path in on_path if path] + sorted(
        glob.glob(str(Path.home() / ".pyenv/versions/3*/bin/python"))
    )


def languages() -> Iterator[Finding]:
    """Other interpreters, for pools with a Runtime of one's own."""
    for language in TABLE:
        path = None if language.has_bridge else shutil.which(language.program)
        if path:
            yield Finding(
                "note", f"{language.program} at {path}: this version runs Python; bring a Runtime for others"
            )
