"""Finds and joins the cluster that a command works on, and says which one it is.

Rules: a command that was not told which cluster names the one that it takes; where there are several it takes
none. What is wrong with an address is told within seconds, not after Ray's own minute of trying.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from snakepit_ray.errors import ConfigError, PoolNotFound
from snakepit_ray.port import ray_port
from snakepit_ray.rpc.knock import refuses

KNOCK_SECONDS = 5.0
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
FLAG = "--gcs-address="


def join(address: str | None) -> None:
    """Connects to a cluster: that of `address`, of RAY_ADDRESS, or the only one on this machine; which one
    nobody named goes to stderr. Raises ConfigError for what is no address, PoolNotFound where none is joined.
    """
    if ray_port.is_connected():
        return
    if address is None:
        address, how = _find()
        print(f"cluster: {address} ({how})", file=sys.stderr, flush=True)
    where = _where(address)
    try:
        if where is not None:
            knock(address, *where)
        ray_port.ensure_ray(address=address, **QUIET)
    except (OSError, RuntimeError, ValueError, ray_port.RayError) as error:  # nobody there; another version
        raise PoolNotFound(
            f"no Ray cluster was joined ({error}); start one with `ray start --head`, or name it: --address"
        ) from error


def join_or_begin(address: str | None) -> None:
    """The cluster that is named, by `address` or RAY_ADDRESS, else one of its own that ends with this
    process."""
    if ray_port.is_connected():
        return
    if address is not None or os.environ.get("RAY_ADDRESS"):
        join(address)
    else:
        print("starting Ray on this machine", file=sys.stderr, flush=True)
        ray_port.ensure_ray(address="local", include_dashboard=False, **QUIET)


@contextlib.contextmanager
def left_at_the_end() -> Iterator[None]:
    """Leaves the cluster that was joined in the block. Ray says what it has gathered when it is left, on
    stdout."""
    was_connected = ray_port.is_connected()
    try:
        yield
    finally:
        if not was_connected:
            ray_port.disconnect()


def running() -> list[str]:
    """The addresses of the clusters that this machine is a node of: of its raylets."""
    found: set[str] = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if os.path.basename(words[0]) == "raylet":
            found.update(word.removeprefix(FLAG) for word in words if word.startswith(FLAG))
    return sorted(found)


def _find() -> tuple[str, str]:
    """The address of the cluster to take, and where it is from."""
    named = os.environ.get("RAY_ADDRESS")
    if named and named != "auto":
        return named, "RAY_ADDRESS"
    found = running()
    if not found:
        raise PoolNotFound(
            "no Ray cluster runs on this machine; start one with `ray start --head`, or name it: --address"
        )
    if len(found) > 1:
        raise PoolNotFound(
            f"{len(found)} Ray clusters run on this machine: {', '.join(found)}; name one of them: --address"
        )
    return found[0], "the only one on this machine"


def _where(address: str) -> tuple[str, int] | None:
    """Host and port; None for an address that only Ray can read. Raises ConfigError."""
    if "://" in address:
        return None
    parts = ADDRESS.fullmatch(address)
    if parts is None or not 0 < int(parts["port"]) < 65536:
        raise ConfigError(f"the cluster's address: got {address!r}, expected HOST:PORT, as in 127.0.0.1:6379")
    return parts["host"].strip("[]"), int(parts["port"])


def knock(address: str, host: str, port: int) -> None:
    """Raises OSError where nobody listens, or who listens asks for a token that nobody was told to send: Ray
    itself takes from half a minute to more than one, and says something else."""
    try:
        socket.create_connection((host, port), KNOCK_SECONDS).close()
    except OSError as error:
        raise OSError(f"{address} does not answer: {error}") from error
    _show_token(address)


def _show_token(address: str) -> None:
    """Raises PoolNotFound where the cluster refuses the token that Ray is going to send, or sends none."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "token":
        token, home = _token()
        if refuses(address, token, KNOCK_SECONDS):
            which = (
                f"the token of {home}" if token is not None else f"a call without a token ({home} has none)"
            )
            raise PoolNotFound(f"the cluster at {address} refuses {which}; its own is that of its head node")
    elif mode in ("", "disabled") and refuses(address, None, KNOCK_SECONDS):
        raise PoolNotFound(
            f"the cluster at {address} asks for a token, and RAY_AUTH_MODE={mode} sends none; "
            "RAY_AUTH_MODE=token sends that of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        )


def _token() -> tuple[str | None, str]:
    """The token that Ray's client sends, and where it is from, in Ray's order."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip(), "RAY_AUTH_TOKEN"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None, path
    except (OSError, UnicodeDecodeError):
        return None, path
