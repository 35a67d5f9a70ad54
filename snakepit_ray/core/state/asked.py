"""What the store is asked, and what it answers: plain data, which pickles.

- Each question has one answer: the record that its docstring names, or an error of ours.
- A question with an `op` changes something. The op is an id of the asker's choice, the same when the same
  question is sent again: it takes effect once, and is answered each time.
- Questions about a session count as its use, except where `Look`, `Sessions` and `Usage` say otherwise.
- A question of a strict session's interpreter carries its fence. A session that has moved on since then has
  had a higher one, and the question is refused with SessionWorkerLost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.writes import Change, Outcome, Set, Written

ANY = "*"


class Data(NamedTuple):
    """An encoded value: JSON with tags, and the buffers that the tags name (objects with the buffer
    protocol)."""

    json: bytes
    buffers: tuple[Any, ...] = ()


class Fence(NamedTuple):
    """By which binding a strict session's interpreter asks: bindings of one session rise within a pool."""

    pool: str
    binding: int


class Creation(NamedTuple):
    """How a session is made where there is none. `limit`: how many sessions `pool` may have. Seconds."""

    pool: str
    ttl: float
    limit: int
    metadata: Mapping[str, Any] = {}


# ---- sessions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SessionInfo:
    """A session as its users see it. `created_at`, `used_at`, `expires_at`: seconds since 1970. `version`: of
    its metadata and programs. `variables`: how many it has; None where nobody has counted."""

    id: str
    generation: int
    pool: str
    ttl: float
    version: int
    metadata: Mapping[str, Any]
    created_at: float
    used_at: float
    expires_at: float
    programs: tuple[str, ...] = ()
    variables: int | None = None


@dataclass(frozen=True)
class Join:
    """The session of this id, made if there is none -> Joining. Raises SessionQuotaExceeded."""

    session: str
    creation: Creation
    op: str


class Joining(NamedTuple):
    """A session, and whether this question made it."""

    info: SessionInfo
    is_new: bool


@dataclass(frozen=True)
class Look:
    """The session -> SessionInfo. `is_use`: whether that counts as a use. Raises SessionNotFound,
    SessionExpired."""

    session: str
    is_use: bool = True


@dataclass(frozen=True)
class Update:
    """Other metadata, another ttl -> SessionInfo. `expected`: the version that it must have, None: any.
    Raises VersionConflict, SessionNotFound, SessionExpired."""

    session: str
    op: str
    expected: int | None = None
    metadata: Mapping[str, Any] | None = None
    ttl: float | None = None


@dataclass(frozen=True)
class Remove:
    """Ends the session, its variables, programs and tools -> bool: whether there was one."""

    session: str
    op: str


@dataclass(frozen=True)
class Sessions:
    """Those that are alive, in the order in which they were made -> tuple[SessionInfo, ...]. It is no use of
    them. `pattern`: with `*`. `pool`: of their makers, None: any. `after`: the generation of the last one
    that the asker has, `most`: how many it wants."""

    pattern: str = ANY
    pool: str | None = None
    after: int = 0
    most: int = 1_000


@dataclass(frozen=True)
class Usage:
    """What the store holds -> StoreStats. `limits`: max_sessions of the pools that the asker knows."""

    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreStats:
    """What the store holds. `by_pool`: sessions of each pool that has made some. `crowded`: pools that use
    80 % of their quota or more. `reset_from`: under which name a damaged file was set aside, "" for none.
    `path`: of the database, "" in memory. Bytes are those on disk."""

    sessions: int
    variables: int
    programs: int
    global_programs: int
    by_pool: Mapping[str, int]
    crowded: tuple[str, ...]
    watchers: int
    leases: int
    reads: int
    writes: int
    conflicts: int
    expired: int
    deleted: int
    bytes: int
    kind: str
    path: str = ""
    reset_from: str = ""
    full: str = ""  # why the last write to the disk failed, "" where it did not


@dataclass(frozen=True)
class Cleanup:
    """Removes what has expired now, not at the next sweep -> int: how many sessions."""


# ---- variables ---------------------------------------------------------------------------------------------


class Versioned(NamedTuple):
    """A value of a variable, with its version. `at`: when it was written, seconds since 1970."""

    version: int
    value: Data
    at: float


@dataclass(frozen=True)
class VariableInfo:
    """A variable as its users see it: its type, its constraints, its newest value."""

    name: str
    type: str
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    newest: Versioned


@dataclass(frozen=True)
class Get:
    """The newest values of some variables, all of one moment -> Found. `holder`: who wants a lease and keeps
    what it reads, "" for nobody. `age`: for how many seconds the asker has meant the session by its id alone:
    one that was deleted since then is not there, and no later one is meant. Raises SessionNotFound,
    SessionExpired, SessionWorkerLost."""

    session: str
    names: tuple[str, ...]
    fence: Fence | None = None
    generation: int = 0
    holder: str = ""
    age: float = 0.0


