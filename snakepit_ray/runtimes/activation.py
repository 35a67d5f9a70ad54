"""Variables that make an environment of Python the one that programs find: what its `activate` script sets.

Rule: PATH stays as it is where `python` on it is the interpreter's own already, because the directories of a
system's Python hold other programs too, and those must not change places."""

from __future__ import annotations

import os
import shutil

CONFIGURATION = "pyvenv.cfg"  # makes a directory a virtual environment (PEP 405)


def activation(executable: str, path: str) -> dict[str, str]:
    """PATH and VIRTUAL_ENV for what the Python at `executable` starts; `path` is the PATH that it would have.

    `subprocess.run(["python", ...])` in a command then runs the interpreter's own Python, and the scripts of
    its environment are found."""
    directory = os.path.dirname(executable)
    environment = os.path.dirname(directory)
    if _is_environment(environment):
        return {"PATH": _first(directory, path), "VIRTUAL_ENV": environment}
    found = shutil.which("python", path=path)
    if found is not None and _is_python_of(os.path.dirname(found), executable):
        return {}
    real = os.path.dirname(os.path.realpath(executable))
    return {"PATH": _first(directory if _is_python_of(directory, executable) else real, path)}


def _is_python_of(directory: str, executable: str) -> bool:
    """Whether `python` in that directory is `executable` (not a link to it in an environment)."""
    try:
        same = os.path.samefile(os.path.join(directory, "python"), executable)
    except OSError:
        return False
    return same and not _is_environment(os.path.dirname(directory))


def _is_environment(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, CONFIGURATION))


def _first(directory: str, path: str) -> str:
    others = [one for one in path.split(os.pathsep) if one and one != directory]
    return os.pathsep.join([directory, *others])
