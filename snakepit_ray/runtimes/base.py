"""What differs between languages, as a Protocol, and which of its hooks a runtime really has.

- A runtime is importable by name, because the process that decodes a result finds `process_response` by it.
- Hooks that do nothing cost nothing (`has_hooks`, `runtime_ref` say so once, when a pool is made).
"""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from snakepit_ray.config import PoolConfig
from snakepit_ray.config.languages import script_argv
from snakepit_ray.errors import ConfigError, UnknownCommand

CALLER_HOOKS = ("supported_commands", "validate_command", "prepare_args", "command_timeout")
MEMBERS = ("name", "executable", "script", "args", "env", *CALLER_HOOKS, "process_response")


@runtime_checkable
class Runtime(Protocol):
    """How interpreters of one language are started and what is done to its calls.

    `executable`, `script`, `args` and `env` are asked on the worker's node, before each start of an
    interpreter. A runtime that also has `argv(executable, script, args)` builds the command line by itself
    (`argv_of`), else it is EXECUTABLE SCRIPT ARGS. The hooks about commands run at the caller before anything
    is encoded or sent, `process_response` where the result is decoded. All must be free of side effects.
    """

    @property
    def name(self) -> str:
        """Of the language or the setup, for messages."""

    def executable(self, config: PoolConfig) -> str:
        """Absolute path of the program, for a pool with that `config`.

        Raises: ConfigError when it is not there or cannot be executed.
        """

    def script(self, config: PoolConfig) -> str:
        """Absolute path of the bridge that the program runs, for a pool with that `config`; "" for a program
        that is its own bridge."""

    def args(self, config: PoolConfig) -> Sequence[str]:
        """Arguments after the script, for a pool with that `config`; the host adds its own behind them."""

    def env(self, config: PoolConfig) -> Mapping[str, str]:
        """Environment variables for a pool with that `config`; the pool's own `env` wins over them."""

    def supported_commands(self) -> Sequence[str] | None:
        """The commands that there are; None: whatever the adapter has."""

    def validate_command(self, command: str, args: Mapping[str, Any]) -> None:
        """Refuses a call of `command` with `args` that is not to be sent.

        Raises: UnknownCommand, InvalidArguments.
        """

    def prepare_args(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments that are sent for a call of `command` with `args`, which are not to be changed."""

    def process_response(self, command: str, result: Any) -> Any:
        """What the caller of `command` gets for a decoded `result`, or for each value of a stream."""

    def command_timeout(self, command: str, args: Mapping[str, Any]) -> float | None:
        """Seconds, the default whole budget of a call of `command` with `args`; None: what the command or the
        pool says."""


class BaseRuntime(ABC):
    """A Runtime whose hooks do nothing: subclass it and write only what differs."""

    name = "custom"

    def executable(self, config: PoolConfig) -> str:
        """As `Runtime.executable`: the pool's `interpreter`, which is to be given."""
        if config.interpreter is None:
            raise ConfigError(
                f"pool {config.name!r}: runtime {self.name!r} needs interpreter=, the path of its executable",
                key="interpreter",
            )
        return find_executable(config.interpreter, config.cwd, "interpreter=")

    @abstractmethod
    def script(self, config: PoolConfig) -> str:
        """As `Runtime.script`: absolute path of the bridge that the program runs."""

    def args(self, config: PoolConfig) -> Sequence[str]:
        """As `Runtime.args`: none."""
        return ()

    def argv(self, executable: str, script: str, args: Sequence[str]) -> Sequence[str]:
        """The command line of an interpreter, without the host's own arguments, which come behind it.

        A pure function. Override it where the program has flags of its own before the script, for instance
        `flagged_argv("--vanilla")(executable, script, args)`.
        """
        return script_argv(executable, script, args)

    def env(self, config: PoolConfig) -> Mapping[str, str]:
        """As `Runtime.env`: none."""
        return {}

    def supported_commands(self) -> Sequence[str] | None:
        """As `Runtime.supported_commands`: whatever the adapter has."""
        return None

    def validate_command(self, command: str, args: Mapping[str, Any]) -> None:
        """As `Runtime.validate_command`: refuses what `supported_commands` does not name."""
        known = self.supported_commands()
        if known is not None and command not in known:
            raise UnknownCommand.named(command, known)

    def prepare_args(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Runtime.prepare_args`: changes nothing."""
        return args

    def process_response(self, command: str, result: Any) -> Any:
        """As `Runtime.process_response`: changes nothing."""
        return result

    def command_timeout(self, command: str, args: Mapping[str, Any]) -> float | None:
        """As `Runtime.command_timeout`: what the command or the pool says."""
        return None


def argv_of(runtime: Runtime, config: PoolConfig) -> tuple[str, ...]:
    """The command line of an interpreter: what the runtime's `argv` builds, else EXECUTABLE SCRIPT ARGS.

    Raises ConfigError for a command line that is not strings, and whatever `executable` and `script` raise.
    """
    build = getattr(runtime, "argv", script_argv)
    built = build(runtime.executable(config), runtime.script(config), tuple(runtime.args(config)))
    argv = () if isinstance(built, str) else tuple(built)
    if not argv or not all(isinstance(word, str) for word in argv):
        raise ConfigError(
            f"argv of runtime {runtime.name!r} gave {built!r:.200}; a command line is a sequence of strings, "
            "the executable first",
            key="runtime",
        )
    return argv


def has_hooks(runtime: Runtime) -> bool:
    """Whether the runtime does anything to calls or results (else the calling path skips it)."""
    return any(_overrides(runtime, hook) for hook in (*CALLER_HOOKS, "process_response"))


def has_response_hook(runtime: Runtime) -> bool:
    """Whether `process_response` does anything."""
    return _overrides(runtime, "process_response")


def _overrides(runtime: Runtime, member: str) -> bool:
    return getattr(type(runtime), member, None) is not getattr(BaseRuntime, member)


def importable_name(runtime: Runtime) -> str:
    """ "module:Name" by which another process finds this runtime: of a module's instance, or of a class
    without state.

    Raises ConfigError for one that has no such name.
    """
    kind = type(runtime)
    module = sys.modules.get(kind.__module__)
    for name, value in vars(module).items() if module is not None and kind.__module__ != "__main__" else ():
        if value is runtime:
            return f"{kind.__module__}:{name}"
    here = "<locals>" not in kind.__qualname__ and kind.__module__ != "__main__"
    if here and not getattr(runtime, "__dict__", None):
        return f"{kind.__module__}:{kind.__qualname__}"
    why = "it has state of its own" if here else f"{kind.__module__}.{kind.__qualname__} is not importable"
    raise ConfigError(
        f"runtime {runtime.name!r} cannot be found by name in other processes ({why}), which "
        "process_response needs: "
        'make it a variable of a module that all nodes have and pass runtime="module:VARIABLE"',
        key="runtime",
    )


def find_executable(value: str, cwd: str | None, source: str) -> str:
    """Absolute path of an executable file: a path (relative ones from `cwd`) or a program's name on PATH.

    Raises ConfigError saying what `source` gave and what is wrong with it.
    """
    path = os.path.expanduser(value)
    if os.sep not in path:
        found = shutil.which(path)
        if found is None:
            raise ConfigError(f"{source}: got {value!r}, expected an executable; no such program on PATH")
        return found
    path = os.path.abspath(os.path.join(cwd or os.getcwd(), path))
    if not os.path.exists(path):
        wrong = "does not exist"
    elif not os.path.isfile(path):
        wrong = "is not a file (give the executable in it, such as bin/python)"
    elif not os.access(path, os.X_OK):
        wrong = "is not executable (chmod +x)"
    else:
        return path
    raise ConfigError(f"{source}: got {value!r}, expected an executable; {path} {wrong}", key="interpreter")
