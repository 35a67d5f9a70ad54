"""What an environment must have to run the bridge, and the words for one that has not.

Rules: the standard library is enough here; a start that goes well pays two look-ups.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

# module -> (distribution, the oldest version that was tested: tests/bridge/test_protobufs.py)
NEEDED = {"grpc": ("grpcio", (1, 34)), "google.protobuf": ("protobuf", (3, 20))}


class InterpreterUnfit(Exception):
    """This Python lacks what the bridge needs; says what, and the command that helps."""


def lacks_only_grpc() -> bool:
    """Whether frames alone can be served here: all is there but gRPC. Loads nothing."""
    return [name for name in NEEDED if not _is_there(name)] == ["grpc"]


def require_installed(grpc: bool = True) -> None:
    """Raises InterpreterUnfit where a module of `NEEDED` is not there; loads none of them. `grpc`: whether
    gRPC is needed.
    """
    missing = [name for name in NEEDED if (grpc or name != "grpc") and not _is_there(name)]
    if missing:
        raise InterpreterUnfit(_words("lacks " + " and ".join(_needed(name) for name in missing)))


def require_versions(grpc: bool = True) -> None:
    """Raises InterpreterUnfit where a module of `NEEDED` is older than it must be. `grpc`: whether gRPC is
    needed.
    """
    old = [
        f"has {distribution} {version}, and the bridge needs {_text(least)} or later"
        for name, (distribution, least) in NEEDED.items()
        if grpc or name != "grpc"
        for version in [_version(name, distribution)]
        if version and _numbers(version) < least
    ]
    if old:
        raise InterpreterUnfit(_words(" and ".join(old)))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # the package above it is not there, or is no package
        return False


def _version(name: str, distribution: str) -> str:
    """The version of a module, "" where nobody knows; what is loaded is asked itself, because the metadata of
    what is installed takes 15 ms to load."""
    loaded = getattr(sys.modules.get(name), "__version__", None)
    if loaded:
        return loaded
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:  # found as a module all the same: a folder on the path
        return ""


def _numbers(version: str) -> tuple:
    parts = version.split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def _needed(name: str) -> str:
    distribution, least = NEEDED[name]
    return f"{distribution} ({_text(least)} or later)"


def _words(what: str) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return f"Python {version} at {sys.executable} {what}; run: snakepit-ray setup {sys.executable}"


def _text(version: tuple) -> str:
    return ".".join(map(str, version))
