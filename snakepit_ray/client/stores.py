"""How this process asks the store of its cluster: by one link, which all its pools share.

The link belongs to one connection to Ray. After another `ray.init` there is another one: what belongs to an
earlier connection must not be touched.
"""

from __future__ import annotations

import os
import threading

import ray

from snakepit_ray.client.directory import Directory
from snakepit_ray.client.store_calls import StoreCalls
from snakepit_ray.client.talks import Access
from snakepit_ray.errors import PoolClosed
from snakepit_ray.port import ray_port, store_actor


class _Process:
    """What this process has."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: tuple[str, bytes] = ("", b"")
        self.calls: StoreCalls | None = None


def access(directory: Directory) -> Access:
    """How the handles of that pool get at the store."""

    def calls() -> StoreCalls:
        directory.check_open()
        return _calls()

    return Access(directory.config, calls, ray.ObjectRef)


def _calls() -> StoreCalls:
    session = ray_port.session_id()
    with _process.lock:
        if _process.calls is None or _process.session != session:
            if _process.calls is not None:
                _process.calls.close(PoolClosed("the Ray session that the store belongs to was shut down"))
            _process.session, _process.calls = session, StoreCalls(store_actor.connect)
        return _process.calls


def _begin_anew() -> None:
    global _process
    _process = _Process()


_process = _Process()
os.register_at_fork(after_in_child=_begin_anew)
