"""Finds the processes of an incarnation, whoever their parent is now, and signals exactly those.

A process belongs to an incarnation for one of three reasons:

- Its limit of file locks is the incarnation's mark. Linux ignores this limit since 2.4.25, every child
  inherits it through fork and exec, and no program has a reason to change it. So it also marks a child that
  was started with an environment of its own, that wrote a title over its environment, or whose parents are
  all gone.
- Its environment has the incarnation's token. That is all there is before the mark is set, and on other
  systems.
- Its parent belongs to the incarnation.

Rules: a process is (pid, start time), never a pid alone. A signal goes through a pidfd that was opened before
the process is looked at again, so that a pid that was reused in between is not hit. `/proc` is read directly
because a look at 300 processes then takes about 5 ms."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import psutil

from snakepit_ray.process.launch import TOKEN_VARIABLE

PROC = os.path.isdir("/proc/self")
LOOK_AGAIN_SECONDS = 0.005  # a killed process takes a moment to end, a large one longer
LONGEST_WAIT_SECONDS = 0.5
TRACKER = b"multiprocessing.resource_tracker"  # in the command line of a process that removes shared memory
TRACKER_SECONDS = 5.0  # for that, which takes milliseconds on a machine that is not busy
EXEC_SECONDS = 0.2  # an exec takes less, unless its file comes from a slow disk
MARK = f"{TOKEN_VARIABLE}=".encode()
RLIMIT_LOCKS = 10  # linux/resource.h; Python's `resource` has no name for it
LEAST_MARK = 2**61  # no limit that anybody sets is that large and not "unlimited"
log = logging.getLogger("snakepit_ray.worker")


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: str


class Member(NamedTuple):
    """A process of an incarnation. `parent` is None where the process itself has the mark or the token."""

    process: Identity
    parent: Identity | None = None


class Look(NamedTuple):
    """What one look at a living process showed."""

    process: Identity
    parent: int


def identity(pid: int) -> Identity | None:
    """The process that has `pid` now; None for one that is gone or a zombie."""
    look = _look(pid)
    return None if look is None else look.process


def mark(pid: int, token: str) -> bool:
    """Marks a process that was started just now, and so whatever it starts. False where the system has no
    such mark: the token and the parents must do."""
    try:
        import resource

        _, most = resource.prlimit(pid, RLIMIT_LOCKS)
        if most != resource.RLIM_INFINITY:
            return False  # the limit is somebody's own after all
        resource.prlimit(pid, RLIMIT_LOCKS, (mark_of(token), most))
    except (ImportError, AttributeError, OSError, ValueError):
        return False
    return True


def mark_to_set(token: str) -> int | None:
    """The mark that a process which we do not start ourselves is to set for itself; None as `mark` is
    False."""
    try:
        import resource

        unlimited = resource.getrlimit(RLIMIT_LOCKS)[1] == resource.RLIM_INFINITY
    except (ImportError, OSError, ValueError):
        return None
    return mark_of(token) if unlimited else None


def mark_of(token: str) -> int:
    """The limit of file locks that marks the processes of an incarnation."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return LEAST_MARK | (int.from_bytes(digest, "little") % LEAST_MARK)


def find(token: str) -> list[Identity]:
    """Every living process of the incarnation `token`."""
    return families({token}).get(token, [])


def families(tokens: Collection[str]) -> dict[str, list[Identity]]:
    """The living processes of each of these incarnations that has any, from one look at all processes."""
    return {token: [one.process for one in family] for token, family in _families(tokens).items()}


def born_at(pid: int) -> int:
    """When the process was started, as `send` and `end` take it; 0 where that cannot be read."""
    process = identity(pid)
    return int(process.started) if PROC and process is not None else 0


def send(token: str, number: signal.Signals, oldest: int = 0) -> int:
    """Signals every process of the incarnation; returns how many were signalled. `oldest`: `born_at` of its
    first process, where the caller knows it. Processes that were there before are not looked at any closer,
    and most of a machine's were."""
    sent = 0
    for member in _families({token}, oldest).get(token, ()):
        with contextlib.suppress(PermissionError):
            sent += _signal_one(member, token, number)
    return sent


