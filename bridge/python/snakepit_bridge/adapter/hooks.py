"""The hooks of an adapter: when each is called, in which thread, and what it is given.

Rules:
- `setup` and `teardown` are called in the main thread, `on_session_start` and `set_session_context` where the
  command runs, before it.
- A hook that the adapter does not override is never called.
- The hooks of a session's end and of its move are commands that only the host calls.
- In the thread profile one context object serves all commands: it shows each of them its own request.
"""

from __future__ import annotations

import contextlib
import threading

from snakepit_bridge.adapter.commands import HOST_ONLY, Adapter, Command, Options
from snakepit_bridge.adapter.context import SessionContext, current

SESSIONS_REMEMBERED = 100_000  # for on_session_start; of more, the oldest may be greeted again


def call(adapter, name: str, executor) -> None:
    """Calls the hook `name` and waits for it where it is async."""
    hook = getattr(adapter, name, None)
    if hook is None or _is_default(hook):
        return
    result = hook()
    if hasattr(result, "__await__"):
        executor.wait(result)


def session_hook(adapter):
    """What is called with the id of a session before its commands; None where the adapter has no such hook.
    Raises TypeError for an async one.
    """
    hook = getattr(adapter, "on_session_start", None)
    if hook is None or _is_default(hook):
        return None
    import inspect

    if inspect.iscoroutinefunction(hook):
        raise TypeError("on_session_start cannot be async: a command waits for it")
    return Sessions(hook)


def context_hook(adapter, threaded: bool):
    """What is called with the context of each command before it; None where the adapter has no such hook."""
    hook = getattr(adapter, "set_session_context", None)
    if hook is None or not threaded:
        return hook
    shared = SharedContext()
    return lambda context: hook(shared)


class Sessions:
    """Calls `hook` once for each session. A hook that fails is called again by the session's next command."""

    def __init__(self, hook) -> None:
        self._hook = hook
        self._seen: dict[str, None] = {}
        self._starting: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def knows(self, session_id: str) -> bool:
        """Whether the session has started, so that a call does not wait."""
        return session_id in self._seen

    def __call__(self, session_id: str) -> None:
        if session_id in self._seen:
            return
        with self._lock:
            starting = self._starting.setdefault(session_id, threading.Lock())
        with starting:  # commands of other sessions do not wait for this one
            if session_id not in self._seen:
                self._hook(session_id)
                self.remember(session_id)

    def forget(self, session_id: str) -> None:
        """It has ended: one of the same id is another one."""
        with self._lock:
            self._seen.pop(session_id, None)

    def remember(self, session_id: str) -> None:
        """It has started, here or in the interpreter before."""
        with self._lock:
            if session_id not in self._seen and len(self._seen) >= SESSIONS_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[session_id] = None
            self._starting.pop(session_id, None)


def session_commands(adapter, sessions) -> dict:
    """The commands by which the host ends and moves sessions, of the hooks that the adapter has. Raises
    TypeError where it saves what it cannot restore, or the reverse.
    """
    save, restore, end = (_hook(adapter, name) for name in ("save", "restore", "end"))
    if (save is None) is not (restore is None):
        has, lacks = ("save", "restore") if restore is None else ("restore", "save")
        raise TypeError(f"{type(adapter).__name__} has on_session_{has} and no on_session_{lacks}")
    found = {}
    if save is not None:
        found["session_save"] = lambda args: save(args["session"])
        found["session_restore"] = lambda args: _restore(restore, sessions, args)
    if end is not None:
        found["session_end"] = lambda args: _end(end, sessions, args)
    plain = Options(None, False, None)
    return {
        HOST_ONLY + name: Command(HOST_ONLY + name, work, plain, raw=True) for name, work in found.items()
    }


def _hook(adapter, name: str):
    hook = getattr(adapter, f"on_session_{name}", None)
    return None if hook is None or _is_default(hook) else hook


def _restore(hook, sessions, args):
    session = args["session"]
    result = hook(session, args["state"])
    if sessions is not None:
        sessions.remember(session)
    return result


def _end(hook, sessions, args):
    """Ends some sessions. What the hook raises for one of them does not keep it from the others."""
    awaited = []
    for session in args["sessions"]:
        with _said():
            result = hook(session, args["reason"])
            if hasattr(result, "__await__"):
                awaited.append(result)
        if sessions is not None:
            sessions.forget(session)
    return _all(awaited) if awaited else None


async def _all(awaited) -> None:
    for one in awaited:
        with _said():
            await one


@contextlib.contextmanager
def _said():
    """What the user's own code raises in it is said where users look."""
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is
        import traceback

        traceback.print_exc()


class SharedContext:
    """Stands for the SessionContext of whichever command asks: an adapter that keeps it in an attribute sees
    in each command that command's own request. Outside of a command every attribute raises LookupError.
    """

    __slots__ = ()
    __class__ = property(lambda self: SessionContext)  # what isinstance looks at

    def __getattr__(self, name: str):
        return getattr(current(), name)

    def __setattr__(self, name: str, value) -> None:
        setattr(current(), name, value)

    def __getitem__(self, name: str):
        return current()[name]

    def __setitem__(self, name: str, value) -> None:
        current()[name] = value

    def __delitem__(self, name: str) -> None:
        del current()[name]

    def __contains__(self, name: str) -> bool:
        return name in current()

    __iter__ = None

    def __repr__(self) -> str:
        try:
            return repr(current())
        except LookupError:
            return "<SessionContext of the command that asks; none does>"


def _is_default(hook) -> bool:
    return getattr(hook, "__func__", None) is vars(Adapter).get(getattr(hook, "__name__", ""))
