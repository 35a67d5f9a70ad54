"""The interpreters that this user has on this node, and the end of those whose owner is gone.

- The entry is on disk before the process exists, and goes when the process is gone.
- A process is ended because it carries the entry's token, never because of a pid (process/tree.py).
- An entry whose owner lives is left alone.
- What cannot be judged from here (another PID namespace, another host on a shared file system) is not
  judged.
- A file that is no entry is no error. Sweeps may run at the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import platform
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from snakepit_ray.process import lanes, node, sockets, state_files, tree
from snakepit_ray.process.node import node_directory

Base: TypeAlias = str | os.PathLike[str] | None

FOLDER = "processes"
SUFFIX = ".json"
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
SIZE_LIMIT = 65_536
LAST_SECOND = 1e11  # of any time that is one: not infinite, not a number of 400 digits
KILL_SECONDS = 2.0
RUBBISH_SECONDS = 60.0  # a file that is no entry may be one that is being written
ELSEWHERE_SECONDS = 7 * 86_400.0  # nobody here can say that its owner is gone, and it must not stay for ever


@dataclass(frozen=True)
class Record:
    """The facts of one incarnation, as its file has them. `pid` is 0 until the process has been started."""

    token: str
    host: str
    boot_id: str
    namespace: str
    owner_pid: int
    owner_started: str
    worker_id: str
    pool: str
    directory: str
    created_at: float
    pid: int = 0
    started: str = ""


class State(str, enum.Enum):
    """What there is of an incarnation."""

    ALIVE = "alive"  # processes carry its token, and its owner lives
    ORPHAN = "orphan"  # processes carry its token, and its owner is gone: a sweep ends them
    DEAD = "dead"  # no process carries its token
    ELSEWHERE = "elsewhere"  # in another PID namespace or on another host


class Entry(NamedTuple):
    """A record, its state, and the processes that carry its token now."""

    record: Record
    state: State
    processes: tuple[tree.Identity, ...]


class Swept(NamedTuple):
    """What a sweep did: pids that it killed, how many entries it removed, and which other files and
    directories."""

    killed: list[int]
    entries: int
    files: list[Path]


class Registration:
    """The entry of one incarnation, in the hands of its owner."""

    def __init__(self, path: Path, record: Record) -> None:
        self.path = path
        self.record = record
        self._removed = False

    def started(self, pid: int) -> None:
        """Adds the process that was started."""
        process = tree.identity(pid)
        self.record = dataclasses.replace(self.record, pid=pid, started=process.started if process else "")
        if not self._removed:
            with contextlib.suppress(OSError):  # the pid is for people: the token finds the process
                _write(self.path, self.record)

    def remove(self) -> None:
        """For when the process is gone. Safe to repeat."""
        self._removed = True
        with contextlib.suppress(OSError):  # a sweep has it later
            self.path.unlink()


def register(token: str, worker_id: str, pool: str, directory: str, *, base: Base = None) -> Registration:
    """Writes down an incarnation that is about to be started by this process: `directory` is its socket's.

    Raises ConfigError when the node directory is not ours alone, OSError when nothing can be written."""
    host, boot_id, namespace = _here()
    owner = tree.identity(os.getpid()) or tree.Identity(os.getpid(), "")
    record = Record(
        token, host, boot_id, namespace, *owner, worker_id, pool, os.fspath(directory), time.time()
    )
    path = node.make(FOLDER, base) / f"{token}{SUFFIX}"
    _write(path, record)
    return Registration(path, record)


def entries(*, base: Base = None) -> list[Entry]:
    """Every incarnation that is written down on this node, oldest first. Changes nothing."""
    records, _ = _read(base)
    here, carried = _here(), tree.families({record.token for record in records})
    found = []
    for record in sorted(records, key=lambda record: record.created_at):
        processes, lives = carried.get(record.token, []), _owner_lives(record, here)
        state = State.ORPHAN if processes else State.DEAD
        if lives is None:
            state = State.ELSEWHERE
        elif lives and processes:
            state = State.ALIVE
        found.append(Entry(record, state, tuple(processes)))
    return found


def sweep(*, base: Base = None) -> Swept:
    """Ends what is left of incarnations whose owner is gone; removes their entries and socket directories,
    files that are no entries, state files that nobody needs, and the lanes of worker actors that are gone.

    Blocks, up to KILL_SECONDS when something does not want to die. Raises ConfigError when the node directory
    is not ours alone."""
    records, rubbish = _read(base)
    here, now = _here(), time.time()
    lives = {record: _owner_lives(record, here) for record in records}
    abandoned = [record for record in records if lives[record] is False]
    killed, carried = (
        tree.end({record.token for record in abandoned}, KILL_SECONDS) if abandoned else ([], set())
    )
    # Their workers may come back: the time of what these left for themselves runs from now.
    state_files.touch({record.worker_id for record in abandoned}, base)
    ended = [record for record in abandoned if record.token not in carried]
    files = sockets.remove((record.directory for record in ended), base)
    removed = sum(_remove_entry(record, 0.0, now, base) for record in ended)
    elsewhere = (record for record in records if lives[record] is None)
    removed += sum(_remove_entry(record, ELSEWHERE_SECONDS, now, base) for record in elsewhere)
    files += [path for path in rubbish if node.remove_if_ours(path, RUBBISH_SECONDS, now)]
    files += state_files.sweep({record.worker_id for record in records}, now, base)
    files += lanes.sweep(now, base)
    return Swept(killed, removed, files)


def _here() -> tuple[str, str, str]:
    """Host, boot and PID namespace: where a pid means the same process as it does to us."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return platform.node(), boot_id, os.readlink("/proc/self/ns/pid")
    except OSError:  # not on this system: a pid and its start time must do
        return platform.node(), "", ""


