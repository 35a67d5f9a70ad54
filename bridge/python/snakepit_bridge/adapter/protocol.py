"""Adapters written as scripts of their own: a handler that registers functions, and
`ProtocolHandler(handler).run()`.

- `run()` serves when a bridge is running the script, and says what to do when nobody is.
"""

from __future__ import annotations

_state: dict = {"serve": None, "served": False}


def inside(serve) -> None:
    """Tells this module that a bridge runs in this process: `serve(adapter)` serves until the end."""
    _state["serve"] = serve
    _state["served"] = False


def served() -> bool:
    """Whether a script has called `run()`."""
    return _state["served"]


class BaseCommandHandler:
    """Base of handlers: `_register_commands` calls `register_command(name, function)`; a function gets the
    arguments as one dict.
    """

    __thread_safe__ = False

    def __init__(self) -> None:
        self.__snakepit_handlers__: dict = {}
        self._register_commands()

    def _register_commands(self) -> None:
        """Registers the commands; overridden by handlers."""

    def register_command(self, name: str, function) -> None:
        """Serves `function(args)` under `name`."""
        if not callable(function):
            raise TypeError(f"the command {name!r} needs a function, got {function!r}")
        self.__snakepit_handlers__[name] = function

    def get_supported_commands(self) -> list:
        """The names that are registered."""
        return sorted(self.__snakepit_handlers__)


class ProtocolHandler:
    """Serves one handler."""

    def __init__(self, command_handler) -> None:
        self.command_handler = command_handler

    def run(self) -> None:
        """Serves until the interpreter is asked to stop."""
        serve = _state["serve"]
        if serve is None:
            raise SystemExit(
                "This script is an adapter: a snakepit_ray pool runs it. Start one with\n"
                '    snakepit_ray.start(adapter="path/to/this_file.py")\n'
                "and call its commands with pool.execute(name, args)."
            )
        _state["served"] = True
        serve(self.command_handler)

    def request_shutdown(self) -> None:
        """Kept for scripts that call it from a signal handler: the bridge ends this process by itself."""
