"""How calls about sessions say values, and how the store has them: JSON with tags, and the buffers that those
name. No value is decoded.

- A value is taken out of a call's JSON together with the buffers that it names, and put into an answer's.
- What a call says that is not of the type it should be is InvalidArguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snakepit_ray.core.state.asked import Data, VariableChange, VariableInfo, Versioned
from snakepit_ray.core.state.types import Array, VariableType, inferred
from snakepit_ray.errors import InvalidArguments, SnakepitError
from snakepit_ray.wire.codec import TAG, Encoded, portable_buffers, read_json, rebased, write_json
from snakepit_ray.wire.failures import failure_of

LARGE = 1 << 20  # bytes: from there on a copy is made in a thread
_NO_VALUE = object()
# What stands for a tagged value where only its type matters.
_LIKE: Mapping[str, Any] = {"float": 0.0, "int": 0, "tensor": Array("", "", ()), "object": {}}


# ---- calls -------------------------------------------------------------------------------------------------


async def data_of(value: Any, buffers: Sequence[Any]) -> Data:
    """A value of a call's JSON, which has these buffers. Its tags are changed: a value is taken once."""
    taken: list[Any] = []
    if buffers:
        _take(value, buffers, taken)
    return Data(write_json(value), tuple(portable_buffers([await _owned(buffer) for buffer in taken])))


async def _owned(buffer: Any) -> Any:
    """The buffer in memory of its own. A view of memory that an interpreter has written to is nothing to
    keep: a memoryview that somebody has a buffer of and that is found in a cycle of garbage ends the process
    (CPython gh-77894)."""
    if isinstance(buffer, bytes):
        return buffer
    view = memoryview(buffer)
    if view.nbytes < LARGE:
        return bytes(view)
    from snakepit_ray.process.shared_memory import copied  # a fake pool loads nothing of processes

    return await asyncio.to_thread(copied, view)


def _take(value: Any, buffers: Sequence[Any], taken: list[Any]) -> None:
    if isinstance(value, dict):
        if TAG in value and "buffer" in value:  # a user's own key of that name is wrapped as an object
            index = value["buffer"]
            if type(index) is not int or not 0 <= index < len(buffers):
                raise InvalidArguments(
                    f"the call is damaged: it has {len(buffers)} buffers, not {index!r:.80}"
                )
            taken.append(buffers[index])
            value["buffer"] = len(taken) - 1
        for inner in value.values():
            _take(inner, buffers, taken)
    elif isinstance(value, list):
        for inner in value:
            _take(inner, buffers, taken)


def type_of(value: Any) -> VariableType:
    """The type of a variable that is made by its first assignment. Raises VariableTypeError."""
    if isinstance(value, dict) and TAG in value:
        return inferred(_LIKE.get(value[TAG], _Tagged(value[TAG])))
    return inferred(value)


class _Tagged:
    """A value that no type of variable holds, as a message shows it."""

    def __init__(self, tag: Any) -> None:
        self._tag = tag

    def __repr__(self) -> str:
        return f"a value of the kind {self._tag!r}"


def field(args: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _NO_VALUE) -> Any:
    """What a call says under `name`. Raises InvalidArguments."""
    value = args.get(name, default)
    if value is _NO_VALUE:
        raise InvalidArguments(f"the argument {name!r} is missing")
    if value is not default and not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(one.__name__ for one in kinds)
        raise InvalidArguments(f"the argument {name!r} must be {expected}, got {value!r:.80}")
    return value


# ---- answers -----------------------------------------------------------------------------------------------


class Answer:
    """An answer in the making: its JSON, in pieces, and its buffers."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []

    def encoded(self, text: bytes) -> Encoded:
        """The answer whose JSON this is."""
        return Encoded(text, self._buffers, [])

    def value(self, data: Data) -> bytes:
        """The JSON of a value, whose buffers the answer has from now on."""
        text = rebased(data.json, len(self._buffers)) if self._buffers and data.buffers else data.json
        self._buffers.extend(one if isinstance(one, bytes) else memoryview(one) for one in data.buffers)
        return text

    def versioned(self, value: Versioned, **more: Any) -> bytes:
        """A value with its version, and whatever else is said of it."""
        pieces = {name: write_json(said) for name, said in more.items()}
        return joined(
            {
                **pieces,
                "version": write_json(value.version),
                "at": write_json(value.at),
                "value": self.value(value.value),
            }
        )

    def variable(self, one: VariableInfo) -> bytes:
        """A variable."""
        about = {"type": one.type, "constraints": dict(one.constraints), "metadata": dict(one.metadata)}
        return self.versioned(one.newest, name=one.name, **about)

    def change(self, one: VariableChange) -> bytes:
        """A change as a watcher sees it."""
        if one.newest is None:
            return write_json({"name": one.name, "deleted": True, "skipped": one.skipped})
        return self.versioned(one.newest, name=one.name, deleted=False, skipped=one.skipped)


def joined(pieces: Mapping[str, bytes]) -> bytes:
    """A JSON object of members that are JSON already."""
    return b"{" + b",".join(write_json(name) + b":" + text for name, text in pieces.items()) + b"}"


def listed(items: Iterable[bytes]) -> bytes:
    """A JSON array of items that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def said(error: SnakepitError) -> dict[str, Any]:
    """An error that is one of several outcomes."""
    failure = failure_of(error)
    details = read_json(failure.details_json) if failure.details_json else {}
    return {"type": failure.type, "message": failure.message, "details": details}
