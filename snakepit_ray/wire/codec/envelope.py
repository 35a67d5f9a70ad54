"""What a worker actor returns: an encoded result that unpickles AS THE VALUE where `ray.get` is called.

- The worker actor never decodes (in a process that said `keep_encoded(True)` an envelope stays one).
- Large buffers are pickled out of band, so they are views of Ray's object store at the other end.
- A failure to decode is raised by `ray.get` as its own type.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, NamedTuple

from snakepit_ray.config import load_object
from snakepit_ray.wire.codec.decoding import decode_value
from snakepit_ray.wire.codec.encoding import INLINE, nbytes
from snakepit_ray.wire.codec.tags import Progress


class Epoch(NamedTuple):
    """Which interpreter of a worker it was. Epochs of one worker rise.

    `incarnation`: of the worker's actor, which Ray restarts when it dies. `number`: the count of the
    interpreters that it has started.
    """

    incarnation: int
    number: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A value, and how it came to be: the result of a call with `info=True`.

    `worker_id`, `epoch`, `pid`, `node_id`: which interpreter answered, and where. `request_id`: the call's.
    `waited_s`: seconds that it waited for a slot. `ran_s`: seconds in the interpreter. `attempts`: how often
    it was tried, from 1. `delegated`: another worker than the one that it was sent to has run it. `way`: how
    it came to its worker, "ray" or "lane".
    """

    value: Any
    worker_id: str
    epoch: Epoch
    pid: int
    node_id: str
    request_id: str
    waited_s: float
    ran_s: float
    attempts: int
    delegated: bool
    way: str = "ray"


# worker_id, epoch (a pair), pid, node_id, request_id, waited_s, ran_s, attempts, delegated. Of what came by a
# lane: and the way.
Info = tuple[Any, ...]


class _Process:
    """What this process does with the envelopes that reach it."""

    keep = False
    decoded = 0


def keep_encoded(keep: bool) -> None:
    """Whether envelopes that are unpickled in this process stay envelopes. Worker actors say True."""
    _Process.keep = keep


def decoded_count() -> int:
    """How many envelopes this process has decoded."""
    return _Process.decoded


class Envelope:
    """An encoded result; pickled, it arrives as its value (as a `Reply` where there is `info`), or, where
    `is_kept`, as itself.

    `runtime` is the importable name of the Runtime whose `process_response(command, value)` has the last
    word, "" for none (`snakepit_ray.runtimes.runtime_ref`).
    """

    __slots__ = ("__weakref__", "buffers", "command", "info", "is_kept", "json", "runtime")

    def __init__(
        self,
        json: bytes,
        buffers: Sequence[Any] = (),
        info: Info | None = None,
        runtime: str = "",
        command: str = "",
        is_kept: bool = False,
    ) -> None:
        self.json = json
        self.buffers = buffers
        self.info = info
        self.runtime = runtime
        self.command = command
        self.is_kept = is_kept

    def __repr__(self) -> str:
        return f"<Envelope {len(self.json)} bytes of JSON, {len(self.buffers)} buffers>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return keep_envelope if self.is_kept else decode_envelope, self.state(protocol)

    def state(self, protocol: int) -> tuple[Any, ...]:
        """What `decode_envelope` is called with at the other end."""
        if not self.buffers and self.info is None and not self.runtime:
            return (self.json,)  # the usual small result
        return (self.json, self.info, self.runtime, self.command, portable_buffers(self.buffers, protocol))

    def value(self) -> Any:
        """The decoded value, or the Reply. Raises EncodingError, or what process_response raises."""
        return self.finished(decode_value(self.json, self.buffers, "result"))

    def finished(self, value: Any) -> Any:
        """`value` as process_response leaves it, as a Reply where there is `info`."""
        if (self.info is None and not self.runtime) or isinstance(value, Progress):
            return value
        if self.runtime:
            value = runtime_of(self.runtime).process_response(self.command, value)
        if self.info is None:
            return value
        worker_id, epoch, *rest = self.info
        more: list[Any] = rest
        return Reply(value, worker_id, Epoch(*epoch), *more)


def portable_buffers(buffers: Sequence[Any], protocol: int = 5) -> list[Any]:
    """The buffers so that they pickle: large ones out of band (no copy), small ones as bytes (less to do)."""
    return [
        PickleBuffer(buffer) if protocol >= 5 and nbytes(buffer) > INLINE else bytes(memoryview(buffer))
        for buffer in buffers
    ]


def decode_envelope(
    json: bytes,
    info: Info | None = None,
    runtime: str = "",
    command: str = "",
    buffers: Sequence[Any] = (),
) -> Any:
    """What pickle calls for an Envelope: its value; in a process that keeps them encoded, the Envelope."""
    return decoded(Envelope(json, buffers, info, runtime, command), 1, command)


def keep_envelope(
    json: bytes,
    info: Info | None = None,
    runtime: str = "",
    command: str = "",
    buffers: Sequence[Any] = (),
) -> Envelope:
    """What pickle calls for an Envelope that whoever reads it decodes where that holds up nobody."""
    return Envelope(json, buffers, info, runtime, command, is_kept=True)


def decoded(envelope: Any, count: int, command: str) -> Any:
    """The value of an envelope that was unpickled, or its error so that Ray raises it; in a process that
    keeps them encoded, the envelope."""
    if _Process.keep:
        return envelope
    try:
        _Process.decoded += count
        return envelope.value()
    except Exception as error:  # noqa: BLE001 - user code among it: a runtime's process_response
        return _raised_by_ray(error, command)


def _raised_by_ray(error: Exception, command: str) -> Any:
    """The error so that `ray.get` raises it as its own type.

    An exception out of unpickling becomes a RaySystemError, but an unpickled RayTaskError is raised as an
    instance of its cause's class. Where Ray is not loaded nobody calls ray.get, and it is raised here.
    """
    ray_exceptions = sys.modules.get("ray.exceptions")
    if ray_exceptions is None:
        raise error
    text = "".join(traceback.format_exception(error))
    name = f"result of {command!r}" if command else "result"
    return ray_exceptions.RayTaskError(name, text, error, proctitle="decoding", ip="127.0.0.1")


_runtimes: dict[str, Any] = {}


def runtime_of(name: str) -> Any:
    """The Runtime of that importable name, made once in each process."""
    found = _runtimes.get(name)
    if found is None:
        found = load_object(name)
        found = _runtimes[name] = found() if isinstance(found, type) else found
    return found