def _owner_lives(record: Record, here: tuple[str, str, str]) -> bool | None:
    """None when nobody here can say."""
    host, boot_id, namespace = here
    if record.boot_id != boot_id:
        return False if record.host == host else None  # nothing outlives a reboot
    if record.namespace != namespace:
        return None
    return tree.identity(record.owner_pid) == (record.owner_pid, record.owner_started)


def _write(path: Path, record: Record) -> None:
    node.write(path, json.dumps(dataclasses.asdict(record)).encode())


def _read(base: Base) -> tuple[list[Record], list[Path]]:
    """Every entry, and the paths of what is none."""
    folder = node.find(FOLDER, base)
    records, rubbish = [], []
    for path in (folder / name for name in os.listdir(folder)) if folder else ():
        try:
            record = _record(path)
        except FileNotFoundError:  # removed since we looked
            continue
        except OSError:
            record = None
        if record is None:
            rubbish.append(path)
        else:
            records.append(record)
    return records, rubbish


def _record(path: Path) -> Record | None:
    # Neither a link is followed nor a pipe waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            return None
        data = os.read(descriptor, SIZE_LIMIT)
    finally:
        os.close(descriptor)
    record = _parse(data)
    return record if record is not None and path.name == record.token + SUFFIX else None


KINDS: dict[str, Any] = {
    field.name: {"str": str, "int": int, "float": (int, float)}[str(field.type)]
    for field in dataclasses.fields(Record)
}


def _parse(data: bytes) -> Record | None:
    try:
        said = json.loads(data)
        facts = {name: said[name] for name in KINDS}  # a later version may say more
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(isinstance(facts[name], kind) for name, kind in KINDS.items()):
        return None
    right = TOKEN.fullmatch(facts["token"]) is not None and 0 <= facts["created_at"] < LAST_SECOND
    return Record(**facts) if right else None


def _remove_entry(record: Record, older_than: float, now: float, base: Base) -> bool:
    return node.remove_if_ours(node_directory(base) / FOLDER / f"{record.token}{SUFFIX}", older_than, now)