def end(
    tokens: Collection[str], seconds: float, moment: float = 0.0, oldest: int = 0
) -> tuple[list[int], set[str]]:
    """SIGKILL to every process of these incarnations, until there is none or `seconds` have passed. Before
    that they get SIGTERM and `moment` seconds, in which helpers that clean up after a process can do so.
    Python's trackers of shared memory begin when the others are gone, and have TRACKER_SECONDS: what they do
    not remove stays until the machine restarts. `oldest` is as for `send`.

    Returns the pids, and the tokens of incarnations that have processes still. A process that is forked
    meanwhile is found the next time round. One that we may not signal, because it became another user's, is
    logged and left alone."""
    began = time.monotonic()
    deadline, spared_until = began + seconds, began + (TRACKER_SECONDS if moment else 0.0)
    killed: dict[int, None] = {}  # in order, each once
    foreign: set[Identity] = set()
    if moment:
        _end_gently(tokens, moment, oldest)
    while True:
        left = _without(foreign, _families(tokens, oldest))
        if not left or time.monotonic() > deadline:
            return list(killed), set(left)
        for token, family in left.items():
            for member in family:
                if time.monotonic() < spared_until and _tracks(member.process):
                    continue
                try:
                    if _signal_one(member, token, signal.SIGKILL):
                        killed[member.process.pid] = None
                except PermissionError:
                    foreign.add(member.process)
                    log.warning("process %d is another user's: it is not ended", member.process.pid)
        _wait_for(member.process)


def _end_gently(tokens: Collection[str], moment: float, oldest: int) -> None:
    deadline = time.monotonic() + moment
    families = _families(tokens, oldest)
    for token, family in families.items():
        for member in family:
            with contextlib.suppress(PermissionError):
                _signal_one(member, token, signal.SIGTERM)
    for family in families.values():
        for member in family:
            _wait_for(member.process, deadline - time.monotonic())


def resident(processes: Collection[Identity]) -> int:
    """Bytes of memory that these processes hold, those that are gone not counted."""
    total = 0
    for process in processes:
        try:
            total += psutil.Process(process.pid).memory_info().rss if identity(process.pid) == process else 0
        except psutil.Error:
            continue
    return total


# ---- who belongs where -------------------------------------------------------------------------------------


def _families(tokens: Collection[str], oldest: int = 0) -> dict[str, list[Member]]:
    """Children stand before their parents: while a parent lives, it shows whose a child without a mark is.
    One that has a mark of these is in that family alone: what a forker has forked is its child."""
    if not tokens:
        return {}
    marks = {str(mark_of(token)).encode(): token for token in tokens}
    looks = {look.process.pid: look for look in _looks()}
    children: dict[int, list[Look]] = {}
    own: dict[str, list[Look]] = {}
    for pid, look in looks.items():
        children.setdefault(look.parent, []).append(look)
        if PROC and int(look.process.started) < oldest:
            continue
        for token in _tokens(pid, marks):
            if token in tokens:
                own.setdefault(token, []).append(look)
    marked = {look.process for looks in own.values() for look in looks}
    return {token: _descent(members, children, marked) for token, members in own.items()}


def _descent(own: list[Look], children: dict[int, list[Look]], marked: set[Identity]) -> list[Member]:
    family = {look.process: Member(look.process) for look in own}
    unseen = list(own)
    while unseen:
        parent = unseen.pop().process
        for child in children.get(parent.pid, ()):
            if child.process not in family and child.process not in marked:
                family[child.process] = Member(child.process, parent)
                unseen.append(child)
    return list(reversed(family.values()))


def _wait_for(process: Identity, seconds: float = LONGEST_WAIT_SECONDS) -> None:
    """Until that process has gone, or so many seconds have passed. While a thousand processes end, one
    is looked at and not all."""
    deadline = time.monotonic() + seconds
    while identity(process.pid) == process and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_SECONDS)


