"""The words of payloads: their tag, their bounds, and values that exist only for them."""

from __future__ import annotations

TAG = "$snakepit"
MAX_INT = 2**53 - 1
MAX_DEPTH = 200


class Unserializable:
    """Stands for a result that could not be carried, in pools that ask for the marker."""

    __slots__ = ("type",)

    def __init__(self, type: str) -> None:
        self.type = type

    def __eq__(self, other) -> bool:
        return isinstance(other, Unserializable) and other.type == self.type

    def __hash__(self) -> int:
        return hash((Unserializable, self.type))

    def __repr__(self) -> str:
        return f"Unserializable({self.type!r})"


class Progress:
    """How far a command is: `ctx.progress(done, total, message)` sends one."""

    __slots__ = ("done", "message", "total")

    def __init__(self, done: float, total: float | None = None, message: str = "") -> None:
        self.done = done
        self.total = total
        self.message = message

    def __eq__(self, other) -> bool:
        return isinstance(other, Progress) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def _all(self) -> tuple:
        return self.done, self.total, self.message

    def __repr__(self) -> str:
        return f"Progress(done={self.done!r}, total={self.total!r}, message={self.message!r})"


class Binary:
    """Bytes for a buffer, and the tag that says what they are (without its buffer's index)."""

    __slots__ = ("data", "tag")

    def __init__(self, data: bytes, **tag) -> None:
        self.data = data
        self.tag = tag


class Refused(Exception):
    """A value that cannot be carried; `path` grows from the inside out while it travels up."""

    def __init__(self, reason: str, value=None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.type = type_name(value)
        self.path: list = []

    def at(self, step: str) -> Refused:
        """The same, seen from the container around it."""
        self.path.append(step)
        return self

    def text(self, root: str) -> str:
        """`root["x"][3]: cannot encode ...`."""
        return f"{root}{''.join(reversed(self.path))}: {self.reason}"


def type_name(value) -> str:
    """`module.Class` of a value."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def as_bytes(buffer) -> bytes:
    """Its bytes; itself where it is bytes."""
    return buffer if type(buffer) is bytes else bytes(buffer)
