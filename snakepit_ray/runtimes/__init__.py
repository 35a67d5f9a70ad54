"""What differs between languages. `resolve_runtime` makes a Runtime of what a pool's configuration says."""

from __future__ import annotations

from snakepit_ray.config import load_object
from snakepit_ray.config.languages import LATER, flagged_argv, script_argv
from snakepit_ray.errors import ConfigError, did_you_mean
from snakepit_ray.runtimes.base import (
    MEMBERS,
    BaseRuntime,
    Runtime,
    argv_of,
    find_executable,
    has_hooks,
    has_response_hook,
    importable_name,
)
from snakepit_ray.runtimes.python import PythonRuntime

BUILTIN: dict[str, Runtime] = {"python": PythonRuntime()}

_named: dict[str, Runtime] = {}  # by "module:Name", made once in each process


def resolve_runtime(runtime: str | object) -> Runtime:
    """The Runtime for a language's name, for "module:ClassOrInstance", or for an object that is one.

    Raises ConfigError for a name that there is not (yet), and for an object that lacks a member.
    """
    if not isinstance(runtime, str):
        return _checked(runtime() if isinstance(runtime, type) else runtime, repr(runtime))
    if runtime in BUILTIN:
        return BUILTIN[runtime]
    if runtime in LATER:
        raise ConfigError(f"runtime {runtime!r} is not in this version yet", key="runtime")
    if ":" not in runtime:
        raise ConfigError(
            f"runtime: got {runtime!r}, expected {', '.join(map(repr, BUILTIN))}, "
            f'"module:Runtime" or a Runtime object{did_you_mean(runtime, BUILTIN)}',
            key="runtime",
        )
    if runtime not in _named:
        found = load_object(runtime)
        _named[runtime] = _checked(found() if isinstance(found, type) else found, runtime)
    return _named[runtime]


def runtime_ref(runtime: Runtime) -> str:
    """The name by which a decoder finds `process_response`; "" where that does nothing.

    Raises ConfigError for a runtime that needs a name and has none (runtimes/base.py `importable_name`).
    """
    if not has_response_hook(runtime):
        return ""
    for name, known in _named.items():
        if known is runtime:
            return name
    return importable_name(runtime)


def _checked(found: object, said: str) -> Runtime:
    missing = [member for member in MEMBERS if not hasattr(found, member)]
    if missing or not isinstance(found, Runtime):
        raise ConfigError(
            f"runtime: {said} lacks {', '.join(missing)} of a Runtime; subclass snakepit_ray.BaseRuntime",
            key="runtime",
        )
    return found


__all__ = [
    "BUILTIN",
    "LATER",
    "MEMBERS",
    "BaseRuntime",
    "PythonRuntime",
    "Runtime",
    "argv_of",
    "find_executable",
    "flagged_argv",
    "has_hooks",
    "has_response_hook",
    "importable_name",
    "resolve_runtime",
    "runtime_ref",
    "script_argv",
]
