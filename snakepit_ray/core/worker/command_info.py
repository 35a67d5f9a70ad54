"""A command as its users see it: what an interpreter's ready line says of it, with a JSON schema of its
arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from snakepit_ray.core.tools.tool import ToolInfo
from snakepit_ray.core.worker.handshake import Command

# The words of a ready line (bridge/README.md section 2). Bytes, arrays and tables have no word in JSON.
WORDS: dict[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "None": {"type": "null"},
}
CHOICES = "one of "


@dataclass(frozen=True)
class CommandInfo:
    """A command. `doc`: its docstring. `parameters`: the JSON schema of its arguments, {} of one that is
    open to anything. `is_stream`: it yields values. `is_idempotent`: it may run again after a crash.
    `timeout`: seconds, None for the pool's."""

    name: str
    doc: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_stream: bool = False
    is_idempotent: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class PoolDescription:
    """What a pool offers: its commands by name, and the tools that are registered, by session and name."""

    pool: str
    commands: Mapping[str, CommandInfo]
    tools: Sequence[ToolInfo]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        commands = {name: asdict(info) for name, info in self.commands.items()}
        return {"pool": self.pool, "commands": commands, "tools": [asdict(tool) for tool in self.tools]}


def info_of(command: Command) -> CommandInfo:
    """What users see of a command."""
    return CommandInfo(
        command.name,
        command.doc or "",
        _schema(command),
        command.stream,
        command.idempotent,
        command.timeout,
    )


def _schema(command: Command) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {str(one["name"]): _argument(one) for one in command.params},
        "additionalProperties": command.open,
    }
    required = [str(one["name"]) for one in command.params if one.get("required")]
    return {**schema, "required": required} if required else schema


def _argument(said: Mapping[str, Any]) -> dict[str, Any]:
    argument = of_words(str(said.get("type", "")))
    return {**argument, "default": said["default"]} if "default" in said else argument


def of_words(words: str) -> dict[str, Any]:
    """The schema of what a ready line says of an argument's type; {} where JSON has no word for it."""
    if words.startswith(CHOICES):
        return _choices(words[len(CHOICES) :])
    kinds = [WORDS.get(word, {}) for word in words.split(" or ")]
    if not all(kinds):
        return {}
    return dict(kinds[0]) if len(kinds) == 1 else {"anyOf": kinds}


def _choices(listed: str) -> dict[str, Any]:
    try:
        return {"enum": list(ast.literal_eval(f"[{listed}]"))}
    except (SyntaxError, ValueError):
        return {}
