"""The errors about sessions and their variables that are the call's own fault (errors/base.py:
CallerFault).
"""

from __future__ import annotations

from collections.abc import Iterable

from snakepit_ray.errors.base import CallerFault, did_you_mean, listed


class SessionNotFound(CallerFault):
    """No session of that id exists. Create it with `pool.session(id)`."""

    def __init__(self, message: str = "", *, session: str | None = None) -> None:
        super().__init__(message)
        self.session = session

    @classmethod
    def named(cls, session: str) -> SessionNotFound:
        """For the id `session`."""
        return cls(f"no session {session!r}; create it with pool.session({session!r})", session=session)


class SessionExpired(CallerFault):
    """The session was not used for its time to live. Create it again, with a longer `ttl` if it should
    stay."""

    def __init__(
        self,
        message: str = "",
        *,
        session: str | None = None,
        ttl: float | None = None,
        idle_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.session = session
        self.ttl = ttl
        self.idle_s = idle_s

    @classmethod
    def after(cls, session: str, idle_s: float, ttl: float) -> SessionExpired:
        """For a `session` that was not used for `idle_s` seconds, with a `ttl` in seconds."""
        return cls(
            f"session {session!r} expired: unused for {idle_s:.1f} s, its ttl is {ttl:g} s; create it "
            "again with "
            f"pool.session({session!r}, ttl=...)",
            session=session,
            ttl=ttl,
            idle_s=idle_s,
        )


class VariableNotFound(CallerFault):
    """The session has no variable of that name. Register it first, or give `get` a default."""

    def __init__(self, message: str = "", *, variable: str | None = None, session: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable
        self.session = session

    @classmethod
    def named(cls, variable: str, session: str, known: Iterable[str] = ()) -> VariableNotFound:
        """For a `variable` that is none of those that are `known` in `session`."""
        known = list(known)
        return cls(
            f"session {session!r} has no variable {variable!r}{did_you_mean(variable, known)} (there are: "
            f"{listed(known)}); register it with session.variables.register",
            variable=variable,
            session=session,
        )


class VariableTypeError(CallerFault):
    """The value is not of the variable's type. `value` is its repr (the value itself stays where it was)."""

    def __init__(
        self,
        message: str = "",
        *,
        variable: str | None = None,
        expected: str | None = None,
        value: str | None = None,
    ) -> None:
        super().__init__(message)
        self.variable = variable
        self.expected = expected
        self.value = value


class ConstraintViolation(CallerFault):
    """The value breaks a constraint of its variable. `rule` and `bound` say which, `value` is the value's
    repr."""

    def __init__(
        self,
        message: str = "",
        *,
        variable: str | None = None,
        rule: str | None = None,
        bound: object = None,
        value: str | None = None,
    ) -> None:
        super().__init__(message)
        self.variable = variable
        self.rule = rule
        self.bound = bound
        self.value = value
