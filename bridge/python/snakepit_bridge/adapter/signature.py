"""What arguments a command takes: names and simple types from its signature, checked before it is called.

- Everything is resolved once, when the adapter is loaded.
- A call costs two set comparisons and one lookup a typed argument.
- An annotation that cannot be resolved, or is not simple, checks nothing.
"""

from __future__ import annotations

import inspect
import sys
import typing

from snakepit_bridge.values.failures import InvalidArguments

_SIMPLE = {int: "int", float: "float", str: "str", bool: "bool", list: "list", dict: "dict", bytes: "bytes"}
_ACCEPTED = {
    int: (int,),
    float: (float, int),
    str: (str,),
    bool: (bool,),
    list: (list, tuple),
    dict: (dict,),
    bytes: (bytes, bytearray, memoryview),
}
_UNIONS = (typing.Union, getattr(__import__("types"), "UnionType", typing.Union))


class Parameter:
    """One keyword argument: `types` are the accepted exact types (empty: anything), `choices` those of a
    Literal.
    """

    __slots__ = ("choices", "default", "has_default", "name", "type", "types")

    def __init__(self, name: str, default, annotation) -> None:
        self.name = name
        self.has_default = default is not inspect.Parameter.empty
        self.default = default
        self.choices: tuple = ()
        self.types, self.type = _check_of(annotation)
        if typing.get_origin(annotation) is typing.Literal:
            self.choices = typing.get_args(annotation)
            if self.has_default and default is None and None not in self.choices:
                self.choices += (None,)
        if self.types and self.has_default and default is None:
            self.types |= {type(None)}

    def describe(self) -> dict:
        """As the ready line says it; a default that JSON cannot carry is left out."""
        described: dict = {"name": self.name, "required": not self.has_default}
        if self.has_default and _is_json(self.default):
            described["default"] = self.default
        if self.type:
            described["type"] = self.type
        return described

    def __str__(self) -> str:
        optional = "" if not self.has_default else f" = {self.default!r:.40}"
        return f"{self.name}: {self.type}{optional}" if self.type else f"{self.name}{optional}"


class Signature:
    """The arguments of the command `name`, whose function is `function`; `context` names the parameter that
    gets the SessionContext.

    `skip` leaves out the first parameters: the `self` of a function that is not bound.
    """

    def __init__(self, name: str, function, skip: int = 0) -> None:
        self.name = name
        hints = _hints(function)
        self.open = False
        self.context: str | None = None
        self.parameters: list[Parameter] = []
        for parameter in _parameters(function)[skip:]:
            self._add(parameter, hints.get(parameter.name, typing.Any))
        self._names = frozenset(p.name for p in self.parameters)
        self._required = frozenset(p.name for p in self.parameters if not p.has_default)
        self.has_choices = any(p.choices for p in self.parameters)
        self.shapes: set = set()  # names and types of arguments that passed unchanged (batches.py)
        self._checked = [p for p in self.parameters if p.types or p.choices]

    def _add(self, parameter: inspect.Parameter, hint) -> None:
        if parameter.kind is parameter.VAR_KEYWORD:
            self.open = True
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"{self.name}: the parameter {parameter.name!r} is positional-only; arguments come by name"
            )
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            if self.context is None and (parameter.name == "ctx" or _is_context(hint, parameter.annotation)):
                self.context = parameter.name
            else:
                self.parameters.append(Parameter(parameter.name, parameter.default, hint))

    def check(self, args: dict) -> dict:
        """`args` as the function takes them (whole floats for `int` become ints). Raises InvalidArguments."""
        keys = args.keys()
        if not keys >= self._required or not (self.open or keys <= self._names):
            raise self._wrong_names(args)
        if self.context in args:
            raise self._wrong_names(args)
        for parameter in self._checked:
            if parameter.name in args:
                value = args[parameter.name]
                if parameter.choices or type(value) not in parameter.types:
                    args[parameter.name] = self._coerced(parameter, value)
        return args

    def describe(self) -> str:
        """What the command takes, in words."""
        words = [str(p) for p in self.parameters]
        if self.open:
            words.append("**any")
        return ", ".join(words) or "no arguments"

    def _coerced(self, parameter: Parameter, value):
        if parameter.choices:
            if any(value == choice and type(value) is type(choice) for choice in parameter.choices):
                return value
        elif type(value) is float and int in parameter.types and value.is_integer():
            return int(value)
        elif type(value) is not bool and isinstance(value, tuple(parameter.types)):
            return value
        got = f"{type(value).__name__} {value!r:.60}"
        raise InvalidArguments(f"{self.name}: {parameter.name} must be {parameter.type}, got {got}")

    def _wrong_names(self, args: dict) -> InvalidArguments:
        import difflib

        words = []
        missing = [p.name for p in self.parameters if p.name in self._required and p.name not in args]
        if missing:
            words.append(f"missing {_listed(missing)}")
        known = sorted(self._names)
        for name in args:
            if name == self.context or not (self.open or name in self._names):
                near = difflib.get_close_matches(name, known, 1)
                words.append(f"unknown {name!r:.80}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return InvalidArguments(f"{self.name}: {'; '.join(words)}. It takes {self.describe()}")


def _parameters(function) -> list[inspect.Parameter]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        signature = inspect.signature(function, annotation_format=Format.FORWARDREF)
    else:
        signature = inspect.signature(function)
    return list(signature.parameters.values())


def _hints(function) -> dict:
    plain = inspect.unwrap(getattr(function, "__func__", function))
    try:
        return typing.get_type_hints(plain)
    except Exception:  # noqa: BLE001 - evaluating the user's annotations can raise anything
        return _hints_one_by_one(plain)


def _hints_one_by_one(function) -> dict:
    """What can be resolved when one annotation of the function cannot."""
    try:
        raw = dict(function.__annotations__)
    except Exception:  # noqa: BLE001 - Python 3.14 evaluates here
        return {}
    hints = {}
    for name, annotation in raw.items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, function.__globals__)  # as typing.get_type_hints does
            except Exception:  # noqa: BLE001 - unresolvable: no check
                continue
        hints[name] = annotation
    return hints


def _is_context(hint, annotation) -> bool:
    from snakepit_bridge.adapter.context import SessionContext

    if hint is SessionContext:
        return True
    return isinstance(annotation, str) and annotation.rpartition(".")[2] == "SessionContext"


def _check_of(annotation) -> tuple[frozenset, str]:
    """(accepted exact types, how to say it) of an annotation; nothing for what is not simple."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return frozenset(), "one of " + ", ".join(repr(a) for a in typing.get_args(annotation))
    if origin in _UNIONS:
        parts = [_check_of(a) for a in typing.get_args(annotation)]
        if not all(types for types, _ in parts):  # a part that is not simple, or a Literal
            return frozenset(), ""
        return frozenset().union(*(types for types, _ in parts)), " or ".join(words for _, words in parts)
    if annotation is None or annotation is type(None):
        return frozenset((type(None),)), "None"
    plain = origin if origin is not None else annotation
    if isinstance(plain, type) and plain in _SIMPLE:
        return frozenset(_ACCEPTED[plain]), _SIMPLE[plain]
    return frozenset(), ""


def _is_json(value) -> bool:
    if value is None or type(value) in (bool, str):
        return True
    if type(value) is int:
        return abs(value) < 2**53
    if type(value) is float:
        return value - value == 0
    if type(value) in (list, tuple):
        return all(map(_is_json, value))
    return type(value) is dict and all(type(k) is str and _is_json(v) for k, v in value.items())


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
