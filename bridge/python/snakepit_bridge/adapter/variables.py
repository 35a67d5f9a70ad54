"""The variables of a request's session: what each method of the context asks the host, and what it makes of
the answer.

- A question is the same whether a thread or an event loop waits for its answer.
- While a batch is open, writes are gathered in it, and reads see them.
"""

from __future__ import annotations

import sys
from time import perf_counter

from snakepit_bridge.adapter.host_errors import SessionNotFound, VariableNotFound, error_of

REQUIRED = object()
_ABSENT = object()


class Ask:
    """A question for the host: `take(answer)` makes the value of it."""

    __slots__ = ("args", "method", "take")

    def __init__(self, method: str, args: dict, take) -> None:
        self.method = method
        self.args = args
        self.take = take


class Known:
    """A value that needs no question."""

    __slots__ = ("value",)

    def __init__(self, value) -> None:
        self.value = value


class Variables:
    """The variables of one request's session."""

    def __init__(self, context) -> None:
        link = context._linked()
        self._context = context
        self._link = link
        self._copies = link.copies
        self._words = link.copies.words
        self._kept = link.copies.of(context.session_id)
        self._generation = 0  # of the session that the request has met
        self._began = context._started / 1e9  # of perf_counter
        self.batch = None  # of the writes that are gathered: values by name

    # ---- asking ------------------------------------------------------------------------------------------

    def run(self, ask, name: str):
        """The answer; blocks. Raises RuntimeError in an event loop."""
        if type(ask) is Known:
            return ask.value
        if in_event_loop():
            raise RuntimeError(
                f"ctx.{name}() would block the event loop: async commands `await ctx.a{name}()`"
            )
        return ask.take(self._link.wait(self._context, ask.method, ask.args))

    async def arun(self, ask):
        """The answer, awaited."""
        if type(ask) is Known:
            return ask.value
        return ask.take(await self._link.acall(self._context, ask.method, ask.args))

    def block(self, ask):
        """The answer; blocks, also in an event loop."""
        if type(ask) is Known:
            return ask.value
        return ask.take(self._link.wait(self._context, ask.method, ask.args))

    def _ask(self, method: str, args: dict, take=None) -> Ask:
        if not self._context.session_id:
            raise SessionNotFound(
                f"ctx: {method}: this request has no session, and so no variables; call the command in one: "
                "pool.session(id).execute(...), or session=id",
                type="SessionNotFound",
            )
        if self._generation:
            args["generation"] = self._generation
        elif self._began:
            args["age"] = perf_counter() - self._began
        return Ask(method, args, take or _itself)

    # ---- reads -------------------------------------------------------------------------------------------

    def look(self, name: str):
        """What may be read again of a variable: Kept, or None."""
        kept = self._kept.get(name)
        if kept is None or self._words[kept.word] != kept.stamp or perf_counter() >= kept.ends:
            return None
        if kept.generation != self._generation:
            if self._generation or kept.asked > self._began:
                return None  # it may be another session than the one that there was when the request began
            self._generation = kept.generation
        return kept

    def value(self, name: str):
        """`ctx[name]`: blocks, also in an event loop."""
        if self.batch is None:
            kept = self.look(name)
            if kept is not None:
                return kept.value if kept.thaw is None else kept.thaw(kept.value)
        return self.block(self.get(name, REQUIRED))

    def get(self, name: str, default):
        """The value; `default` where there is none, and where that is REQUIRED an error."""
        gathered = _ABSENT if self.batch is None else self.batch.get(name, _ABSENT)
        if gathered is not _ABSENT:
            return Known(gathered)
        kept = self.look(name)
        if kept is not None:
            return Known(kept.value if kept.thaw is None else kept.thaw(kept.value))
        return self._get_many((name,), lambda found: _only(self, name, found, default))

    def get_versioned(self, name: str):
        """(The value, its version)."""
        kept = self.look(name)
        if kept is not None:
            return Known((kept.value if kept.thaw is None else kept.thaw(kept.value), kept.version))
        return self._get_many((name,), lambda found: _only(self, name, found, REQUIRED, versioned=True))

    def get_many(self, names):
        """({name: value}, [names that there are not]), all of one moment."""
        names = [*names]
        gathered = self.batch or {}
        asked = [name for name in names if name not in gathered]

        def take(found):
            values = {name: one["value"] for name, one in found["values"].items()}
            values.update((name, gathered[name]) for name in names if name in gathered)
            return {name: values[name] for name in names if name in values}, found["missing"]

        return self._get_many(asked, take)

    def get_all(self, names):
        """{name: value}; VariableNotFound where one is missing."""
        ask = self.get_many(names)
        take = ask.take

        def take_all(answer):
            found, missing = take(answer)
            return found if not missing else _raise(self.not_found(missing[0]))

        ask.take = take_all
        return ask

    def exists(self, name: str):
        """Whether there is such a variable."""
        if (self.batch is not None and name in self.batch) or self.look(name) is not None:
            return Known(True)
        return self._ask("session.exists", {"name": name})

    def list(self, pattern: str):
        """A record of each variable: a dict."""
        return self._ask("session.list", {"pattern": pattern})

    def history(self, name: str):
        """The last versions, the oldest first: a dict of each."""
        return self._ask("session.history", {"name": name})

    def _get_many(self, names, take) -> Ask:
        asked = perf_counter()

        def keep(answer):
            generation, lease = answer["generation"], answer["lease"]
            self._generation = self._generation or generation
            for name, one in answer["values"].items():
                one["generation"], one["lease"] = generation, lease
                self._copies.keep(self._kept, name, one["value"], one, asked)
            return take(answer)

        return self._ask("session.get_many", {"names": [*names]}, keep)

    # ---- writes ------------------------------------------------------------------------------------------

    def set(self, name: str, value, expected_version):
        """The variable's new version; None where the write is gathered in a batch."""
        if self.batch is not None and expected_version is None:
            self.batch[name] = value
            return Known(None)
        args = {"name": name, "value": value}
        if expected_version is not None:
            args["expected_version"] = expected_version
        return self._ask("session.set", args, self._version)

    def set_many(self, values: dict, atomic: bool, expected_versions):
        """The new versions by name; of a write that is not atomic an error where one has failed."""
        args = {"values": dict(values), "atomic": atomic, "expected_versions": expected_versions or {}}

        def take(answer):
            self._generation = self._generation or answer["generation"]
            errors = {name: _error(error) for name, error in answer["errors"].items()}
            return {name: errors.get(name) or answer["versions"][name] for name in values}

        return self._ask("session.set_many", args, take)

    def register(self, name: str, type: str, value, constraints, metadata):
        """The variable's version."""
        args = {"name": name, "type": type, "value": value, "constraints": constraints, "metadata": metadata}
        return self._ask("session.register", args, self._version)

    def delete(self, name: str, expected_version):
        """Nothing; an error where there is no such variable."""
        if self.batch is not None:
            self.batch.pop(name, None)
        args = {"name": name}
        if expected_version is not None:
            args["expected_version"] = expected_version

        def take(was_there: bool) -> None:
            if not was_there:
                raise self.not_found(name)

        return self._ask("session.delete", args, take)

    def _version(self, answer: dict) -> int:
        self._generation = self._generation or answer["generation"]
        return answer["version"]

    def not_found(self, name: str) -> VariableNotFound:
        """The error for a name that there is not."""
        session = self._context.session_id
        words = f"session {session!r} has no variable {name!r}; ctx[{name!r}] = value makes it"
        return VariableNotFound(
            words, type="VariableNotFound", details={"variable": name, "session": session}
        )

    # ---- programs ----------------------------------------------------------------------------------------

    def get_program(self, id: str, default, is_global: bool):
        """The program; `default` where there is none."""
        take = lambda answer: default if answer is None else answer["program"]  # noqa: E731
        return self._program("session.get_program", {"id": id}, is_global, take)

    def store_program(self, id: str, program, is_global: bool, **more):
        """Keeps it."""
        return self._program("session.store_program", {"id": id, "program": program, **more}, is_global)

    def update_program(self, id: str, program):
        """Replaces it."""
        return self._program("session.update_program", {"id": id, "program": program}, False)

    def delete_program(self, id: str, is_global: bool):
        """Whether there was one."""
        return self._program("session.delete_program", {"id": id}, is_global)

    def _program(self, method: str, args: dict, is_global: bool, take=None) -> Ask:
        if is_global:  # it belongs to no session
            return Ask(method, {**args, "global": True}, take or _itself)
        return self._ask(method, args, take)

    # ---- watching ----------------------------------------------------------------------------------------

    def watching(self, names) -> Ask:
        """The question for a stream of changes."""
        flat = [one for name in names for one in ([name] if type(name) is str else name)]
        return self._ask("session.watch", {"names": flat or ["*"]})


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _only(variables: Variables, name: str, found: dict, default, versioned: bool = False):
    one = found["values"].get(name)
    if one is not None:
        return (one["value"], one["version"]) if versioned else one["value"]
    if default is REQUIRED:
        raise variables.not_found(name)
    return default


def _error(said: dict):
    return error_of(said["message"], 0, said["type"], said["details"], "")


def _itself(answer):
    return answer


def _raise(error: BaseException):
    raise error
