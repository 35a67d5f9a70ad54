"""What the store has in memory under one session id: the session that lives there now, and who waits for
it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit_ray.core.state.asked import Data, Question, Watch
from snakepit_ray.core.state.orders import Op, Program
from snakepit_ray.core.state.records import Variable
from snakepit_ray.core.state.session import SessionState

PER_VERSION = 500  # bytes of memory beside the value, about


class Asked(NamedTuple):
    """A question in its turn. `is_use`: whether it may be a use of its session; watchers look again
    without."""

    number: int
    question: Question | Watch
    is_use: bool = True


@dataclass
class Room:
    """`id` is the session's, "" for global programs.

    - Questions are answered in their order. While a change of the session itself is on its way, or the room
      is being loaded, the next one waits: `is_busy`.
    - `state` is None while there is no session. `done`: changes that have taken effect, of all generations.
    - `askers`: the questions that wait for a write of variables, by its op. `last_write`: its transaction."""

    id: str
    is_loaded: bool
    queue: deque[Asked] = field(default_factory=deque)
    is_busy: bool = False
    state: SessionState | None = None
    programs: dict[str, Program] = field(default_factory=dict)
    done: OrderedDict[str, Op] = field(default_factory=OrderedDict)
    askers: dict[str, list[int]] = field(default_factory=dict)
    last_write: int = 0
    weight: int = 0

    def is_quiet(self, now: float) -> bool:
        """Nothing is on its way, and nobody holds a copy."""
        state = self.state
        return state is None or (state.is_idle and state.leases.free_from(now) <= now)

    def is_unused(self, now: float) -> bool:
        """Whoever asks next finds the same after the room was forgotten and loaded again."""
        return not (self.queue or self.is_busy or self.askers) and self.is_quiet(now)

    def is_empty(self) -> bool:
        """There is nothing in it that could be asked for."""
        return self.state is None and not (self.queue or self.is_busy or self.done or self.programs)

    def leave(self) -> None:
        """The session has ended; what was answered is still known."""
        self.state, self.weight = None, 0
        self.programs.clear()


@dataclass(frozen=True)
class Change:
    """A change of a session itself that is on its way, for the question at the head of its room's queue.

    `apply`: makes it visible. `undo`: of what was reserved for it. `done`: what the question comes to; None:
    it is looked at again."""

    room: Room
    apply: Callable[[], None]
    undo: Callable[[], None] = lambda: None
    done: Op | None = None


class Writing(NamedTuple):
    """A write of variables that is on its way."""

    room: Room
    state: SessionState
    op: str


class Sweeping(NamedTuple):
    """Generations whose rows are on their way out, or other rows that nobody waits for. `used`: the session
    whose use they are."""

    generations: tuple[int, ...] = ()
    used: str = ""


def weight_of(variable: Variable | None) -> int:
    """Bytes of memory, about: as if all of its versions were as the newest."""
    if variable is None:
        return 0
    return len(variable.versions) * weight_of_data(variable.newest.value)


def weight_of_data(value: Any) -> int:
    """Bytes of memory of one value, about. What is in files weighs nothing."""
    if not isinstance(value, Data):
        return PER_VERSION
    inline = sum(len(one) for one in value.buffers if isinstance(one, bytes)) if value.buffers else 0
    return PER_VERSION + len(value.json) + inline
