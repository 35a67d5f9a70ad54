"""Knows what a machine needs to run pools: looks, and says of each failing line what to do about it.

Rules: works where Ray does not; changes nothing; exit status 1 when something that pools need is missing.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from snakepit_ray.runtimes.python import bridge_directory

LOOK_SECONDS = 20.0
SHM_WARN_BYTES = 512 * 1024 * 1024
PROBE = (
    "import sys; sys.path.insert(0, sys.argv[1]); print('.'.join(map(str, sys.version_info[:3]))); "
    "import grpc, google.protobuf; import snakepit_bridge; print('ok')"
)


class Finding(NamedTuple):
    """One line: `level` is ok, note (nothing that pools need) or bad; `advice` says what to do."""

    level: str
    what: str
    advice: str = ""


def run(interpreters: Sequence[str]) -> int:
    """Looks at this machine and prints what it finds."""
    findings = look(interpreters)
    for level, what, advice in findings:
        print(f"{'ok  ' if level == 'ok' else level:<5}{what}" + (f"\n     -> {advice}" if advice else ""))
    return int(any(finding.level == "bad" for finding in findings))


def look(interpreters: Sequence[str]) -> list[Finding]:
    """Everything that there is to say of this machine."""
    return [*packages(), shared_memory(), *pythons(interpreters), *languages()]


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


def pythons(more: Sequence[str]) -> Iterator[Finding]:
    """Each Python that is found: its version, and whether the bridge imports there."""
    for path in _unique([*more, sys.executable, *_found()]):
        answer = _ask(path)
        if answer is None:
            if path in more:
                yield Finding("bad", f"{path} does not run", "name the path of a working interpreter")
            continue
        version, works, words = answer
        if works:
            yield Finding("ok", f"Python {version} at {path}: the bridge imports")
        else:
            level = "bad" if path in (*more, sys.executable) else "note"
            yield Finding(level, f"Python {version} at {path}: {words}", f"snakepit-ray setup {path}")


def _found() -> Iterable[str]:
    names = ["python3", *(f"python3.{minor}" for minor in range(9, 16))]
    on_path = (shutil.which(name) for name in names)
    return [path for path in on_path if path] + sorted(
        glob.glob(str(Path.home() / ".pyenv/versions/3*/bin/python"))
    )


def _unique(paths: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for path in paths:
        place = os.path.abspath(path)  # not realpath: a virtual environment's python is a link to another's
        if place not in seen:
            seen.add(place)
            yield path


def _ask(path: str) -> tuple[str, bool, str] | None:
    """(version, the bridge imports, why not), or None for what is not a Python."""
    try:
        ran = subprocess.run(
            [path, "-c", PROBE, str(bridge_directory())],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = ran.stdout.split()
    if not said:
        return None
    last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return said[0], said[-1] == "ok", last


def languages() -> Iterator[Finding]:
    """Other interpreters, for pools with a Runtime of one's own."""
    for name in ("node", "ruby", "Rscript", "go"):
        path = shutil.which(name)
        if path:
            yield Finding("note", f"{name} at {path}: this version runs Python; bring a Runtime for others")
