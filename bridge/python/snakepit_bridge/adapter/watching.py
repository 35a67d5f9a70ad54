"""Batches, watches and the other small objects that a context gives of its session's variables."""

from __future__ import annotations

from snakepit_bridge.adapter.host_errors import VariableNotFound


class Change:
    """A change of a variable. `value` is None where it was `deleted`. `skipped`: how many versions were
    written since the last change that was seen, and are not. `at`: seconds since 1970.
    """

    __slots__ = ("at", "deleted", "name", "skipped", "value", "version")

    def __init__(self, said: dict) -> None:
        self.name = said["name"]
        self.deleted = said["deleted"]
        self.skipped = said["skipped"]
        self.value = said.get("value")
        self.version = said.get("version", 0)
        self.at = said.get("at", 0.0)

    def __repr__(self) -> str:
        what = "deleted" if self.deleted else f"{self.value!r:.80} version={self.version}"
        return f"<Change {self.name!r} {what}>"


class Watch:
    """Changes as they come, for `for` and `async for`: first the present values. Closing or dropping it ends
    it.
    """

    def __init__(self, context, ask) -> None:
        self._context = context
        self._ask = ask
        self._stream = None

    def _begun(self, begin):
        if self._stream is None:
            self._stream = begin(self._context, self._ask.method, self._ask.args)
        return self._stream

    def __iter__(self):
        return self

    def __next__(self) -> Change:
        return Change(next(self._begun(self._context._linked().stream)))

    def __aiter__(self):
        return self

    async def __anext__(self) -> Change:
        return Change(await self._begun(self._context._linked().astream).__anext__())

    def close(self) -> None:
        """Ends it. Safe to repeat."""
        if self._stream is not None:
            self._stream.close()

    async def aclose(self) -> None:
        """`close`, for async commands."""
        if self._stream is not None:
            await self._stream.aclose()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_) -> None:
        await self.aclose()


class Batch:
    """Gathers writes, and makes them at its end, all or none; nothing where an exception leaves it."""

    def __init__(self, variables) -> None:
        self._variables = variables

    def __setitem__(self, name: str, value) -> None:
        self._variables.batch[name] = value

    def __getitem__(self, name: str):
        return self._variables.value(name)

    def _open(self):
        if self._variables.batch is not None:
            raise RuntimeError(
                "a batch of this request is open already: it gathers what is written in it, too"
            )
        self._variables.batch = {}
        return self

    def _gathered(self) -> dict:
        gathered, self._variables.batch = self._variables.batch, None
        return gathered

    def _ask(self, gathered: dict):
        return self._variables.set_many(gathered, True, None)

    def __enter__(self):
        return self._open()

    def __exit__(self, kind, *_) -> None:
        gathered = self._gathered()
        if kind is None and gathered:
            self._variables.block(self._ask(gathered))

    async def __aenter__(self):
        return self._open()

    async def __aexit__(self, kind, *_) -> None:
        gathered = self._gathered()
        if kind is None and gathered:
            await self._variables.arun(self._ask(gathered))


class Namespace:
    """`ctx.v`: the variables as attributes. Blocks, also in an async command."""

    __slots__ = ("_variables",)

    def __init__(self, variables) -> None:
        object.__setattr__(self, "_variables", variables)

    def __getattr__(self, name: str):
        if name[:2] == "__":  # of copy, pickle and their like: no variable
            raise AttributeError(name)
        try:
            return self._variables.value(name)
        except VariableNotFound as error:
            raise AttributeError(str(error)) from None

    def __setattr__(self, name: str, value) -> None:
        self._variables.block(self._variables.set(name, value, None))

    def __delattr__(self, name: str) -> None:
        self._variables.block(self._variables.delete(name, None))

    def __contains__(self, name: str) -> bool:
        return self._variables.block(self._variables.exists(name))


class Variable:
    """`ctx.variable(name)`: one variable. Its `value` is read and written when it is asked for; blocks."""

    __slots__ = ("_variables", "name")

    def __init__(self, variables, name: str) -> None:
        self._variables = variables
        self.name = name

    @property
    def value(self):
        """What it is now."""
        return self._variables.value(self.name)

    @value.setter
    def value(self, value) -> None:
        self._variables.block(self._variables.set(self.name, value, None))

    def __repr__(self) -> str:
        return f"<Variable {self.name!r}>"
