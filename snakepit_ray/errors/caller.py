"""The errors that are the call's own fault: the same call fails again, so change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snakepit_ray.errors.base import CallerFault, did_you_mean, listed


class ConfigError(CallerFault):
    """A configuration or a call option is not one that there is. Correct the key or the value that it
    names."""

    def __init__(self, message: str = "", *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key

    @classmethod
    def unknown(cls, what: str, names: Iterable[str], known: Sequence[str]) -> ConfigError:
        """For `names` that are none of the `known` ones; `what` is their kind, such as "pool option"."""
        unknown = sorted(names)
        hints = "".join(did_you_mean(name, known) for name in unknown)
        return cls(
            f"unknown {what}{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}{hints} "
            f"(there are: {listed(known, 60)})",
            key=unknown[0],
        )


class PoolNotFound(CallerFault):
    """No pool of that name runs in this cluster. Start it with `snakepit.start`, or correct the name."""

    def __init__(self, message: str = "", *, pool: str | None = None) -> None:
        super().__init__(message)
        self.pool = pool

    @classmethod
    def named(cls, pool: str, running: Iterable[str] = ()) -> PoolNotFound:
        """For the name `pool`, beside which the pools `running` are there."""
        running = list(running)
        return cls(
            f"no pool {pool!r} runs in this cluster{did_you_mean(pool, running)} (running: "
            f"{listed(running)}); "
            f"start it with snakepit.start(name={pool!r})",
            pool=pool,
        )


class PoolExists(CallerFault):
    """A pool of that name runs already. Join it with `snakepit.connect`, or take another name."""

    def __init__(self, message: str = "", *, pool: str | None = None) -> None:
        super().__init__(message)
        self.pool = pool

    @classmethod
    def named(cls, pool: str) -> PoolExists:
        """For the name `pool`."""
        return cls(
            f"a pool {pool!r} runs already in this cluster; join it with snakepit.connect({pool!r}), "
            "shut it down, or start yours under another name",
            pool=pool,
        )


class PoolClosed(CallerFault):
    """The pool was shut down, or its driver ended. Start another one."""

    def __init__(self, message: str = "", *, pool: str | None = None) -> None:
        super().__init__(message)
        self.pool = pool

    @classmethod
    def named(cls, pool: str, why: str = "it was shut down") -> PoolClosed:
        """For the name `pool`; `why` completes "the pool is closed: ..."."""
        return cls(f"the pool {pool!r} is closed: {why}; start it again with snakepit.start", pool=pool)


class UnknownCommand(CallerFault):
    """The adapter has no such command. `nearest` and `commands` say what there is."""

    def __init__(
        self,
        message: str = "",
        *,
        command: str | None = None,
        nearest: Sequence[str] = (),
        commands: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.command = command
        self.nearest: tuple[str, ...] = tuple(nearest)
        self.commands: tuple[str, ...] = tuple(commands)

    @classmethod
    def named(cls, command: str, commands: Iterable[str]) -> UnknownCommand:
        """For a `command` that is none of the `commands` that there are."""
        from snakepit_ray.errors.base import nearest

        known = sorted(commands)
        return cls(
            f"unknown command {command!r}{did_you_mean(command, known)} (commands: {listed(known)})",
            command=command,
            nearest=nearest(command, known),
            commands=known,
        )


class InvalidArguments(CallerFault):
    """An argument is missing, unknown or of the wrong type; the command was not called. Compare its
    signature."""

    def __init__(
        self, message: str = "", *, command: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.command = command
        self.details: dict[str, Any] = dict(details or {})


class EncodingError(CallerFault):
    """A value cannot be carried, or what arrived is damaged. `path` names the place: convert that value
    first."""

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class PayloadTooLarge(CallerFault):
    """More bytes than max_message_size in one message. Pass arrays, tables or bytes: they travel beside
    it."""

    def __init__(self, message: str = "", *, size: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit

    @classmethod
    def of(cls, size: int, limit: int, what: str = "the message") -> PayloadTooLarge:
        """For `size` bytes in band, where `limit` bytes are allowed; `what` names the message."""
        return cls(
            f"{what} has {size:,} bytes in band, the limit is {limit:,}; pass bulk data as numpy arrays, "
            "Arrow tables "
            "or bytes (they travel out of band), split it, or raise max_message_size",
            size=size,
            limit=limit,
        )


class ToolNotFound(CallerFault):
    """No tool of that name is registered for this pool or session. `available` lists what there is."""

    def __init__(self, message: str = "", *, tool: str | None = None, available: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tool = tool
        self.available: tuple[str, ...] = tuple(available)

    @classmethod
    def named(cls, tool: str, available: Iterable[str]) -> ToolNotFound:
        """For a `tool` that is none of those that are `available`."""
        known = sorted(available)
        return cls(
            f"no tool {tool!r}{did_you_mean(tool, known)} (available: {listed(known)}); "
            "register it with pool.register_tool",
            tool=tool,
            available=known,
        )


class DuplicateTool(CallerFault):
    """A tool of that name is registered already; nothing was registered. Take another name, or delete the
    old one."""

    def __init__(self, message: str = "", *, tool: str | None = None, session: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool
        self.session = session

    @classmethod
    def named(cls, tool: str, session: str | None = None) -> DuplicateTool:
        """For a `tool` of that `session`, or of the whole pool where it is None."""
        where = f"session {session!r}" if session else "this pool"
        return cls(
            f"a tool {tool!r} is registered already for {where}; take another name or delete that one first",
            tool=tool,
            session=session,
        )
