"""Tools as a command sees them: those of the host by name, and those that commands of a session have
registered in this interpreter.

- A name means the session's tool in this interpreter, else what the host knows by it.
- What was registered here ends with the interpreter. Of more than MOST_SESSIONS sessions the oldest are
  forgotten.
"""

from __future__ import annotations

import re
import threading

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MOST_SESSIONS = 10_000


class OwnTool:
    """A function of this interpreter."""

    __slots__ = ("description", "function", "metadata")

    def __init__(self, function, description: str, metadata: dict) -> None:
        self.function = function
        self.description = description
        self.metadata = metadata

    async def awaited(self, args: dict):
        """Its value, awaited where it is async."""
        import inspect

        value = self.function(**args)
        return await value if inspect.isawaitable(value) else value

    def values(self, args: dict):
        """Its values; of a function that returns, the one."""
        import inspect

        value = self.function(**args)
        if inspect.isgenerator(value):
            yield from value
        else:
            yield value

    async def avalues(self, args: dict):
        """`values` for async commands."""
        import inspect

        value = self.function(**args)
        if inspect.isasyncgen(value):
            async for one in value:
                yield one
        elif inspect.isgenerator(value):
            for one in value:
                yield one
        else:
            yield await value if inspect.isawaitable(value) else value

    def describe(self) -> dict:
        """As the host describes its own."""
        import inspect

        words = self.description or (inspect.getdoc(self.function) or "").partition("\n\n")[0]
        return {**self.metadata, "description": words, "where": "interpreter"}


_own: dict[str, dict[str, OwnTool]] = {}  # by session and name
_lock = threading.Lock()


def method(name) -> str:
    """The host's method that calls a tool."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a tool must be a string, got {name!r:.100}")
    return f"tool.call:{name}"


def find(session: str, name) -> OwnTool | None:
    """The session's tool in this interpreter."""
    own = _own.get(session)
    return None if own is None else own.get(name)


def register(session: str, name, function, description: str, metadata: dict) -> None:
    """Adds a tool of a session. Raises ValueError, TypeError."""
    if function is None and callable(name):
        name, function = getattr(name, "__name__", ""), name
    if not callable(function):
        raise TypeError(f"a tool is a function, got {function!r:.100}")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"a tool's name: got {name!r:.100}, expected 1 to 64 bytes: a letter or a digit, then letters, "
            "digits, '_', '-' and '.'"
        )
    with _lock:
        own = _own.setdefault(session, {})
        if name in own:
            raise ValueError(f"a tool {name!r} is registered already for session {session!r}")
        own[name] = OwnTool(function, description, metadata)
        while len(_own) > MOST_SESSIONS:
            del _own[next(iter(_own))]


def listed(context, of_host: list) -> dict:
    """What a command may call, by name."""
    found = {one.pop("name"): one for one in of_host}
    found.update((name, tool.describe()) for name, tool in _own.get(context.session_id, {}).items())
    return found
