"""All sessions that the store keeps, as callers see them: `pool.sessions`."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from snakepit_ray.client.session_talks import SessionTalks
from snakepit_ray.core.state.asked import SessionInfo, StoreStats

if TYPE_CHECKING:
    from snakepit_ray.client.talks import Access
    from snakepit_ray.config.keywords import Seconds

GLOBAL_TTL = 3600.0


class Sessions:
    """The sessions of the cluster, which all pools share. Made by `pool.sessions`.

    Each method blocks, and has a form for asyncio with an `a` before its name: `await sessions.aget(id)`.
    Both wait for the store at most for the pool's request_timeout, then they raise DeadlineExceeded. All
    raise InvalidArguments for an id that is none, and PoolClosed.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._talks = SessionTalks(access)

    # ---- sessions -----------------------------------------------------------------------------------------

    def create(
        self, session_id: str, *, ttl: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SessionInfo:
        """Makes a session, or joins the one that is there: of several at once, one makes it.

        Args:
            session_id: 1 to 1024 bytes of UTF-8.
            ttl: seconds that it lives without being used, or text such as "1h"; None: the pool's session_ttl.
                It belongs to the session: who joins changes nothing.
            metadata: at most 32 entries of JSON, 4,096 bytes, of a session that is made now.

        Returns: the session.

        Raises: InvalidArguments; SessionQuotaExceeded when the pool has max_sessions.
        """
        return self._access.run(self._talks.create(session_id, ttl, metadata))

    async def acreate(
        self, session_id: str, *, ttl: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> SessionInfo:
        """`create` for asyncio."""
        return await self._access.arun(self._talks.create(session_id, ttl, metadata))

    def get(self, session_id: str) -> SessionInfo:
        """The session `session_id`. That is a use of it: it lives its ttl longer.

        Raises: SessionNotFound, SessionExpired.
        """
        return self._access.run(self._talks.get(session_id))

    async def aget(self, session_id: str) -> SessionInfo:
        """`get` for asyncio."""
        return await self._access.arun(self._talks.get(session_id))

    def update(
        self,
        session_id: str,
        fn: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: Seconds | None = None,
    ) -> SessionInfo:
        """Changes a session's metadata, its ttl, or both.

        Args:
            session_id: of a session that is there.
            fn: gets the metadata and returns the metadata that it is to be. It runs here, and again when
                somebody else was faster: no change of others is lost.
            metadata: what replaces the metadata, whatever it was.
            ttl: seconds, or text such as "1h".

        Returns: the session as it is now.

        Raises: SessionNotFound, SessionExpired, InvalidArguments; what `fn` raises, and then nothing has
        changed.
        """
        return self._access.run(self._talks.update(session_id, fn, metadata, ttl))

    async def aupdate(
        self,
        session_id: str,
        fn: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: Seconds | None = None,
    ) -> SessionInfo:
        """`update` for asyncio. `fn` runs on the event loop."""
        return await self._access.arun(self._talks.update(session_id, fn, metadata, ttl))

    def exists(self, session_id: str) -> bool:
        """Whether the session `session_id` is there. That is no use of it."""
        return self._access.run(self._talks.exists(session_id))

    async def aexists(self, session_id: str) -> bool:
        """`exists` for asyncio."""
        return await self._access.arun(self._talks.exists(session_id))

    def list(self, pattern: str = "*", *, pool: str | None = None) -> list[SessionInfo]:
        """The sessions whose ids match `pattern`, where "*" stands for any characters, in the order in which
        they were made. `pool`: only those that this pool has made. That is no use of them."""
        return self._access.run(self._talks.list(pattern, pool))

    async def alist(self, pattern: str = "*", *, pool: str | None = None) -> builtins.list[SessionInfo]:
        """`list` for asyncio."""
        return await self._access.arun(self._talks.list(pattern, pool))

    def delete(self, session_id: str) -> bool:
        """Ends the session `session_id`, with its variables, its programs, and the tools that this pool has
        for it. Returns: whether it was there."""
        was_there = self._access.run(self._talks.delete(session_id))
        self._access.tools.end(session_id)
        return was_there

    async def adelete(self, session_id: str) -> bool:
        """`delete` for asyncio."""
        was_there = await self._access.arun(self._talks.delete(session_id))
        await self._access.tools.aend(session_id)
        return was_there

    def stats(self) -> StoreStats:
        """What the store holds and has done."""
        return self._access.run(self._talks.stats())

    async def astats(self) -> StoreStats:
        """`stats` for asyncio."""
        return await self._access.arun(self._talks.stats())

    def cleanup_expired(self) -> int:
        """Removes sessions that have expired now, not at the next sweep: nobody can read them in any case.
        Returns: how many."""
        return self._access.run(self._talks.cleanup_expired())

    async def acleanup_expired(self) -> int:
        """`cleanup_expired` for asyncio."""
        return await self._access.arun(self._talks.cleanup_expired())

    # ---- programs -----------------------------------------------------------------------------------------

    def store_program(self, session_id: str, program_id: str, program: Any) -> None:
        """Keeps a program with a session, which is made where there is none.

        Args:
            session_id: of the session.
            program_id: 1 to 1024 bytes of UTF-8. A program of that id is replaced.
            program: any value that a command can take.

        Raises: InvalidArguments, EncodingError, PayloadTooLarge, SessionQuotaExceeded.
        """
        self._access.run(self._talks.store_program(session_id, program_id, program, None))

    async def astore_program(self, session_id: str, program_id: str, program: Any) -> None:
        """`store_program` for asyncio."""
        await self._access.arun(self._talks.store_program(session_id, program_id, program, None))

    def get_program(self, session_id: str, program_id: str, default: Any = None) -> Any:
        """The program `program_id` of the session `session_id`; `default` where there is none.

        Raises: SessionNotFound, SessionExpired.
        """
        return self._access.run(self._talks.get_program(session_id, program_id, default))

    async def aget_program(self, session_id: str, program_id: str, default: Any = None) -> Any:
        """`get_program` for asyncio."""
        return await self._access.arun(self._talks.get_program(session_id, program_id, default))

    def update_program(self, session_id: str, program_id: str, program: Any) -> None:
        """`store_program` for a `program` whose `program_id` is there in the session `session_id`.

        Raises: InvalidArguments where it is not; SessionNotFound, SessionExpired; as `store_program`.
        """
        self._access.run(self._talks.store_program(session_id, program_id, program, True))

    async def aupdate_program(self, session_id: str, program_id: str, program: Any) -> None:
        """`update_program` for asyncio."""
        await self._access.arun(self._talks.store_program(session_id, program_id, program, True))

    def store_global_program(self, program_id: str, program: Any, *, ttl: Seconds = GLOBAL_TTL) -> None:
        """Keeps a program that belongs to no session.

        Args:
            program_id: 1 to 1024 bytes of UTF-8. A program of that id is replaced.
            program: any value that a command can take.
            ttl: seconds, or text such as "1h": it is forgotten when it was not read or stored for so long.

        Raises: InvalidArguments, EncodingError, PayloadTooLarge.
        """
        self._access.run(self._talks.store_global_program(program_id, program, ttl))

    async def astore_global_program(
        self, program_id: str, program: Any, *, ttl: Seconds = GLOBAL_TTL
    ) -> None:
        """`store_global_program` for asyncio."""
        await self._access.arun(self._talks.store_global_program(program_id, program, ttl))

    def get_global_program(self, program_id: str, default: Any = None) -> Any:
        """The global program `program_id`; `default` where there is none."""
        return self._access.run(self._talks.get_program("", program_id, default))

    async def aget_global_program(self, program_id: str, default: Any = None) -> Any:
        """`get_global_program` for asyncio."""
        return await self._access.arun(self._talks.get_program("", program_id, default))

    def delete_global_program(self, program_id: str) -> bool:
        """Forgets the global program `program_id`. Returns: whether it was there."""
        return self._access.run(self._talks.delete_global_program(program_id))

    async def adelete_global_program(self, program_id: str) -> bool:
        """`delete_global_program` for asyncio."""
        return await self._access.arun(self._talks.delete_global_program(program_id))

    def __repr__(self) -> str:
        return f"<Sessions seen by pool {self._access.config.name!r}>"
