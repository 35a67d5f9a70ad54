"""What an interpreter does before its adapter's instance is made: its module path, the modules that serve.

A forker does the same, once for all interpreters that it forks (forker.py).
"""

from __future__ import annotations

import os
import sys
from functools import partial

from snakepit_bridge.adapter import loading
from snakepit_bridge.adapter.loading import StartError
from snakepit_bridge.main import requirements
from snakepit_bridge.main.config import Config
from snakepit_bridge.server.deferred import uncollected

FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"


def configure(line: bytes) -> Config:
    """What the host has said, with the module path and the arguments of this process as the adapter is to
    find them. Raises StartError("config").
    """
    try:
        config = Config(line)
    except Exception as error:
        raise StartError("config", error) from error
    loading.shelter(config.adapter)
    # Our own directory goes last: `import main` of a user must not find ours.
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    others = [path for path in sys.path if os.path.abspath(path) != ours]
    sys.path[:] = [*config.code_paths, config.cwd, *others, ours]
    sys.argv[1:] = []
    return config


def check(config: Config) -> None:
    """Raises StartError("interpreter") where this environment lacks what the bridge needs. Frames are served
    alone where only gRPC is missing.
    """
    if config.frames and requirements.lacks_only_grpc():
        config.alone = True  # the ready line says so
    _demand(partial(requirements.require_installed, grpc=not config.alone))


def import_server(config: Config) -> bool:
    """Imports what serves, before any user's code: grpc is imported with stand-ins, which nobody else may
    see. Whether the variable that FORK_SUPPORT names is ours, and so to be removed once gRPC has read it.
    """
    # gRPC's own handlers crash or hang in forked children, which have no use for this process's gRPC.
    without_grpc = FORK_SUPPORT not in os.environ
    os.environ.setdefault(FORK_SUPPORT, "0")
    versions = partial(requirements.require_versions, grpc=not config.alone)
    try:
        with uncollected():
            if config.threaded:  # two threads must not import it at one moment (deferred.py)
                import asyncio  # noqa: F401
            servers(config)
    except Exception as error:
        _demand(versions)
        raise StartError("serve", error) from error
    _demand(versions)
    return without_grpc


def servers(config: Config) -> list:
    """The modules that serve, each with `start`."""
    found = []
    if not config.alone:
        from snakepit_bridge.server import transport

        found.append(transport)
    if config.frames is not None:
        from snakepit_bridge.server import frames

        found.append(frames)
    return found


def _demand(check) -> None:
    """Raises StartError("interpreter") where this environment does not meet `check`."""
    try:
        check()
    except requirements.InterpreterUnfit as error:
        raise StartError("interpreter", error) from error
