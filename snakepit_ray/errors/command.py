"""How a failure that an interpreter reported becomes an error here: CommandError and the one table of
kinds.

- A command's own exception is a CommandError that is also the builtin exception of the same name, where
  that is safe (`except ValueError` works).
- Every kind of the wire's `Failure` is in BUILDERS, and a test says so.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from snakepit_ray.errors.base import PUBLIC_MODULE, SnakepitError, WorkerFault
from snakepit_ray.errors.caller import (
    EncodingError,
    InvalidArguments,
    PayloadTooLarge,
    ToolNotFound,
    UnknownCommand,
)
from snakepit_ray.errors.load import DeadlineExceeded, RequestCancelled


class CommandError(SnakepitError):
    """The command raised. Mend the command, or what it was given: `traceback` (a string) shows where.

    `remote_type` is the exception's class name in its own language. Where Python has a builtin exception of
    that name, the error is an instance of that too.
    """

    def __init__(
        self,
        message: str = "",
        *,
        remote_type: str = "",
        traceback: str = "",
        language: str = "",
        command: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remote_type = remote_type
        self.traceback = traceback
        self.language = language
        self.command = command

    @classmethod
    def from_remote(
        cls,
        type_name: str,
        message: str,
        traceback: str = "",
        language: str = "",
        command: str | None = None,
    ) -> CommandError:
        """The error for an exception of class `type_name` that `command` has raised with that `message` in an
        interpreter of that `language`; `traceback` is its text."""
        return _class_for(type_name)(
            message, remote_type=type_name, traceback=traceback, language=language, command=command
        )

    def __str__(self) -> str:
        named = _builtin_of(self.remote_type) is not None  # then the class name says it already
        first = self.message if named or not self.remote_type else f"{self.remote_type}: {self.message}"
        where = f"command {self.command!r}" if self.command else "a command"
        inside = f"in the {self.language} interpreter" if self.language else "in the interpreter"
        if not self.traceback:
            return f"{first} (raised by {where} {inside})"
        indented = "\n".join("  " + line for line in self.traceback.strip("\n").split("\n"))
        return f"{first}\n\nRaised by {where} {inside}:\n{indented}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.remote_type, self.args), self.__dict__


command_error = CommandError.from_remote


# ---- builtins of the same name -------------------------------------------------------------------------

# Raising these for something that happened in another process would end a loop, a generator or a process
# here, or they cannot be made from a message.
_UNSAFE = (StopIteration, StopAsyncIteration, MemoryError, UnicodeError)
_GROUP: type[BaseException] | None = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11
_classes: dict[type[Exception], type[CommandError]] = {}


def _builtin_of(type_name: str) -> type[Exception] | None:
    """The builtin exception that an error of that remote class is an instance of; None for a plain
    CommandError."""
    found = getattr(builtins, type_name, None)
    if not isinstance(found, type) or not issubclass(found, Exception) or found is Exception:
        return None
    if issubclass(found, _UNSAFE) or (_GROUP is not None and issubclass(found, _GROUP)):
        return None
    return found


def _class_for(type_name: str) -> type[CommandError]:
    builtin = _builtin_of(type_name)
    if builtin is None:
        return CommandError
    if builtin not in _classes:
        space: dict[str, Any] = {"__module__": PUBLIC_MODULE, "__doc__": CommandError.__doc__}
        if issubclass(builtin, SyntaxError):  # Python prints its `msg` instead of its str
            space["msg"] = property(lambda self: self.message)
        _classes[builtin] = type(f"CommandError({builtin.__name__})", (CommandError, builtin), space)
    return _classes[builtin]


def _rebuild(remote_type: str, args: tuple[Any, ...]) -> CommandError:
    return _class_for(remote_type)(*args)


# ---- the wire's failures -------------------------------------------------------------------------------


class _Failure(NamedTuple):
    type: str
    message: str
    traceback: str
    language: str
    details: Mapping[str, Any]
    command: str | None


def failure_to_error(
    kind: int | str,
    type: str,  # the wire's name for it
    message: str,
    traceback: str = "",
    language: str = "",
    details: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> SnakepitError:
    """The error for a `Failure` of protos/snakepit/v1; `kind` is its number or its name, `details` the
    decoded JSON."""
    name = KINDS[kind] if isinstance(kind, int) and 0 <= kind < len(KINDS) else str(kind)
    build = BUILDERS.get(name, _internal)
    return build(_Failure(type, message, traceback, language, details or {}, command))


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _command(f: _Failure) -> SnakepitError:
    return CommandError.from_remote(f.type, f.message, f.traceback, f.language, f.command)


def _unknown_command(f: _Failure) -> SnakepitError:
    near, commands = _names(f.details.get("nearest")), _names(f.details.get("commands"))
    return UnknownCommand(f.message, command=f.command, nearest=near, commands=commands)


def _invalid_arguments(f: _Failure) -> SnakepitError:
    return InvalidArguments(f.message, command=f.command, details=f.details)


def _encoding(f: _Failure) -> SnakepitError:
    path = f.details.get("path")
    return EncodingError(f.message, path=path if isinstance(path, str) else None)


def _too_large(f: _Failure) -> SnakepitError:
    size, limit = _whole(f.details.get("size")), _whole(f.details.get("limit"))
    if size is not None and limit is not None:
        return PayloadTooLarge.of(size, limit, f"the result of {f.command!r}" if f.command else "the result")
    return PayloadTooLarge(f.message, size=size, limit=limit)


def _cancelled(f: _Failure) -> SnakepitError:
    return RequestCancelled.because(f.message or "the interpreter was told to stop it", f.command)


def _deadline(f: _Failure) -> SnakepitError:
    budget = f.details.get("budget_s")
    if isinstance(budget, int | float):
        return DeadlineExceeded.after(budget, "running", f.command)
    text = f.message or "the command's budget was used up while running; raise timeout= or make it shorter"
    return DeadlineExceeded(text, where="running", command=f.command)


def _tool_not_found(f: _Failure) -> SnakepitError:
    tool = f.details.get("tool")
    return ToolNotFound(
        f.message, tool=tool if isinstance(tool, str) else None, available=_names(f.details.get("available"))
    )


def _internal(f: _Failure) -> SnakepitError:
    what = f"{f.type}: {f.message}" if f.type else f.message
    return WorkerFault(
        f"the {f.language or 'interpreter'} bridge itself failed: {what}; this is a fault of the bridge, "
        "not of the "
        f"command: please report it\n{f.traceback}".rstrip()
    )


BUILDERS: dict[str, Callable[[_Failure], SnakepitError]] = {
    "KIND_UNSPECIFIED": _internal,
    "COMMAND": _command,
    "UNKNOWN_COMMAND": _unknown_command,
    "INVALID_ARGUMENTS": _invalid_arguments,
    "ENCODING": _encoding,
    "PAYLOAD_TOO_LARGE": _too_large,
    "CANCELLED": _cancelled,
    "DEADLINE": _deadline,
    "TOOL_NOT_FOUND": _tool_not_found,
    "INTERNAL": _internal,
    "TOO_MANY_CALLS": _internal,  # an answer of ours to a bridge that does not hold back its calls
}
KINDS = tuple(BUILDERS)  # the wire's number of a kind is its place in this table
