"""What an adapter is: a class whose marked methods are commands. Finds them and makes them callable.

- One instance per interpreter.
- Flags, signature and callable of each command are resolved once, at load.
- Marks are inherited by overriding methods.
- A property is never evaluated to find out.
"""

from __future__ import annotations

import contextlib
import inspect
import typing

from snakepit_bridge.adapter.signature import Signature
from snakepit_bridge.values.failures import InvalidArguments, UnknownCommand

MARK = "__snakepit_command__"
HOST_ONLY = "snakepit."  # begins the names of commands that only the host calls
LONGEST_TIMEOUT = 4_000_000  # seconds, 46 days: milliseconds travel as 32 bits
_PREFIX = "execute_"


class Adapter:
    """Base of adapters: methods marked with `@command` are served. Every hook may be left out.

    In the process profile everything of an adapter runs in the interpreter's main thread, as in a plain
    program: hooks, commands, and the event loop of async commands. In the thread profile sync commands run in
    threads and async commands on an event loop in a thread of its own; `setup` and `teardown` run in the main
    thread, and the ContextVars that `setup` sets are there in commands.
    """

    __thread_safe__ = False

    def setup(self) -> None:
        """Called once in the main thread, before the first command; may be async. Loads models, opens
        connections, installs signal handlers.
        """

    def teardown(self) -> None:
        """Called once in the main thread, when the interpreter is asked to end; may be async. Not called when
        the interpreter is killed, or a command does not let go of the main thread.
        """

    def on_session_start(self, session_id: str) -> None:
        """Called before the first command of a session that this interpreter has not seen, where commands
        run; not async. Commands of other sessions do not wait for it.
        """

    def on_session_end(self, session_id: str, reason: str) -> None:
        """Called when a session that this interpreter has seen is here no more: "deleted", "expired", "moved"
        to another worker, or "recycled" with the interpreter. Frees what belongs to the session. Not called
        after a crash; may be async.
        """

    def on_session_save(self, session_id: str):
        """What `on_session_restore` needs in the interpreter that follows this one: a result as of a command,
        at most 16 MiB, within 5 seconds. Called when the interpreter is replaced on purpose; may be async.
        """

    def on_session_restore(self, session_id: str, state) -> None:
        """Called in place of `on_session_start`, with what `on_session_save` gave; may be async."""


class Options:
    """What `@command` was told."""

    __slots__ = ("idempotent", "name", "timeout")

    def __init__(self, name: str | None, idempotent: bool, timeout: float | None) -> None:
        self.name = name
        self.idempotent = idempotent
        self.timeout = timeout


def command(
    function=None, *, name: str | None = None, idempotent: bool = False, timeout: float | None = None
):
    """Marks a method as a command, bare or with options: `idempotent` ones are retried after a crash,
    `timeout` is its default budget in seconds. Goes above or below @staticmethod and @classmethod. Raises
    ValueError for a timeout that is not above 0 or too long, TypeError for what is no method.
    """
    options = Options(name, bool(idempotent), _seconds(timeout))

    def mark(target):
        # A staticmethod or classmethod is a wrapper, which Python 3.9 cannot call: the function is marked.
        function = target.__func__ if isinstance(target, (staticmethod, classmethod)) else target
        if not callable(function):
            raise TypeError(f"@command marks methods, not a {type(target).__name__}")
        setattr(function, MARK, options)
        return target

    if function is None:
        return mark
    if isinstance(function, str):
        raise TypeError(f"@command takes options by name: write @command(name={function!r})")
    return mark(function)


def _seconds(timeout) -> float | None:
    if timeout is None:
        return None
    seconds = float(timeout)
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ValueError(
            f"the timeout of a command is a number of seconds above 0 and at most {LONGEST_TIMEOUT:,}, or "
            f"None for the pool's request_timeout; got {timeout!r}"
        )
    return seconds


def tool(
    function=None,
    *,
    name: str | None = None,
    description: str | None = None,
    supports_streaming: bool = False,
    required_variables=(),
    idempotent: bool = False,
    timeout: float | None = None,
):
    """`@command` under the name that adapters in the wild use; what a command yields, and its docstring, say
    the rest.
    """

    def mark(target):
        if description and not target.__doc__:
            target.__doc__ = description
        return command(name=name, idempotent=idempotent, timeout=timeout)(target)

    return mark if function is None else mark(function)


class Command:
    """One command, resolved: `function` is bound, `raw` ones take the argument object itself."""

    __slots__ = (
        "asynchronous",
        "doc",
        "function",
        "idempotent",
        "name",
        "raw",
        "signature",
        "stream",
        "timeout",
    )

    def __init__(self, name: str, function, options: Options, raw: bool = False) -> None:
        plain = inspect.unwrap(function)
        self.name = name
        self.function = function
        self.raw = raw
        self.idempotent = options.idempotent
        self.timeout = options.timeout
        self.doc = inspect.getdoc(function)
        self.stream = inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)
        # Not of `plain`: a wrapper may run its coroutine by itself; a coroutine that it returns is awaited.
        self.asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.signature = None if raw else _signature(name, function)

    def call(self, args: dict, context, stream: bool = False):
        """Checks `args` and calls the function. Raises InvalidArguments before the call, or whatever the
        function raises.
        """
        if self.stream and not stream:
            raise is_a_stream(self.name)
        if self.raw:
            return self.function(args)
        args = self.signature.check(args)
        if self.signature.context is not None:
            args[self.signature.context] = context
        return self.function(**args)

    def describe(self) -> dict:
        """Its entry in the ready line."""
        parameters = [] if self.raw else [p.describe() for p in self.signature.parameters]
        return {
            "stream": self.stream,
            "idempotent": self.idempotent,
            "timeout": self.timeout,
            "doc": self.doc,
            "params": parameters,
            "open": self.raw or self.signature.open,
        }


