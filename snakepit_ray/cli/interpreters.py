"""Asks a Python about itself: its version, what is installed, and whether the bridge runs there.

Rule: every Python from 2.7 on can be asked, and asking changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from snakepit_ray.runtimes.python import bridge_directory

ASK_SECONDS = 30.0
OLDEST = (3, 9)
ASK = """
import json, sys
facts = {"version": list(sys.version_info[:3]), "prefix": sys.prefix, "installed": [], "unfit": ""}
facts["alone"] = False
facts["executable"] = sys.executable
if sys.version_info >= (3, 9):
    sys.path.insert(0, sys.argv[1])
    try:
        from snakepit_bridge.main import requirements
        facts["alone"] = alone = requirements.lacks_only_grpc()
        requirements.require_installed(grpc=not alone)
        try:
            import snakepit_bridge.server.frames
            if not alone:
                import snakepit_bridge.server.transport
        finally:  # an import that fails because of an old version is told as that
            requirements.require_versions(grpc=not alone)
    except Exception as error:
        name = type(error).__name__
        facts["unfit"] = str(error) if name == "InterpreterUnfit" else name + ": " + str(error)
    if "installed" in sys.argv:
        from importlib.metadata import distributions
        facts["installed"] = [(d.metadata["Name"], d.version, d.requires or []) for d in distributions()]
sys.stdout.write("\\n" + json.dumps(facts))
"""


@dataclass(frozen=True)
class Distribution:
    """What is installed, and what it requires, in the words of its metadata."""

    name: str
    version: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interpreter:
    """A Python: `unfit` says why the bridge does not run there, "" where it does. `prefix` tells environments
    apart: many paths lead to one. `alone`: it has no gRPC, and the bridge serves frames alone there."""

    path: str
    version: tuple[int, ...]
    prefix: str
    unfit: str
    installed: tuple[Distribution, ...] = ()
    alone: bool = False

    @property
    def is_too_old(self) -> bool:
        """No installation makes the bridge run there."""
        return self.version < OLDEST

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} at {self.path}"


def ask(path: str, *, installed: bool = False) -> Interpreter | None:
    """What the Python at `path` says of itself, with `installed` also what is installed; None for what is
    not a Python."""
    words = [path, "-c", ASK, bridge_directory(), *(["installed"] if installed else [])]
    try:
        # Not in this directory, where a checkout's own packages could be what is imported.
        ran = subprocess.run(
            words, capture_output=True, text=True, timeout=ASK_SECONDS, check=False, cwd=os.sep
        )
        facts = json.loads(ran.stdout.rpartition("\n")[2])
        version = tuple(facts["version"])
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError, KeyError):
        return None
    # The path and the command in its words are those of a start; here the path is the one that was asked.
    said = f"Python {'.'.join(map(str, version))} at {facts['executable']} "
    unfit = facts["unfit"].removeprefix(said).partition("; run: ")[0]
    if version < OLDEST:
        unfit = f"the bridge needs {'.'.join(map(str, OLDEST))} or later"
    found = tuple(Distribution(name, number, tuple(r)) for name, number, r in facts["installed"] if name)
    return Interpreter(path, version, facts["prefix"], unfit, found, facts["alone"])
