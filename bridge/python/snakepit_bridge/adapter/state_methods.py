"""What a context offers of its session's variables and programs. variables.py does it, and is loaded when a
command first asks for it.

- `ctx[name]`, `name in ctx`, `del ctx[name]` and `ctx.v` block, also in async commands. The methods without
  an `a` in front refuse to block an event loop.
- Values are read again from a copy where that is certain to be the newest.
"""

from __future__ import annotations


class StateMethods:
    """The variables and programs of a request's session. In a request without a session each raises
    SessionNotFound. Errors are those of host_errors.py.
    """

    __slots__ = ()

    def __getitem__(self, name: str):
        """The variable's value. Raises VariableNotFound, a KeyError."""
        return (self._variables or self._state()).value(name)

    def __setitem__(self, name: str, value) -> None:
        """Gives the variable a value. Makes it, with a type that the value has, and the session, where they
        are not there.
        """
        state = self._state()
        state.block(state.set(name, value, None))

    def __delitem__(self, name: str) -> None:
        """Removes the variable. Raises VariableNotFound."""
        state = self._state()
        state.block(state.delete(name, None))

    def __contains__(self, name: str) -> bool:
        """Whether there is such a variable."""
        state = self._state()
        return state.block(state.exists(name))

    __iter__ = None  # else Python would try ctx[0], ctx[1], ...

    @property
    def v(self):
        """The variables as attributes: `ctx.v.temperature = 0.7`."""
        from snakepit_bridge.adapter.watching import Namespace

        return Namespace(self._state())

    @property
    def variables(self):
        """The context itself, which has the methods of a caller's `session.variables`."""
        return self

    # ---- reads -------------------------------------------------------------------------------------------

    def get(self, name: str, default=None):
        """The variable's value, `default` where there is none."""
        return self._ran("get", name, default)

    async def aget(self, name: str, default=None):
        """`get` for async commands."""
        return await self._awaited("get", name, default)

    def get_versioned(self, name: str):
        """(The value, its version). Raises VariableNotFound."""
        return self._ran("get_versioned", name)

    async def aget_versioned(self, name: str):
        """`get_versioned` for async commands."""
        return await self._awaited("get_versioned", name)

    def get_many(self, names):
        """({name: value}, [names that there are not]), all of one moment."""
        return self._ran("get_many", names)

    async def aget_many(self, names):
        """`get_many` for async commands."""
        return await self._awaited("get_many", names)

    def list(self, pattern: str = "*"):
        """The variables, by name, whose names match a pattern with `*`: a dict of each with name, type,
        value, version, constraints, metadata, and `at`, seconds since 1970.
        """
        return self._ran("list", pattern)

    async def alist(self, pattern: str = "*"):
        """`list` for async commands."""
        return await self._awaited("list", pattern)

    def history(self, name: str):
        """The last versions of the variable, the oldest first: a dict of each with version, value, at. Raises
        VariableNotFound.
        """
        return self._ran("history", name)

    async def ahistory(self, name: str):
        """`history` for async commands."""
        return await self._awaited("history", name)

    def watch(self, *names):
        """Changes of the variables whose names match (patterns with `*`; none: all), as they come, for `for`
        and `async for`: Change(name, value, version, deleted, skipped, at), first the present values. Who is
        slow gets the newest. Raises SessionNotFound where there is no session, and when it ends.
        """
        from snakepit_bridge.adapter.watching import Watch

        return Watch(self, self._state().watching(names))

    # ---- writes ------------------------------------------------------------------------------------------

    def set(self, name: str, value, expected_version=None):
        """Gives the variable a value and returns its version; makes it where it is not there. Where it has
        another version than `expected_version` (0: it is not there): VersionConflict. Raises
        VariableTypeError, ConstraintViolation.
        """
        return self._ran("set", name, value, expected_version)

    async def aset(self, name: str, value, expected_version=None):
        """`set` for async commands."""
        return await self._awaited("set", name, value, expected_version)

    def set_many(self, values: dict, atomic: bool = True, expected_versions=None):
        """Gives several variables values: all of them at one moment or none, and returns {name: version}.
        With `atomic=False` each by itself, and a HostError stands for the version of one that failed.
        """
        return self._ran("set_many", values, atomic, expected_versions)

    async def aset_many(self, values: dict, atomic: bool = True, expected_versions=None):
        """`set_many` for async commands."""
        return await self._awaited("set_many", values, atomic, expected_versions)

    def register(self, name: str, type: str, value, constraints=None, metadata=None):
        """Makes a variable of a type (float, integer, string, boolean, choice, module, list, dict, embedding,
        tensor), whose values obey `constraints`, and returns its version. Raises VariableTypeError,
        ConstraintViolation, and HostError for what is no type or constraint.
        """
        return self._ran("register", name, type, value, constraints, metadata)

    async def aregister(self, name: str, type: str, value, constraints=None, metadata=None):
        """`register` for async commands."""
        return await self._awaited("register", name, type, value, constraints, metadata)

    def delete(self, name: str, expected_version=None):
        """Removes the variable and its history. Raises VariableNotFound, VersionConflict."""
        return self._ran("delete", name, expected_version)

    async def adelete(self, name: str, expected_version=None):
        """`delete` for async commands."""
        return await self._awaited("delete", name, expected_version)

    def batch(self):
        """Gathers the writes inside of `with ctx.batch():` (or `async with`), makes them at its end at one
        moment, all or none, and does nothing where an exception leaves it. Reads see what is gathered.
        """
        from snakepit_bridge.adapter.watching import Batch

        return Batch(self._state())

    # ---- programs ----------------------------------------------------------------------------------------

    def store_program(self, id: str, program) -> None:
        """Keeps any value that can be carried under an id, as long as the session lives."""
        return self._ran("store_program", id, program, False)

    async def astore_program(self, id: str, program) -> None:
        """`store_program` for async commands."""
        return await self._awaited("store_program", id, program, False)

    def update_program(self, id: str, program) -> None:
        """Replaces a program. Raises HostError where there is none."""
        return self._ran("update_program", id, program)

    async def aupdate_program(self, id: str, program) -> None:
        """`update_program` for async commands."""
        return await self._awaited("update_program", id, program)

    def get_program(self, id: str, default=None):
        """The program of this id, `default` where there is none."""
        return self._ran("get_program", id, default, False)

    async def aget_program(self, id: str, default=None):
        """`get_program` for async commands."""
        return await self._awaited("get_program", id, default, False)

    def delete_program(self, id: str) -> bool:
        """Forgets the program; whether there was one."""
        return self._ran("delete_program", id, False)

    async def adelete_program(self, id: str) -> bool:
        """`delete_program` for async commands."""
        return await self._awaited("delete_program", id, False)

    def store_global_program(self, id: str, program, ttl: float = 3600.0) -> None:
        """Keeps a program that belongs to no session, until it was not used for `ttl` seconds."""
        self._run("store_global_program", self._state().store_program(id, program, True, ttl=ttl))

    async def astore_global_program(self, id: str, program, ttl: float = 3600.0) -> None:
        """`store_global_program` for async commands."""
        await self._state().arun(self._state().store_program(id, program, True, ttl=ttl))

    def get_global_program(self, id: str, default=None):
        """The global program of this id, `default` where there is none."""
        return self._run("get_global_program", self._state().get_program(id, default, True))

    async def aget_global_program(self, id: str, default=None):
        """`get_global_program` for async commands."""
        return await self._state().arun(self._state().get_program(id, default, True))

    def delete_global_program(self, id: str) -> bool:
        """Forgets the global program; whether there was one."""
        return self._run("delete_global_program", self._state().delete_program(id, True))

    async def adelete_global_program(self, id: str) -> bool:
        """`delete_global_program` for async commands."""
        return await self._state().arun(self._state().delete_program(id, True))

    # ---- how ---------------------------------------------------------------------------------------------

    def _state(self):
        if self._variables is None:
            from snakepit_bridge.adapter.variables import Variables

            self._variables = Variables(self)
        return self._variables

    def _ran(self, name: str, *args):
        state = self._state()
        return state.run(getattr(state, name)(*args), name)

    def _run(self, name: str, ask):
        return self._state().run(ask, name)

    async def _awaited(self, name: str, *args):
        state = self._state()
        return await state.arun(getattr(state, name)(*args))
