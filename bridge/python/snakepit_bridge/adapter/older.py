"""How adapters in the wild spell what state_methods.py offers. Each gives its value in a sync command, and
what is to be awaited in an async one, because both have been written.
"""

from __future__ import annotations


class OlderSpelling:
    """The older names of a context's methods."""

    __slots__ = ()

    def register_variable(self, name: str, type: str, initial, constraints=None, metadata=None, ttl=None):
        """`register`; `ttl` is the session's, and ignored here."""
        return self._either("register", name, type, initial, constraints, metadata)

    def get_variable(self, name: str):
        """The value. Raises VariableNotFound."""
        from snakepit_bridge.adapter.variables import REQUIRED

        return self._either("get", name, REQUIRED)

    def get_variables(self, names):
        """{name: value}. Raises VariableNotFound where one is missing."""
        return self._either("get_all", names)

    def set_variable(self, name: str, value, metadata=None):
        """`set`; metadata belongs to a variable and not to a write, and is ignored here."""
        return self._either("set", name, value, None)

    update_variable = set_variable

    def set_variables(self, values: dict, atomic: bool = False):
        """`set_many`."""
        return self._either("set_many", values, atomic, None)

    update_variables = set_variables

    def list_variables(self, pattern: str = "*"):
        """`list`."""
        return self._either("list", pattern)

    def delete_variable(self, name: str):
        """Removes it. Raises VariableNotFound."""
        return self._either("delete", name, None)

    def variable(self, name: str):
        """An object whose `value` is the variable's whenever it is asked for."""
        from snakepit_bridge.adapter.watching import Variable

        return Variable(self._state(), name)

    def batch_updates(self):
        """`batch`."""
        return self.batch()

    def set_cache_ttl(self, ttl) -> None:
        """Nothing: a copy is read as long as it is the newest, whatever time that is."""

    def clear_cache(self) -> None:
        """Forgets the copies of this interpreter. No read needs it."""
        self._linked().copies.forget()

    def _either(self, name: str, *args):
        from snakepit_bridge.adapter.variables import in_event_loop

        return self._awaited(name, *args) if in_event_loop() else self._ran(name, *args)


class VariableAwareMixin:
    """For classes of the user's that read and write variables: `VariableAwareMixin(ctx)`, or as a base.
    Everything is that of the context.
    """

    def __init__(self, session_context, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._session_context = session_context

    def get_variable(self, name: str):
        """The value, None where there is no such variable."""
        return self._session_context._either("get", name, None)

    def set_variable(self, name: str, value, metadata=None):
        """Gives it a value, and makes it where it is not there."""
        return self._session_context.set_variable(name, value, metadata)

    def register_variable(self, name: str, type: str, initial, constraints=None, metadata=None):
        """Makes it."""
        return self._session_context.register_variable(name, type, initial, constraints, metadata)
