"""How this process asks the store of its cluster: by one link, which all its pools share that want the same
store.

The link belongs to one connection to Ray. After another `ray.init` there is another one: what belongs to an
earlier connection must not be touched.
"""

from __future__ import annotations

import functools
import os
import threading

import ray

from snakepit_ray.client.directory import Directory
from snakepit_ray.client.store_calls import StoreCalls
from snakepit_ray.client.talks import Access
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import PoolClosed
from snakepit_ray.port import control, ray_port, store_actor
from snakepit_ray.port.store_actor import ActorDoor
from snakepit_ray.store import spawn
from snakepit_ray.store.settings import Settings, settings_of


class _Process:
    """What this process has. `forked_in`: the Ray session of the process that it was forked from."""

    def __init__(self, forked_in: tuple[str, bytes] = ("", b"")) -> None:
        self.forked_in = forked_in
        self.lock = threading.Lock()
        self.session: tuple[str, bytes] = ("", b"")
        self.calls: dict[Settings, StoreCalls] = {}  # the store refuses all but one of them


def access(directory: Directory) -> Access:
    """How the handles of that pool get at the store."""

    def calls() -> StoreCalls:
        directory.check_open()
        return _calls(directory.config)

    return Access(directory.config, calls, ray.ObjectRef, _ToolsOf(directory))


class _ToolsOf:
    """The tools of one pool, which its router knows."""

    def __init__(self, directory: Directory) -> None:
        self._about = directory.router, directory.config.name, directory.config.request_timeout

    def end(self, session_id: str) -> None:
        control.ask(*self._about, "end_tools_of", [session_id])

    async def aend(self, session_id: str) -> None:
        await control.ask_async(*self._about, "end_tools_of", [session_id])


def _calls(config: PoolConfig) -> StoreCalls:
    session, settings = ray_port.session_id(), settings_of(config)._replace(pool="")
    if session[0] and session == _process.forked_in:
        raise PoolClosed(
            "this process was forked from one that is connected to Ray, and the connection does not survive "
            "that: the store of sessions cannot be asked from here. Start the process anew "
            "(multiprocessing: 'spawn'), or make it a task of Ray"
        )
    with _process.lock:
        if _process.session != session:
            for calls in _process.calls.values():
                calls.close(PoolClosed("the Ray session that the store belongs to was shut down"))
            _process.session, _process.calls = session, {}
        if settings not in _process.calls:
            _process.calls[settings] = StoreCalls(functools.partial(_connect, session, config))
        return _process.calls[settings]


async def _connect(session: tuple[str, bytes], config: PoolConfig) -> ActorDoor:
    store_actor.check_session(session)
    return await spawn.connect(config)


def _begin_anew() -> None:
    global _process
    _process = _Process(ray_port.session_id())


_process = _Process()
os.register_at_fork(after_in_child=_begin_anew)