def _without(foreign: set[Identity], families: dict[str, list[Member]]) -> dict[str, list[Member]]:
    left = {
        token: [one for one in family if one.process not in foreign] for token, family in families.items()
    }
    return {token: family for token, family in left.items() if family}


def _signal_one(member: Member, token: str, number: signal.Signals) -> bool:
    """Whether the signal was sent. Raises PermissionError for a process that became another user's."""
    try:
        descriptor = os.pidfd_open(member.process.pid)
    except (AttributeError, OSError):
        return False
    try:
        if not _is_still(member, token):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def _tracks(process: Identity) -> bool:
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            return TRACKER in file.read()
    except OSError:
        return False


def _is_still(member: Member, token: str) -> bool:
    look = _look(member.process.pid)
    if look is None or look.process != member.process:
        return False
    if member.parent is None:
        return token in _tokens(look.process.pid, {str(mark_of(token)).encode(): token})
    return look.parent == member.parent.pid and identity(member.parent.pid) == member.parent


# ---- what the system says of a process ---------------------------------------------------------------------


def _looks() -> Iterator[Look]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit()) if PROC else psutil.pids()
    for pid in pids:
        if (look := _look(pid)) is not None:
            yield look


def _look(pid: int) -> Look | None:
    """None for a process that is gone or a zombie. proc(5): state, parent and start time (clock ticks since
    boot) are fields 3, 4 and 22."""
    try:
        if not PROC:
            process = psutil.Process(pid)
            return Look(Identity(pid, str(process.create_time())), process.ppid())
        fields = _fields(pid)
    except (OSError, psutil.Error):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Look(Identity(pid, fields[19].decode()), int(fields[1]))


def _fields(pid: int) -> list[bytes]:
    return _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _tokens(pid: int, marks: dict[bytes, str]) -> Iterable[str]:
    """The token that the mark of `pid` stands for, else what its environment names: none or one, several in
    an odd environment. The environment is not read where the mark is known."""
    try:
        if not PROC:
            return {psutil.Process(pid).environ()[TOKEN_VARIABLE]}
        token = marks.get(_file_locks(pid))
        environ = b"" if token is not None else _environ(pid)
    except (OSError, psutil.Error, KeyError):
        return ()  # gone, somebody else's, or without a token
    if token is not None:
        return (token,)
    if MARK not in environ:
        return ()
    return {
        item[len(MARK) :].decode("utf-8", "replace") for item in environ.split(b"\0") if item.startswith(MARK)
    }


def _file_locks(pid: int) -> bytes:
    """The limit of file locks of `pid`, as proc(5) prints it."""
    try:
        words = _content(f"/proc/{pid}/limits").partition(b"Max file locks")[2].split(None, 1)
    except OSError:  # gone, or a system without: the environment says it
        return b""
    return words[0] if words else b""


def _environ(pid: int) -> bytes:
    """The environment of `pid`. In an exec there is none until the new program's is in place (met by 5 % of
    looks right after `subprocess.Popen`), so what is empty is read again while that may be."""
    deadline = time.monotonic() + EXEC_SECONDS
    while not (environ := _content(f"/proc/{pid}/environ")):
        fields = _fields(pid)
        memory, start, end = fields[20], fields[47], fields[48]  # proc(5): fields 23, 50 and 51
        really_empty = memory == b"0" or start == end != b"0"  # a kernel thread, one that ends, or so started
        if really_empty or time.monotonic() > deadline:
            break
        time.sleep(0.0005)
    return environ


def _content(path: str) -> bytes:
    """All of a small file. Half the time of `Path.read_bytes`, and it is read for every process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = part = os.read(descriptor, 65_536)
        while part:
            part = os.read(descriptor, 65_536)
            content += part
    finally:
        os.close(descriptor)
    if not content and path.endswith("/stat"):
        raise ProcessLookupError(errno.ESRCH, "the process has just gone", path)
    return content
