"""The ready line: what an interpreter says of itself before anything is sent to it.

- One line of JSON.
- A version that we do not speak is refused naming both.
- A line that is not what bridge/README.md section 2 says is an error that shows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 2  # of protos/snakepit/v1/interpreter.proto and bridge/README.md
OF_REQUESTS = frozenset({"batches", "streams", "refs"})
# What a bridge may leave out: bridge/README.md section 2 says what each means.
FEATURES = OF_REQUESTS | {
    "arena",
    "forks",
    "frames",
    "host_calls",
    "host_streams",
    "marks",
    "nesting",
    "session_ends",
    "session_moves",
    "traces",
}
SHOWN = 200
LONGEST_SECONDS = 4_000_000.0  # 46 days: a budget travels as a 32-bit number of milliseconds


class HandshakeError(Exception):
    """The ready line is not one that can be worked with. `version_mismatch` when its version is the
    reason."""

    def __init__(self, message: str, version_mismatch: bool = False) -> None:
        super().__init__(message)
        self.version_mismatch = version_mismatch


@dataclass(frozen=True)
class StartFailure:
    """The interpreter started and said why it cannot serve: `stage` is config, interpreter, import, init,
    setup or serve."""

    stage: str
    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Command:
    """What an interpreter says of one of its commands; `timeout` in seconds."""

    name: str
    stream: bool = False
    idempotent: bool = False
    timeout: float | None = None
    doc: str | None = None
    params: tuple[dict[str, Any], ...] = ()
    open: bool = False


@dataclass(frozen=True)
class Ready:
    """A served interpreter."""

    address: str  # of its gRPC; "" where it serves frames alone
    pid: int
    language: str
    version: str
    bridge: str
    capacity: int
    adapter: str
    commands: dict[str, Command] = field(default_factory=dict)
    features: frozenset[str] = frozenset()  # of those in FEATURES

    @property
    def lacks(self) -> frozenset[str]:
        """The kinds of requests that must not be sent to it."""
        return OF_REQUESTS - self.features


def parse_ready(line: bytes) -> Ready | StartFailure:
    """Reads a ready line. Raises HandshakeError for a version that we do not speak and for anything else."""
    said = _spoken(line)
    try:
        if "error" in said:
            return _failure(said["error"])
        return _ready(said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HandshakeError(f"the ready line lacks or garbles {error}: {_shown(line)}") from error


def parse_forker(line: bytes) -> StartFailure | None:
    """Reads the ready line of a forker: None when it is ready, else why not. Raises as `parse_ready`."""
    said = _spoken(line)
    try:
        if "error" in said:
            return _failure(said["error"])
        if said["forker"] is not True:
            raise ValueError(f"forker: {said['forker']!r}")
    except (KeyError, ValueError, AttributeError) as error:
        raise HandshakeError(
            f"the ready line of a forker lacks or garbles {error}: {_shown(line)}"
        ) from error
    return None


def _spoken(line: bytes) -> dict[str, Any]:
    """The object of a line in a version that we speak."""
    said = _object(line)
    version = said.get("snakepit")
    if version != PROTOCOL:
        raise HandshakeError(
            f"the interpreter speaks protocol version {version!r}, this host speaks {PROTOCOL}: install the "
            "snakepit-bridge that belongs to this snakepit_ray into it (snakepit-ray setup INTERPRETER)",
            version_mismatch=True,
        )
    return said


def _object(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HandshakeError(f"the ready line is not JSON: {_shown(line)}") from error
    if not isinstance(said, dict):
        raise HandshakeError(f"the ready line is not a JSON object: {_shown(line)}")
    return said


def _failure(said: dict[str, Any]) -> StartFailure:
    return StartFailure(*(str(said.get(key, "")) for key in ("stage", "type", "message", "traceback")))


def _ready(said: dict[str, Any]) -> Ready:
    features = _features(said.get("features", []))
    return Ready(
        address=_address(said["address"], features),
        pid=int(said["pid"]),
        language=str(said["language"]),
        version=str(said["version"]),
        bridge=str(said.get("bridge", "")),
        capacity=int(said["capacity"]),
        adapter=str(said.get("adapter", "")),
        features=features,
        commands={name: command_of(name, facts) for name, facts in said["commands"].items()},
    )


def _address(said: Any, features: frozenset[str]) -> str:
    if said is None and "frames" not in features:
        raise ValueError("address: null is for a bridge with the feature frames")
    return "" if said is None else str(said)


def _features(said: Any) -> frozenset[str]:
    """Those that we know; a bridge may have learnt what we have not."""
    if not isinstance(said, list):
        raise TypeError(f"features, a list of names: got {said!r:.80}")
    return FEATURES & {name for name in said if isinstance(name, str)}


def _seconds(name: str, timeout: Any) -> float | None:
    if timeout is None:
        return None
    seconds = float(timeout)
    if not 0 < seconds <= LONGEST_SECONDS:  # nor is NaN
        raise HandshakeError(
            f"the timeout of command {name!r} is {timeout!r}: it is a number of seconds above 0 and at most "
            f"{LONGEST_SECONDS:,.0f}, or null for the pool's request_timeout"
        )
    return seconds


def command_of(name: str, facts: dict[str, Any]) -> Command:
    """What a ready line says of one command. Raises HandshakeError."""
    return Command(
        name=name,
        stream=bool(facts.get("stream")),
        idempotent=bool(facts.get("idempotent")),
        timeout=_seconds(name, facts.get("timeout")),
        doc=facts.get("doc"),
        params=tuple(facts.get("params") or ()),
        open=bool(facts.get("open")),
    )


def _shown(line: bytes) -> str:
    text = line[:SHOWN].decode("utf-8", "backslashreplace")
    return repr(text) + ("..." if len(line) > SHOWN else "")
