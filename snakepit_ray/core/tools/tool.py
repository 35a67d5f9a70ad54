"""A tool: a function that interpreters may call by its name, and what may be said of one.

- A name has 1 to 64 bytes: a letter or a digit, then letters, digits, `_`, `-` and `.`.
- What is said of a tool (its description and the JSON schema of its arguments) has at most 32 arguments and
  4,096 bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakepit_ray.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MOST_ARGUMENTS = 32
MOST_BYTES = 4096
HERE, WORKER, TASK = "here", "worker", "task"
PLACES = (HERE, WORKER, TASK)


@dataclass(frozen=True)
class ToolInfo:
    """A tool as its users see it.

    `session`: the session whose commands may call it, "" for every command of the pool. `where`: "here" (in
    the process that registered it), "worker" or "task". `parameters`: the JSON schema of its arguments.
    `is_stream`: it yields values.
    """

    name: str
    session: str = ""
    where: str = HERE
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_stream: bool = False


@dataclass(frozen=True)
class Tool:
    """A tool as the pool knows it. `id`: of its registration, no other's. `owner`: the calling process that
    runs it, "" where the function itself travels: `code`, pickled."""

    info: ToolInfo
    id: str
    owner: str = ""
    code: bytes = b""

    @property
    def key(self) -> tuple[str, str]:
        """Its session and its name: no two tools have the same."""
        return self.info.session, self.info.name


def check_info(info: ToolInfo) -> ToolInfo:
    """The same, where it keeps the rules. Raises ConfigError."""
    if not NAME.fullmatch(info.name):
        raise ConfigError(
            f"a tool's name: got {info.name!r:.80}, expected 1 to 64 bytes: a letter or a digit, then "
            "letters, digits, '_', '-' and '.'",
            key="name",
        )
    if info.where not in PLACES:
        raise ConfigError.unknown("where", [info.where], PLACES)
    arguments = info.parameters.get("properties", {})
    if len(arguments) > MOST_ARGUMENTS:
        raise ConfigError(
            f"tool {info.name!r}: got {len(arguments)} arguments, expected at most {MOST_ARGUMENTS}",
            key="parameters",
        )
    size = described_bytes(info)
    if size > MOST_BYTES:
        raise ConfigError(
            f"tool {info.name!r}: its description and parameters have {size:,} bytes of JSON, expected at "
            f"most {MOST_BYTES:,}; say less",
            key="description",
        )
    return info


def described_bytes(info: ToolInfo) -> int:
    """How much is said of it. Raises ConfigError for what is no JSON."""
    try:
        return len(json.dumps([info.description, dict(info.parameters)]).encode())
    except (TypeError, ValueError) as error:
        why = f"tool {info.name!r}: its parameters are no JSON: {error}"
        raise ConfigError(why, key="parameters") from None
