"""What a call to the host fails with, and the errors that commands want to catch by type. Each is a
HostError, with `details` and `traceback`.

| class | also | when |
|---|---|---|
| SessionNotFound | | the request has no session, or its session was deleted while it ran |
| SessionExpired | SessionNotFound | the session was not used for its time to live |
| SessionQuotaExceeded | | the pool has as many sessions as it may have |
| SessionWorkerLost | | a strict session has moved to another worker while this request ran |
| VariableNotFound | KeyError | the session has no variable of that name |
| VariableTypeError | TypeError | the value is not of the variable's type |
| ConstraintViolation | ValueError | the value breaks a constraint of the variable |
| VersionConflict | | the variable has another version than was expected; nothing was written |
"""

from __future__ import annotations


class HostError(RuntimeError):
    """A call to the host failed; `kind` is the number of snakepit.v1.Failure.Kind, `type` the error's name
    over there, `traceback` where it was raised there (a string), `details` what else it says.
    """

    def __init__(
        self, message: str, kind: int = 0, type: str = "", details: dict | None = None, traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.type = type
        self.details = details or {}
        self.traceback = traceback


class SessionNotFound(HostError):
    """The request has no session, or its session was deleted while it ran."""


class SessionExpired(SessionNotFound):
    """The session was not used for its time to live."""


class SessionQuotaExceeded(HostError):
    """The pool has as many sessions as it may have."""


class SessionWorkerLost(HostError):
    """A strict session has moved to another worker while this request ran."""


class VariableNotFound(HostError, KeyError):
    """The session has no variable of that name."""

    __str__ = Exception.__str__  # KeyError's shows the repr of the message


VariableNotFoundError = VariableNotFound  # as adapters in the wild call it


class VariableTypeError(HostError, TypeError):
    """The value is not of the variable's type."""


class ConstraintViolation(HostError, ValueError):
    """The value breaks a constraint of the variable; `details` has `rule` and `bound`."""


class VersionConflict(HostError):
    """The variable has another version than was expected; `details` has `expected` and `actual`. Nothing was
    written.
    """


BY_NAME = {
    kind.__name__: kind
    for kind in (
        SessionNotFound,
        SessionExpired,
        SessionQuotaExceeded,
        SessionWorkerLost,
        VariableNotFound,
        VariableTypeError,
        ConstraintViolation,
        VersionConflict,
    )
}


def error_of(message: str, kind: int, name: str, details: dict, traceback: str) -> HostError:
    """The error that the host calls `name`."""
    return BY_NAME.get(name, HostError)(message, kind, name, details, traceback)
