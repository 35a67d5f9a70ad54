"""The names and limits that both directions of the codec share (bridge/README.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

TAG = "$snakepit"
LARGEST_INT = 2**53 - 1  # larger ones do not survive languages whose numbers are doubles
MAX_DEPTH = 200


def is_progress(json: bytes) -> bool:
    """Whether an encoded value is a report of progress."""
    head = json[:40]
    return head.startswith(b'{"$snakepit"') and b'"progress"' in head


@dataclass(frozen=True)
class Unserializable:
    """Stands for a result that cannot be carried, in pools with unserializable="marker"; `type` is its
    class."""

    type: str


@dataclass(frozen=True)
class Progress:
    """How far a streaming command is: what it gave to `ctx.progress(done, total, message)`.

    `done` and `total` are in the command's own units; `total` is None where the command does not know it.
    """

    done: float
    total: float | None = None
    message: str = ""