class Found(NamedTuple):
    """What was found, and the names that there are not. `known`: some of the names that there are, for a
    message, only where a name is missing. `lease`: by which the asker may answer from a copy."""

    generation: int
    values: Mapping[str, Versioned]
    missing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    lease: Lease | None = None


@dataclass(frozen=True)
class Variables:
    """Variables by a pattern with `*` -> tuple[VariableInfo, ...], by name. Raises as Get does."""

    session: str
    pattern: str = ANY
    fence: Fence | None = None
    generation: int = 0


@dataclass(frozen=True)
class History:
    """The last versions of a variable, the oldest first -> tuple[Versioned, ...]. Versions whose value is
    large are not kept, except the newest. Raises VariableNotFound, and as Get does."""

    session: str
    name: str
    fence: Fence | None = None
    generation: int = 0


@dataclass(frozen=True)
class Put:
    """Some changes of variables, which become visible at one moment -> Wrote: what became of each change.
    Values of changes are Data. `creation`: the session is made if there is none, with it; None: it must be
    there. `is_atomic`: all changes or none. `released`: the asker's own lease, of which it has let go before
    it asked. `age`: as in Get. Raises as Get does, SessionQuotaExceeded."""

    session: str
    op: str
    changes: tuple[Change, ...]
    is_atomic: bool = True
    fence: Fence | None = None
    generation: int = 0
    creation: Creation | None = None
    released: Lease | None = None
    age: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """A thousand changes as plain tuples pickle three times as fast: Ray's pickler asks Python about each
        object that is none."""
        changes = [_packed_change(change) for change in self.changes]
        rest = self.is_atomic, self.fence, self.generation, self.creation, self.released, self.age
        return _unpacked_put, (self.session, self.op, changes, *rest)


def _packed_change(change: Change) -> tuple[Any, ...]:
    if type(change) is Set and type(change.value) is Data:
        return change.name, *change.value, change.expected, change.demand
    return (change,)


def _unpacked_put(session: str, op: str, changes: list[tuple[Any, ...]], *rest: Any) -> Put:
    made = (Set(one[0], Data(*one[1:3]), *one[3:]) if len(one) > 1 else one[0] for one in changes)
    return Put(session, op, tuple(made), *rest)


class Wrote(NamedTuple):
    """What became of each change, in their order, and of which session."""

    generation: int
    outcome: Outcome

    def __reduce__(self) -> tuple[Any, ...]:
        """See Put."""
        return _unpacked_wrote, (self[0], [(one.name, one.version, one.error) for one in self[1]])


def _unpacked_wrote(generation: int, outcome: list[tuple[Any, ...]]) -> Wrote:
    return Wrote(generation, tuple(Written(*one) for one in outcome))


# ---- watching ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch:
    """Waits at most `seconds` for changes after `cursor` -> Changes. `names`: which variables, with `*`.

    A cursor is the answer's; 0 at first, which gives the present values. An answer without changes means that
    the time is over: ask again. Raises SessionNotFound, SessionExpired: the session has ended."""

    session: str
    names: tuple[str, ...] = (ANY,)
    cursor: int = 0
    seconds: float = 30.0
    generation: int = 0


class VariableChange(NamedTuple):
    """One change as a watcher sees it. `newest` is None where the variable was deleted. `skipped`: versions
    that were written since the watcher's last answer and are not in it."""

    name: str
    newest: Versioned | None
    skipped: int = 0


class Changes(NamedTuple):
    """The changes since the cursor, and the next cursor."""

    generation: int
    cursor: int
    changes: tuple[VariableChange, ...] = ()


# ---- programs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoreProgram:
    """Keeps a program under its id -> None. `session` "": a global one, which is forgotten when it was not
    read or stored for `ttl` seconds. `must_exist`: whether it replaces one; None: as it is. Raises
    InvalidArguments where that is wrong, SessionNotFound, SessionExpired."""

    session: str
    id: str
    program: Data
    op: str
    must_exist: bool | None = None
    ttl: float = 3600.0
    fence: Fence | None = None
    creation: Creation | None = None


@dataclass(frozen=True)
class GetProgram:
    """The program of this id -> Data, None where there is none. `session` "": a global one."""

    session: str
    id: str
    fence: Fence | None = None


@dataclass(frozen=True)
class RemoveProgram:
    """Forgets the program -> bool: whether there was one."""

    session: str
    id: str
    op: str


Question = (
    Join
    | Look
    | Update
    | Remove
    | Sessions
    | Usage
    | Cleanup
    | Get
    | Variables
    | History
    | Put
    | StoreProgram
    | GetProgram
    | RemoveProgram
)
"""What `ask` takes. `Watch` waits, and has a way of its own."""


class Ended(NamedTuple):
    """A session that has ended, as workers and routers hear of it. `reason`: "deleted" or "expired"."""

    session: str
    generation: int
    reason: str
