"""How what a handler raised becomes a Failure: kind, type, message, traceback, details."""

from __future__ import annotations

import json
import traceback
from typing import Any

from snakepit_ray import errors
from snakepit_ray.wire._pb import interpreter_pb2 as pb

MESSAGE_LIMIT = 64 * 1024
TRACEBACK_LIMIT = 32 * 1024
KINDS: dict[type[BaseException], pb.Failure.Kind] = {
    errors.UnknownCommand: pb.Failure.UNKNOWN_COMMAND,
    errors.InvalidArguments: pb.Failure.INVALID_ARGUMENTS,
    errors.EncodingError: pb.Failure.ENCODING,
    errors.PayloadTooLarge: pb.Failure.PAYLOAD_TOO_LARGE,
    errors.RequestCancelled: pb.Failure.CANCELLED,
    errors.DeadlineExceeded: pb.Failure.DEADLINE,
    errors.ToolNotFound: pb.Failure.TOOL_NOT_FOUND,
}


class Failed(Exception):
    """A failure that another process has made: it goes on as it is."""

    def __init__(self, failure: pb.Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure_of(error: BaseException) -> pb.Failure:
    """The failure that an exception is. What a command in another interpreter raised keeps its own type,
    traceback and language; of our own errors the public attributes are the details."""
    if isinstance(error, Failed):
        return error.failure
    kind = next((KINDS[base] for base in type(error).__mro__ if base in KINDS), pb.Failure.COMMAND)
    failure = pb.Failure(kind=kind, type=type(error).__name__, language="python")
    failure.message = _clean(_words(error)[:MESSAGE_LIMIT])
    failure.traceback = _clean("".join(traceback.format_exception(error))[-TRACEBACK_LIMIT:])
    if isinstance(error, errors.CommandError) and error.remote_type:
        failure.type, failure.language = _clean(error.remote_type), _clean(error.language)
        failure.message, failure.traceback = _clean(error.message), _clean(error.traceback)
    elif isinstance(error, errors.SnakepitError):
        failure.details_json = json.dumps(_details(error)).encode()
    return failure


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the class's own __str__
        return f"<{type(error).__name__}, and its __str__ raised {type(broken).__name__}>"


def _clean(text: str) -> str:
    """`text` with what UTF-8 cannot carry written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _details(error: errors.SnakepitError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name[0] != "_" and _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
