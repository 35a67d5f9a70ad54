"""The tools of a pool, as its router keeps them and its workers know them.

- A session's tool and a pool's tool may have one name: a command of that session meets the session's.
- Several tools are added together or not at all.
- A table has a version, which rises with each change, over restarts of the router too. A change says from
  which version to which it leads: a table of another version does not take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.errors import DuplicateTool


class Change(NamedTuple):
    """What makes the table of version `after` of that of version `before`. `removed`: keys of tools. `gone`:
    processes that have ended, which ran tools at some time."""

    before: int
    after: int
    added: tuple[Tool, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    gone: tuple[str, ...] = ()


class WholeTable(NamedTuple):
    """A table as it travels."""

    version: int = 0
    tools: tuple[Tool, ...] = ()


class ToolTable:
    """Tools by session and name."""

    def __init__(self) -> None:
        self.version = 0
        self._tools: dict[tuple[str, str], Tool] = {}
        self._owners: set[str] = set()  # that ran tools at some time, and have not ended

    def __len__(self) -> int:
        return len(self._tools)

    def find(self, name: str, session: str) -> Tool | None:
        """The tool that a command of `session` ("": of none) means by `name`."""
        tool = self._tools.get((session, name)) if session else None
        return tool if tool is not None else self._tools.get(("", name))

    def seen_by(self, session: str) -> list[ToolInfo]:
        """What a command of `session` may call, by name."""
        found = {tool.info.name: tool.info for tool in self._tools.values() if not tool.info.session}
        if session:
            own = (tool.info for tool in self._tools.values() if tool.info.session == session)
            found.update((info.name, info) for info in own)
        return [found[name] for name in sorted(found)]

    def all(self) -> list[ToolInfo]:
        """Every tool, by session and name."""
        return [self._tools[key].info for key in sorted(self._tools)]

    def sessions(self) -> set[str]:
        """Those that have tools of their own."""
        return {session for session, _ in self._tools if session}

    def owners(self) -> set[str]:
        """The processes that run tools."""
        return {tool.owner for tool in self._tools.values() if tool.owner}

    def whole(self) -> WholeTable:
        """The table as it is."""
        return WholeTable(self.version, tuple(self._tools.values()))

    # ---- changes: a router's ------------------------------------------------------------------------------

    def add(self, tools: Sequence[Tool], now_ms: int) -> Change:
        """Adds them all. One that is there by the same registration is passed over. Raises DuplicateTool, and
        has added none then."""
        new: dict[tuple[str, str], Tool] = {}
        for tool in tools:
            there = new.get(tool.key) or self._tools.get(tool.key)
            if there is None:
                new[tool.key] = tool
            elif there.id != tool.id:
                raise DuplicateTool.named(tool.info.name, tool.info.session or None)
        return self._changed(now_ms, added=tuple(new.values()))

    def remove(self, name: str, session: str, now_ms: int) -> Change | None:
        """Removes one; None where it is not there."""
        return self._without([key for key in self._tools if key == (session, name)], now_ms)

    def without_owners(self, gone: Iterable[str], now_ms: int) -> Change | None:
        """Removes what processes run that have ended; None where they never ran any."""
        owners = self._owners & set(gone)
        if not owners:
            return None
        self._owners -= owners
        keys = [key for key, tool in self._tools.items() if tool.owner in owners]
        return self._changed(now_ms, removed=tuple(keys), gone=tuple(sorted(owners)))

    def without_sessions(self, ended: Iterable[str], now_ms: int) -> Change | None:
        """Removes the tools of sessions that have ended; None where there are none."""
        sessions = set(ended) - {""}
        return self._without([key for key in self._tools if key[0] in sessions], now_ms)

    def _without(self, keys: Sequence[tuple[str, str]], now_ms: int) -> Change | None:
        return self._changed(now_ms, removed=tuple(keys)) if keys else None

    def _changed(
        self,
        now_ms: int,
        added: tuple[Tool, ...] = (),
        removed: tuple[tuple[str, str], ...] = (),
        gone: tuple[str, ...] = (),
    ) -> Change:
        after = max(self.version + 1, now_ms) if added or removed or gone else self.version
        change = Change(self.version, after, added, removed, gone)
        self.take(change)
        return change

    # ---- changes: as they are told ------------------------------------------------------------------------

    def take(self, change: Change) -> bool:
        """Makes the change; False where it belongs to a table of another version."""
        if change.before != self.version:
            return change.after <= self.version  # an older one is in it already
        for key in change.removed:
            self._tools.pop(key, None)
        self._tools.update((tool.key, tool) for tool in change.added)
        self._owners.update(tool.owner for tool in change.added if tool.owner)
        self.version = change.after
        return True

    def adopt(self, table: WholeTable) -> bool:
        """Becomes that table where it is newer; whether it was."""
        if table.version <= self.version:
            return False
        self.version = table.version
        self._tools = {tool.key: tool for tool in table.tools}
        self._owners |= self.owners()
        return True
