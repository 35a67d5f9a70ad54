"""What the store's rules want to be done, as plain facts: the store does it, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit_ray.core.state.asked import Data, Ended
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.records import Gone, Variable
from snakepit_ray.core.state.registry import Session


@dataclass(frozen=True)
class Program:
    """A program that is kept. `ttl` and `used_at` are a global one's: in memory by the monotonic clock, in
    transactions and contents seconds since 1970. `saved_at`: which use was written down, in memory."""

    data: Data
    ttl: float = 0.0
    used_at: float = 0.0
    saved_at: float = 0.0


@dataclass(frozen=True)
class Op:
    """A change that has taken effect, and what is to be answered when it comes again. `at`: seconds since
    1970."""

    session: str
    id: str
    answer: Any
    at: float


class Row(NamedTuple):
    """A variable before and after a change; None: there is none."""

    before: Variable | None
    after: Variable | None


@dataclass(frozen=True)
class Transaction:
    """Facts that become durable together, or none of them does.

    `number`: rises. `needs`: the number of one without which it must not become durable, 0 for none.
    `session`: its row, as it is now; `used_at` of it: seconds since 1970. `ended`: generations whose rows go.
    `generation`: the session's whose variables and programs these are, 0 for global programs. `uses`: when
    sessions were used, by generation; `program_uses`: global programs, by id. `grants`: leases may be out
    from now on."""

    number: int
    needs: int = 0
    session: Session | None = None
    ended: tuple[int, ...] = ()
    generation: int = 0
    variables: Mapping[str, Row] = field(default_factory=dict)
    change: int = 0
    floor: int = 0
    at: float = 0.0
    programs: Mapping[str, Program | None] = field(default_factory=dict)
    op: Op | None = None
    uses: Mapping[int, float] = field(default_factory=dict)
    program_uses: Mapping[str, float] = field(default_factory=dict)
    grants: bool = False


class Load(NamedTuple):
    """What is kept under this session id is wanted: the content of its generation (0: there is no session),
    and the changes that were answered."""

    session: str
    generation: int


@dataclass(frozen=True)
class Content:
    """What was kept of one session. `ops`: answers by id, with their times, in their order."""

    variables: Mapping[str, Variable] = field(default_factory=dict)
    gone: Mapping[str, Gone] = field(default_factory=dict)
    floor: int = 0
    programs: Mapping[str, Program] = field(default_factory=dict)
    ops: Mapping[str, Op] = field(default_factory=dict)


class Answer(NamedTuple):
    """What a question comes to: its record, or an error."""

    number: int
    value: Any


@dataclass
class Orders:
    """What is to be done. `woken`: sessions whose watchers look again."""

    answers: list[Answer] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    recalls: list[Lease] = field(default_factory=list)
    woken: set[str] = field(default_factory=set)
    ended: list[Ended] = field(default_factory=list)

    @property
    def are_done(self) -> bool:
        """There is nothing to do."""
        return not (
            self.answers or self.transactions or self.loads or self.recalls or self.woken or self.ended
        )
