"""What is asked about sessions and programs. See `talks.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from snakepit_ray.client.records import value_of
from snakepit_ray.client.talks import Access, Talk, new_op
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.config import CallOptions, checks
from snakepit_ray.core.state import naming
from snakepit_ray.core.state.asked import (
    Cleanup,
    Creation,
    Data,
    GetProgram,
    Join,
    Joining,
    Look,
    Remove,
    RemoveProgram,
    SessionInfo,
    Sessions,
    StoreProgram,
    StoreStats,
    Update,
    Usage,
)
from snakepit_ray.errors import InvalidArguments, SessionExpired, SessionNotFound, VersionConflict

PAGE = 1_000  # sessions in an answer
MOST_TRIES = 1_000  # of an update that others are always faster than
Metadata: TypeAlias = Mapping[str, Any]


class SessionTalks:
    """Those of one pool's handle."""

    def __init__(self, access: Access) -> None:
        self.access = access

    # ---- sessions -----------------------------------------------------------------------------------------

    def create(self, session_id: str, ttl: Any, metadata: Any) -> Talk[SessionInfo]:
        creation = creation_of(self.access, ttl, metadata)
        joining: Joining = yield Join(naming.session_id(session_id), creation, new_op())
        return joining.info

    def get(self, session_id: str) -> Talk[SessionInfo]:
        info: SessionInfo = yield Look(naming.session_id(session_id))
        return info

    def exists(self, session_id: str) -> Talk[bool]:
        with contextlib.suppress(SessionNotFound, SessionExpired):
            yield Look(naming.session_id(session_id), is_use=False)
            return True
        return False

    def update(
        self, session_id: str, fn: Callable[[dict[str, Any]], Metadata] | None, metadata: Any, ttl: Any
    ) -> Talk[SessionInfo]:
        session_id = naming.session_id(session_id)
        seconds = None if ttl is None else checked_ttl(ttl)
        if fn is None:
            kept = None if metadata is None else naming.metadata(metadata)
            info: SessionInfo = yield Update(session_id, new_op(), None, kept, seconds)
            return info
        if metadata is not None or not callable(fn):
            raise InvalidArguments("update: pass a function of the metadata, or metadata=, and not both")
        for _ in range(MOST_TRIES):
            with contextlib.suppress(VersionConflict):
                return (yield from self._updated(session_id, fn, seconds))
        return (yield from self._updated(session_id, fn, seconds))

    def _updated(
        self, session_id: str, fn: Callable[[dict[str, Any]], Metadata], ttl: float | None
    ) -> Talk[SessionInfo]:
        found: SessionInfo = yield Look(session_id)
        changed = fn(naming.metadata(found.metadata))
        kept = naming.metadata(changed)
        info: SessionInfo = yield Update(session_id, new_op(), found.version, kept, ttl)
        return info

    def list(self, pattern: str, pool: str | None) -> Talk[list[SessionInfo]]:
        if pool is not None and not isinstance(pool, str):
            raise InvalidArguments(f"pool: got {naming.shown(pool)}, expected a pool's name, or None")
        found: list[SessionInfo] = []
        while True:
            after = found[-1].generation if found else 0
            page = yield Sessions(naming.pattern(pattern), pool, after, PAGE)
            found += page
            if len(page) < PAGE:
                return found

    def delete(self, session_id: str) -> Talk[bool]:
        was_there: bool = yield Remove(naming.session_id(session_id), new_op())
        return was_there

    def stats(self) -> Talk[StoreStats]:
        config = self.access.config
        stats: StoreStats = yield Usage({config.name: config.max_sessions})
        return stats

    def cleanup_expired(self) -> Talk[int]:
        count: int = yield Cleanup()
        return count

    # ---- programs -----------------------------------------------------------------------------------------

    def store_program(
        self, session_id: str, program_id: str, program: Any, must_exist: bool | None
    ) -> Talk[None]:
        yield StoreProgram(
            naming.session_id(session_id),
            naming.program_id(program_id),
            self.access.data(program, "program"),
            new_op(),
            must_exist,
            creation=None if must_exist else self.access.creation(),
        )

    def store_global_program(self, program_id: str, program: Any, ttl: Any) -> Talk[None]:
        data = self.access.data(program, "program")
        yield StoreProgram("", naming.program_id(program_id), data, new_op(), ttl=checked_ttl(ttl))

    def get_program(self, session_id: str, program_id: str, default: Any) -> Talk[Any]:
        """Of a session, or a global one where the session's id is ""."""
        session_id = session_id if session_id == "" else naming.session_id(session_id)
        data: Data | None = yield GetProgram(session_id, naming.program_id(program_id))
        return default if data is None else value_of(data, "program")

    def delete_global_program(self, program_id: str) -> Talk[bool]:
        was_there: bool = yield RemoveProgram("", naming.program_id(program_id), new_op())
        return was_there


def begun(access: Access, session_id: str, ttl: Any, metadata: Any) -> Talk[VariableTalks]:
    """A session that is made or joined now: what is asked about its variables."""
    CallOptions(session=session_id)  # an id that is none fails here as it does without a ttl
    creation = creation_of(access, ttl, metadata)
    yield Join(session_id, creation, new_op())
    return VariableTalks(access, session_id, creation, is_joined=True)


def creation_of(access: Access, ttl: Any, metadata: Any) -> Creation:
    """How a session is made, from what a user has given. Raises InvalidArguments."""
    seconds = None if ttl is None else checked_ttl(ttl)
    return access.creation(seconds, None if metadata is None else naming.metadata(metadata))


def checked_ttl(ttl: Any) -> float:
    """Seconds of a number, or of text such as "1h"."""
    try:
        seconds: float = checks.seconds(zero=True)(ttl)
    except ValueError as error:
        raise InvalidArguments(f"ttl: got {naming.shown(ttl)}, expected {error}") from None
    return seconds
