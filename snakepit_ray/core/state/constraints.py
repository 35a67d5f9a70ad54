"""The constraints of session variables: what may be demanded of which type, and whether a value meets it.

- They are looked at when a variable is registered, so that a constraint that no value can meet, or that is no
  constraint of the type, fails there.
- NaN is neither above nor below anything, so it meets no bound. Infinities are numbers like others.
- A pattern is searched for in the string, as in JSON Schema: anchor it with ^ and $ to match the whole. Its
  syntax is RE2's (regex.py), so that no pattern can hold up the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit_ray.core.state import regex
from snakepit_ray.core.state.types import Array, VariableType, accepted, shown
from snakepit_ray.errors import ConstraintViolation, InvalidArguments, VariableTypeError
from snakepit_ray.errors.base import did_you_mean, listed

T = VariableType
RULES: Mapping[VariableType, tuple[str, ...]] = {
    T.FLOAT: ("min", "max"),
    T.INTEGER: ("min", "max"),
    T.STRING: ("min_length", "max_length", "pattern", "enum"),
    T.BOOLEAN: (),
    T.CHOICE: ("choices",),
    T.MODULE: ("allowed_modules",),
    T.LIST: ("min_length", "max_length"),
    T.DICT: ("min_length", "max_length"),
    T.EMBEDDING: ("dimensions",),
    T.TENSOR: ("shape",),
}
"""The constraints of each type."""
_LOWER = {"min": "max", "min_length": "max_length"}


@dataclass(frozen=True)
class Demand:
    """What every value of one variable must be: its `type` and its `constraints`. Made by `demanded`."""

    type: VariableType
    constraints: Mapping[str, Any]

    def accepted(self, value: Any, name: str) -> Any:
        """The value as the variable `name` keeps it. Raises VariableTypeError and ConstraintViolation."""
        taken = accepted(self.type, value, name)
        for rule, bound in self.constraints.items():
            if not _MEETS[rule](taken, bound):
                raise ConstraintViolation(
                    f"variable {name!r}: {shown(value)} breaks {rule}={bound!r}: {_SAYS[rule]}"
                    f"{_measured(rule, taken, bound)}",
                    variable=name,
                    rule=rule,
                    bound=bound,
                    value=shown(value),
                )
        return taken


def demanded(type_: str, constraints: Mapping[str, Any] | None, name: str) -> Demand:
    """What is demanded of the variable `name`. Raises InvalidArguments for a type that there is not, and for
    constraints that the type does not have, that are none, or that no value meets."""
    known = [one.value for one in VariableType]
    if type_ not in known:
        raise _invalid(
            name, f"there is no type {type_!r}{did_you_mean(type_, known)} (types: {', '.join(known)})"
        )
    kind = VariableType(type_)
    given = {
        rule: list(bound) if isinstance(bound, tuple) else bound
        for rule, bound in (constraints or {}).items()
    }
    for rule, bound in given.items():
        if rule not in RULES[kind]:
            raise _invalid(
                name,
                f"{kind} has no constraint {rule!r}{did_you_mean(rule, RULES[kind])} "
                f"(it has: {listed(RULES[kind])})",
            )
        wrong = _IS_BOUND[rule](bound)
        if wrong:
            raise _invalid(name, f"{rule} must be {wrong}, got {shown(bound)}")
    for lower, upper in _LOWER.items():
        if lower in given and upper in given and given[lower] > given[upper]:
            raise _invalid(name, f"{lower}={given[lower]!r} is above {upper}={given[upper]!r}")
    return Demand(kind, given)


def _invalid(name: str, why: str) -> InvalidArguments:
    return InvalidArguments(f"variable {name!r} cannot be registered: {why}", details={"variable": name})


# ---- what a bound is: nothing, or what it should be --------------------------------------------------------


def _number(bound: Any) -> str:
    try:
        good = accepted(T.FLOAT, bound, "") == bound  # and so not NaN
    except VariableTypeError:
        good = False
    return "" if good else "a number"


def _length(bound: Any) -> str:
    is_integer = isinstance(bound, int) and not isinstance(bound, bool)
    return "" if is_integer and bound >= 0 else "an integer from 0"


def _strings(bound: Any) -> str:
    good = isinstance(bound, (list, tuple)) and bound and all(isinstance(one, str) for one in bound)
    return "" if good else "a list of strings, at least one"


def _shape(bound: Any) -> str:
    good = isinstance(bound, (list, tuple)) and all(one is None or not _length(one) for one in bound)
    return "" if good else "a list of lengths, None for any"


def _pattern(bound: Any) -> str:
    try:
        regex.compiled(bound if isinstance(bound, str) else "[")
    except ValueError as error:
        return f"a regular expression of at most {regex.LONGEST_PATTERN} characters ({error})"
    return ""


_IS_BOUND: Mapping[str, Callable[[Any], str]] = {
    "min": _number,
    "max": _number,
    "min_length": _length,
    "max_length": _length,
    "pattern": _pattern,
    "enum": _strings,
    "choices": _strings,
    "allowed_modules": _strings,
    "dimensions": _length,
    "shape": _shape,
}

# ---- whether a value meets a bound -------------------------------------------------------------------------


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an embedding's or a tensor's value."""
    if isinstance(value, Array):
        return value.shape
    return tuple(value["shape"]) if isinstance(value, Mapping) else (len(value),)


def _has_shape(value: Any, bound: Any) -> bool:
    shape = shape_of(value)
    return len(shape) == len(bound) and all(
        wanted in (None, length) for length, wanted in zip(shape, bound, strict=True)
    )


_MEETS: Mapping[str, Callable[[Any, Any], bool]] = {
    "min": lambda value, bound: value >= bound,
    "max": lambda value, bound: value <= bound,
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: len(value) <= regex.longest(bound) and regex.is_in(bound, value),
    "enum": lambda value, bound: value in bound,
    "choices": lambda value, bound: value in bound,
    "allowed_modules": lambda value, bound: value in bound,
    "dimensions": lambda value, bound: shape_of(value) == (bound,),
    "shape": _has_shape,
}
_SAYS: Mapping[str, str] = {
    "min": "it must not be below",
    "max": "it must not be above",
    "min_length": "it is too short",
    "max_length": "it is too long",
    "pattern": "the pattern is not in it",
    "enum": "it is none of them",
    "choices": "it is none of them",
    "allowed_modules": "it is none of them",
    "dimensions": "it has another number of dimensions",
    "shape": "it has another shape",
}


def _measured(rule: str, value: Any, bound: Any) -> str:
    if rule == "pattern" and len(value) > regex.longest(bound):
        return f" (it has {len(value)} characters, this pattern may see {regex.longest(bound)})"
    if rule in ("min_length", "max_length"):
        return f" ({len(value)})"
    return f" ({list(shape_of(value))})" if rule in ("dimensions", "shape") else ""
