"""How what the store keeps becomes values of a database, and comes back.

JSON of Python's own writer, which has infinities and large integers, and no pickle: a file that somebody else
has written can be damaged, but runs no code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from snakepit_ray import errors
from snakepit_ray.core.state.asked import Data, Joining, SessionInfo, Wrote
from snakepit_ray.core.state.writes import Written
from snakepit_ray.store.files import Filed

HEAD = struct.Struct("<I")


class Encoded(NamedTuple):
    """A value in three columns: its JSON, its buffers (None: it has none), the files that they are in."""

    json: bytes
    buffers: bytes | None
    files: str | None


def encode(data: Data) -> Encoded:
    """A value as it is written."""
    if not data.buffers:
        return Encoded(data.json, None, None)
    places = [[one.name, one.size] if isinstance(one, Filed) else len(one) for one in data.buffers]
    head = write_json(places).encode()
    inline = [one for one in data.buffers if not isinstance(one, Filed)]
    files = [one.name for one in data.buffers if isinstance(one, Filed)]
    blob = b"".join([HEAD.pack(len(head)), head, *inline])
    return Encoded(data.json, blob, write_json(files) if files else None)


def decode(text: bytes, blob: bytes | None) -> Data:
    """The value that was written. Raises ValueError for what is none."""
    if blob is None:
        return Data(text)
    (size,) = HEAD.unpack_from(blob)
    at = HEAD.size + size
    buffers: list[Any] = []
    for place in json.loads(blob[HEAD.size : at]):
        if isinstance(place, int):
            buffers.append(blob[at : at + place])
            at += place
        else:
            buffers.append(Filed(*place))
    return Data(text, tuple(buffers))


def write_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=_plain)


def read_json(text: str) -> Any:
    return json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


# ---- answers that are kept ---------------------------------------------------------------------------------


def encode_answer(answer: Any) -> str:
    """The answer of an op, as it is written."""
    if isinstance(answer, Wrote):
        outcome = [[one.name, one.version, _encode_error(one.error)] for one in answer.outcome]
        return write_json(["wrote", answer.generation, outcome])
    if isinstance(answer, Joining):
        return write_json(["joining", asdict(answer.info), answer.is_new])
    if isinstance(answer, SessionInfo):
        return write_json(["session", asdict(answer)])
    return write_json(["plain", answer])


def decode_answer(text: str) -> Any:
    """The answer that was written."""
    kind, *parts = json.loads(text)
    if kind == "wrote":
        generation, outcome = parts
        return Wrote(generation, tuple(Written(name, to, _decode_error(why)) for name, to, why in outcome))
    if kind == "joining":
        return Joining(_session(parts[0]), parts[1])
    return _session(parts[0]) if kind == "session" else parts[0]


def _session(facts: dict[str, Any]) -> SessionInfo:
    return SessionInfo(**{**facts, "programs": tuple(facts["programs"])})


def _encode_error(error: errors.SnakepitError | None) -> Any:
    return None if error is None else [type(error).__name__, str(error), vars(error)]


def _decode_error(facts: Any) -> errors.SnakepitError | None:
    if facts is None:
        return None
    name, message, details = facts
    kind = getattr(errors, name, errors.SnakepitError)
    error: errors.SnakepitError = kind(message)
    vars(error).update(details)
    return error
