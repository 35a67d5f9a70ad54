"""How an exception becomes a structured failure: kind, type, message, traceback, details.

- Nothing is imported for it until something fails.
- The text is always valid UTF-8 and bounded.
- A traceback starts at the user's own frames.
"""

from __future__ import annotations

import os

# snakepit.v1.Failure.Kind, here as numbers so that values and signatures need no protobuf. A test compares
# them.
COMMAND = 1
UNKNOWN_COMMAND = 2
INVALID_ARGUMENTS = 3
ENCODING = 4
PAYLOAD_TOO_LARGE = 5
CANCELLED = 6
DEADLINE = 7
TOOL_NOT_FOUND = 8
INTERNAL = 9
TOO_MANY_CALLS = 10

MESSAGE_LIMIT = 64 * 1024
TRACEBACK_LIMIT = 32 * 1024
CUT_LIMIT = 200  # characters of a message that is left where a batch's failures fill its reply
_PLACE = os.path.dirname(os.path.dirname(__file__))
# As code objects name it, and as it is: sys.path may have had a relative path to it.
_HERE = tuple({_PLACE + os.sep, os.path.abspath(_PLACE) + os.sep})
_ADAPTERS = tuple(here + "adapters" + os.sep for here in _HERE)


class ProtocolMismatch(Exception):
    """The host speaks another version of the wire."""


class Refusal(Exception):
    """A failure that the bridge itself finds; `kind` and `details` go on the wire, a traceback does not."""

    kind = INTERNAL

    def __init__(self, message: str, details: dict | None = None) -> None:
        super().__init__(message)
        self.details = details


class UnknownCommand(Refusal):
    kind = UNKNOWN_COMMAND


class InvalidArguments(Refusal):
    kind = INVALID_ARGUMENTS


class EncodingError(Refusal):
    kind = ENCODING


class PayloadTooLarge(Refusal):
    kind = PAYLOAD_TOO_LARGE


class Stopped(Refusal):
    """A request that was cancelled, or whose budget ended; `kind` says which."""

    def __init__(self, kind: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Failure:
    """What goes on the wire for a request that has no value."""

    __slots__ = ("details", "kind", "message", "traceback", "type")

    def __init__(self, kind: int, type: str, message: str, traceback: str = "", details: dict | None = None):
        self.kind = kind
        self.type = type
        self.message = message
        self.traceback = traceback
        self.details = details

    @property
    def size(self) -> int:
        """About how many bytes of a message it is."""
        return sum(len(text.encode("utf-8", "replace")) for text in (self.message, self.traceback)) + 64

    def cut(self) -> Failure:
        """The same in few bytes: without its traceback, with the beginning of a long message."""
        message = self.message
        if len(message) > CUT_LIMIT:
            message = f"{message[:CUT_LIMIT]} ... ({len(message):,} characters; cut: max_message_size)"
        return Failure(self.kind, self.type, message, "", self.details)


def failure_of(error: BaseException) -> Failure:
    """The failure that `error` is: a Refusal's own kind, otherwise COMMAND with the user's part of the
    traceback.
    """
    if isinstance(error, Refusal):
        return Failure(error.kind, type(error).__name__, printable(error), details=error.details)
    kind = type(error)
    module = kind.__module__ if isinstance(kind.__module__, str) else ""
    return Failure(COMMAND, kind.__name__, printable(error), user_traceback(error), {"module": clean(module)})


def printable(error: BaseException) -> str:
    """str(error), whatever the class does in its __str__."""
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - the user's own __str__
        text = f"<{type(error).__name__}, and its __str__ raised {type(broken).__name__}>"
    return clean(text[:MESSAGE_LIMIT])


def clean(text: str) -> str:
    """`text` with what UTF-8 cannot carry written as escapes."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def user_traceback(error: BaseException) -> str:
    """The traceback from the first frame that is not the bridge's, its last TRACEBACK_LIMIT characters."""
    try:
        import traceback

        first = error.__traceback__
        while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
            first = first.tb_next
        text = "".join(traceback.format_exception(type(error), error, first))
    except BaseException as broken:  # noqa: BLE001 - formatting calls the user's __str__
        text = f"<no traceback: formatting it raised {type(broken).__name__}>"
    return clean(text[-TRACEBACK_LIMIT:])


def _is_ours(filename: str) -> bool:
    return filename.startswith(_HERE) and not filename.startswith(_ADAPTERS)
