"""The variables of one session, as callers use them: `pool.session(id).variables`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any

from snakepit_ray.client.records import FoundValues, PastValue, Variable, VersionedValue
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.client.watching import AsyncWatcher, Watcher


class Variables:
    """Typed variables that a session keeps, outside of its interpreters. Made by `session.variables`.

    - Callers and interpreters of all pools see the same ones: a read sees every write that was acknowledged
      before it began.
    - The first use makes the session where there is none. If it ends after that, methods raise
      SessionNotFound or SessionExpired: `pool.session(id)` gives a handle that begins anew.
    - A value is what it was when it was given: later changes of the object change nothing. Arrays come back
      read-only.
    - Each method blocks, and has a form for asyncio with an `a` before its name: `await variables.aget(...)`.
      Both wait for the store at most for the pool's request_timeout, then they raise DeadlineExceeded.
    """

    def __init__(self, talks: VariableTalks) -> None:
        self._talks = talks
        self._access = talks.access

    # ---- one variable -------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        type: str,
        value: Any,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Makes a variable. One that is there is written; its history goes on where type and constraints are
        the same.

        Args:
            name: 1 to 64 of A-Z a-z 0-9 _ - . and begins with a letter or a digit.
            type: "float", "integer", "string", "boolean", "choice", "module", "list", "dict", "embedding" or
                "tensor".
            value: its first value.
            constraints: what every value must meet, such as {"min": 0, "max": 2}; each type has its own.
            metadata: at most 32 entries of JSON, 4,096 bytes.

        Returns: its version.

        Raises: InvalidArguments for a name, a type, constraints or metadata that are none; VariableTypeError,
        ConstraintViolation, EncodingError, PayloadTooLarge for the value; SessionQuotaExceeded.
        """
        return self._access.run(self._talks.register(name, type, value, constraints, metadata))

    async def aregister(
        self,
        name: str,
        type: str,
        value: Any,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """`register` for asyncio."""
        return await self._access.arun(self._talks.register(name, type, value, constraints, metadata))

    def get(self, name: str, default: Any = None) -> Any:
        """The value of the variable `name`; `default` where there is none.

        Raises: SessionNotFound, SessionExpired where the session has ended since it was first used.
        """
        return self._access.run(self._talks.get(name, default))

    async def aget(self, name: str, default: Any = None) -> Any:
        """`get` for asyncio."""
        return await self._access.arun(self._talks.get(name, default))

    def get_versioned(self, name: str) -> VersionedValue:
        """The variable `name` as (value, version).

        Raises: VariableNotFound; as `get`.
        """
        return self._access.run(self._talks.get_versioned(name))

    async def aget_versioned(self, name: str) -> VersionedValue:
        """`get_versioned` for asyncio."""
        return await self._access.arun(self._talks.get_versioned(name))

    def set(self, name: str, value: Any, *, expected_version: int | None = None) -> int:
        """Gives a variable that was registered another value.

        Args:
            name: of the variable.
            value: of its type, and as its constraints say.
            expected_version: write only if it still has this version.

        Returns: the new version, one more than the last.

        Raises: VariableNotFound; VersionConflict, after which nothing has changed; VariableTypeError,
        ConstraintViolation, EncodingError, PayloadTooLarge for the value; as `get`.
        """
        return self._access.run(self._talks.set(name, value, expected_version))

    async def aset(self, name: str, value: Any, *, expected_version: int | None = None) -> int:
        """`set` for asyncio."""
        return await self._access.arun(self._talks.set(name, value, expected_version))

    def delete(self, name: str, *, expected_version: int | None = None) -> None:
        """Removes the variable `name` and its history, with `expected_version` only if it still has that
        version.

        Raises: VariableNotFound, VersionConflict; as `get`.
        """
        self._access.run(self._talks.delete(name, expected_version))

    async def adelete(self, name: str, *, expected_version: int | None = None) -> None:
        """`delete` for asyncio."""
        await self._access.arun(self._talks.delete(name, expected_version))

    # ---- several ------------------------------------------------------------------------------------------

    def get_many(self, names: Iterable[str]) -> FoundValues:
        """The values of the variables `names`, all of one moment, as (found, missing).

        Raises: as `get`.
        """
        return self._access.run(self._talks.get_many(names))

    async def aget_many(self, names: Iterable[str]) -> FoundValues:
        """`get_many` for asyncio."""
        return await self._access.arun(self._talks.get_many(names))

    def set_many(self, values: Mapping[str, Any], *, atomic: bool = True) -> dict[str, Any]:
        """Gives several variables other values, in one message.

        Args:
            values: by name.
            atomic: all at one moment, or none; False: each by itself.

        Returns: the new versions by name. Without `atomic` an error stands in the place of a version.

        Raises: with `atomic` the error of the first that cannot be set; as `set`.
        """
        return self._access.run(self._talks.set_many(values, atomic))

    async def aset_many(self, values: Mapping[str, Any], *, atomic: bool = True) -> dict[str, Any]:
        """`set_many` for asyncio."""
        return await self._access.arun(self._talks.set_many(values, atomic))

    def list(self, pattern: str = "*") -> list[Variable]:
        """The variables whose names match `pattern`, by name: "*" stands for any characters.

        Raises: as `get`.
        """
        return self._access.run(self._talks.list(pattern))

    async def alist(self, pattern: str = "*") -> builtins.list[Variable]:
        """`list` for asyncio."""
        return await self._access.arun(self._talks.list(pattern))

    # ---- versions -----------------------------------------------------------------------------------------

    def history(self, name: str) -> builtins.list[PastValue]:
        """The last 10 versions of the variable `name`, the oldest first. Of values of more than 64 KiB only
        the newest is kept.

        Raises: VariableNotFound; as `get`.
        """
        return self._access.run(self._talks.history(name))

    async def ahistory(self, name: str) -> builtins.list[PastValue]:
        """`history` for asyncio."""
        return await self._access.arun(self._talks.history(name))

    def rollback(self, name: str, version: int) -> int:
        """Gives the variable `name` the value again that it had with `version`, as a new version.

        Returns: the new version.

        Raises: InvalidArguments where that version is not kept any more; VariableNotFound; as `get`.
        """
        return self._access.run(self._talks.rollback(name, version))

    async def arollback(self, name: str, version: int) -> int:
        """`rollback` for asyncio."""
        return await self._access.arun(self._talks.rollback(name, version))

    # ---- all of them --------------------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """All variables of one moment, as a document for `import_`: JSON, and the arrays in it.

        Returns: {"format": "snakepit-variables", "version": 1, "variables": {name: {"type", "constraints",
        "metadata", "value"}}}.

        Raises: as `get`.
        """
        return self._access.run(self._talks.export())

    async def aexport(self) -> dict[str, Any]:
        """`export` for asyncio."""
        return await self._access.arun(self._talks.export())

    def import_(self, document: Mapping[str, Any]) -> dict[str, int]:
        """Registers the variables of a `document` that `export` has made: all at one moment, or none.

        Returns: their versions by name.

        Raises: InvalidArguments for what is no such document; as `register`.
        """
        return self._access.run(self._talks.import_(document))

    async def aimport_(self, document: Mapping[str, Any]) -> dict[str, int]:
        """`import_` for asyncio."""
        return await self._access.arun(self._talks.import_(document))

    # ---- changes ------------------------------------------------------------------------------------------

    def watch(self, names: str | Iterable[str] = "*") -> Watcher:
        """An iterator of the changes of variables, which waits for the next one.

        The present values come first. The versions of each variable rise, and the newest one always comes;
        where writers are faster, `change.skipped` says how many versions do not come.

        Args:
            names: a name or a pattern with `*`, or several.

        Returns: an iterator of `Change`s; `close()` ends it, also from another thread.

        Raises: InvalidArguments here. While iterating: SessionNotFound or SessionExpired when the session
        ends, DeadlineExceeded when there is no store for the pool's request_timeout.
        """
        return Watcher(self._talks, names)

    def awatch(self, names: str | Iterable[str] = "*") -> AsyncWatcher:
        """`watch` for asyncio: `async for change in variables.awatch("loss")`; `await aclose()` ends it."""
        return AsyncWatcher(self._talks, names)

    def __repr__(self) -> str:
        return f"<Variables of session {self._talks.session_id!r}>"