_prepared: dict = {}  # (name, function): its signature


def prepare(kind: type) -> None:
    """Resolves the signatures of a class before there is an instance: more than half of what a start costs
    once everything is imported, so a forker does it. What cannot be resolved now may be later.
    """
    for attribute, _, raw, name in _marked(kind):
        function = inspect.getattr_static(kind, attribute)
        if raw or not inspect.isfunction(function):
            continue
        with contextlib.suppress(Exception):  # what is wrong with it, find_commands says
            typing.get_type_hints(inspect.unwrap(function))
            _prepared[name, function] = Signature(name, function, skip=1)


def _signature(name: str, function) -> Signature:
    plain = getattr(function, "__func__", function)
    found = _prepared.get((name, plain)) if inspect.isfunction(plain) else None
    return found or Signature(name, function)


def find_commands(instance) -> dict[str, Command]:
    """The commands of an adapter by name. Raises TypeError when there are none, or two of one name."""
    kind = type(instance)
    found = {}
    for attribute, options, raw, name in _marked(kind):
        if name in found:
            raise TypeError(f"{kind.__name__} has two commands named {name!r}")
        found[name] = Command(name, getattr(instance, attribute), options, raw)
    for name, function in getattr(instance, "__snakepit_handlers__", {}).items():
        found[name] = Command(name, function, Options(None, False, None), raw=True)
    if not found:
        plain = Options(None, False, None)
        found = {name: Command(name, getattr(instance, name), plain) for name in _plain(kind)}
    for name in found:
        if name.startswith(HOST_ONLY):
            raise TypeError(
                f"{kind.__name__} has a command {name!r}: names with {HOST_ONLY!r} are the host's"
            )
    if not found:
        how = "mark methods with @command (from snakepit_bridge import command)"
        raise TypeError(f"{kind.__name__} has no commands: {how}")
    return found


def _marked(kind: type):
    """(attribute, options, takes the raw arguments, command name) of marked and `execute_` methods."""
    takes_prefix = bool(getattr(kind, "__execute_methods__", False))
    for attribute in dir(kind):
        options = _mark(kind, attribute)
        if options is not None:
            yield attribute, options, False, options.name or attribute
        elif takes_prefix and attribute.startswith(_PREFIX) and len(attribute) > len(_PREFIX):
            static = inspect.getattr_static(kind, attribute)
            yield attribute, Options(None, False, None), _takes_args(static), attribute[len(_PREFIX) :]


def _mark(kind: type, attribute: str) -> Options | None:
    for owner in kind.__mro__:
        member = owner.__dict__.get(attribute)
        if member is None:
            continue
        for part in (member, getattr(member, "__func__", None)):
            options = getattr(part, "__dict__", {}).get(MARK)
            if options is not None:
                return options
        _refuse_a_hidden_mark(kind, attribute, member)
    return None


def _refuse_a_hidden_mark(kind: type, attribute: str, member) -> None:
    """What a property or the like wraps is no method any more, so a mark on it would mean nothing."""
    for name in ("fget", "func"):
        if isinstance(getattr(getattr(member, name, None), MARK, None), Options):
            what = type(member).__name__
            raise TypeError(f"{kind.__name__}.{attribute} is a {what}: @command marks methods")


def _takes_args(member) -> bool:
    """Whether an `execute_` method is written as (self, args): it gets the argument object itself."""
    names = list(inspect.signature(getattr(member, "__func__", member)).parameters)
    return names[1:] == ["args"]


def _plain(kind: type):
    """Methods of an unmarked class that take a SessionContext."""
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") or not inspect.isfunction(member):
            continue
        if Signature(name, member).context is not None:
            yield name


def is_a_stream(name: str) -> InvalidArguments:
    """The failure of a plain request for a command that yields."""
    return InvalidArguments(f"{name} yields a stream: call it with execute_stream (or stream), not execute")


def unknown_command(name: str, commands: dict) -> UnknownCommand:
    """The failure for a command that is not there, with what is."""
    import difflib

    known = sorted(name for name in commands if not name.startswith(HOST_ONLY))
    near = difflib.get_close_matches(name, known, 3)
    guess = f"; there are {', '.join(known)}"
    if near:
        guess = f": did you mean {' or '.join(map(repr, near))}?"
    return UnknownCommand(f"unknown command {name!r:.200}{guess}", {"nearest": near, "commands": known})
