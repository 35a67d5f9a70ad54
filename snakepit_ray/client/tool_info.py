"""What is said of a function that is to be a tool: its docstring, the JSON schema of its arguments. No Ray.

- An annotation that JSON has no word for says nothing: any value is taken.
- Defaults that are plain JSON are named.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from snakepit_ray.core.tools.tool import ToolInfo, check_info
from snakepit_ray.errors import ConfigError
from snakepit_ray.port import tool_running

SIMPLE: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    type(None): {"type": "null"},
}


def describe(
    name: str,
    function: Any,
    session: str | None,
    where: str,
    description: str,
    parameters: Any,
) -> ToolInfo:
    """What is said of a function. Raises ConfigError for what cannot be a tool."""
    if not callable(function):
        raise ConfigError(f"tool {name!r:.80}: got {function!r:.80}, expected a function")
    if not isinstance(name, str) or not isinstance(description, str):
        raise ConfigError(f"tool {name!r:.80}: expected its name and its description as strings")
    schema = schema_of(function) if parameters is None else given_schema(name, parameters)
    words = description or (inspect.getdoc(function) or "").partition("\n\n")[0]
    info = ToolInfo(name, session or "", where, words, schema, tool_running.is_stream(function))
    return check_info(info)


def schema_of(function: Any) -> dict[str, Any]:
    """The schema of an object that has the function's arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C, without a signature
        return {"type": "object"}
    hints = _hints(function)
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    required = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            schema["additionalProperties"] = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            schema["properties"][parameter.name] = _argument(parameter, hints.get(parameter.name))
            if parameter.default is parameter.empty:
                required.append(parameter.name)
    schema.setdefault("additionalProperties", False)
    if required:
        schema["required"] = required
    return schema


def given_schema(name: str, parameters: Any) -> dict[str, Any]:
    """What a user said of the arguments: a JSON schema, or a list of {"name", "type", "description",
    "required"}. Raises ConfigError."""
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if isinstance(parameters, list | tuple) and all(map(_is_listed, parameters)):
        return _of_list(parameters)
    raise ConfigError(
        f'tool {name!r}: parameters: got {parameters!r:.80}, expected a JSON schema or a list of {{"name", '
        '"type", "description", "required"}',
        key="parameters",
    )


def _is_listed(said: Any) -> bool:
    return isinstance(said, Mapping) and isinstance(said.get("name"), str)


def _of_list(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    properties = {
        one["name"]: {key: value for key, value in one.items() if key not in ("name", "required")}
        for one in parameters
    }
    required = [one["name"] for one in parameters if one.get("required")]
    return {"type": "object", "properties": properties, "required": required}


def _argument(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    said = dict(of_hint(hint))
    if parameter.default is not parameter.empty and _is_json(parameter.default):
        said["default"] = parameter.default
    return said


def of_hint(hint: Any) -> dict[str, Any]:
    """The schema of what an annotation allows; {} where it says nothing."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(inner)} if _is_json(list(inner)) else {}
    if origin in (typing.Union, types.UnionType):
        choices = [of_hint(one) for one in inner]
        return {"anyOf": choices} if all(choices) else {}
    if origin in (list, Sequence) and inner:
        return {"type": "array", **({"items": items} if (items := of_hint(inner[0])) else {})}
    if origin in (dict, Mapping) and len(inner) > 1:
        return {
            "type": "object",
            **({"additionalProperties": values} if (values := of_hint(inner[1])) else {}),
        }
    plain = origin if origin is not None else hint
    return SIMPLE.get(plain, {}) if isinstance(plain, type) else {}


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # noqa: BLE001 - evaluating the user's annotations can raise anything
        return {}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
