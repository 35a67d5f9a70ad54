"""What is asked about the variables of one session. See `talks.py`."""

from __future__ import annotations

import builtins
import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snakepit_ray.client.records import (
    FoundValues,
    PastValue,
    Variable,
    VersionedValue,
    past_value,
    value_of,
    variable_of,
)
from snakepit_ray.client.talks import Access, Talk, new_op, packed
from snakepit_ray.core.state import naming
from snakepit_ray.core.state.asked import (
    Creation,
    Found,
    Get,
    History,
    Join,
    Look,
    Put,
    Question,
    Variables,
    Versioned,
    Wrote,
)
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.writes import Change, Delete, Outcome, Register, Set, Written
from snakepit_ray.errors import InvalidArguments, SessionExpired, SessionNotFound, VariableNotFound

FORMAT = "snakepit-variables"
FORMAT_VERSION = 1
PARTS = ("type", "constraints", "metadata", "value")


class VariableTalks:
    """One session's. The first question makes the session where there is none, and later ones do not: one
    that has ended since stays so. `is_joined`: the first question was asked."""

    def __init__(
        self, access: Access, session_id: str, creation: Creation | None = None, *, is_joined: bool = False
    ) -> None:
        self.access = access
        self.session_id = session_id
        self.creation = creation or access.creation()
        self.is_joined = is_joined

    def asked(self, question: Question) -> Talk[Any]:
        """The answer."""
        try:
            answer = yield question
        except (SessionNotFound, SessionExpired):
            if self.is_joined:
                raise
            yield Join(self.session_id, self.creation, new_op())
            answer = yield question
        self.is_joined = True
        return answer

    def joined(self) -> Talk[None]:
        """The session is there."""
        if not self.is_joined:
            yield from self.asked(Look(self.session_id))

    # ---- reads --------------------------------------------------------------------------------------------

    def get(self, name: str, default: Any) -> Talk[Any]:
        found = yield from self._found((naming.variable_name(name),))
        return value_of(found.values[name].value, name) if name in found.values else default

    def get_versioned(self, name: str) -> Talk[VersionedValue]:
        found = yield from self._found((naming.variable_name(name),))
        newest = self._newest(found, name)
        return VersionedValue(value_of(newest.value, name), newest.version)

    def get_many(self, names: Iterable[str]) -> Talk[FoundValues]:
        found = yield from self._found(naming.variable_names(names))
        values = {name: value_of(newest.value, name) for name, newest in found.values.items()}
        return FoundValues(values, [*found.missing])

    def list(self, pattern: str) -> Talk[list[Variable]]:
        infos = yield from self.asked(Variables(self.session_id, naming.pattern(pattern)))
        return [*map(variable_of, infos)]

    def history(self, name: str) -> Talk[builtins.list[PastValue]]:
        return [*map(past_value, (yield from self._versions(name)))]

    def _found(self, names: tuple[str, ...]) -> Talk[Found]:
        found: Found = yield from self.asked(Get(self.session_id, names))
        return found

    def _versions(self, name: str) -> Talk[Sequence[Versioned]]:
        question = History(self.session_id, naming.variable_name(name))
        versions: Sequence[Versioned] = yield from self.asked(question)
        return versions

    def _newest(self, found: Found, name: str) -> Versioned:
        if name not in found.values:
            raise VariableNotFound.named(name, self.session_id, found.known)
        return found.values[name]

    # ---- writes -------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        type_: str,
        value: Any,
        constraints: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Talk[int]:
        written = yield from self._one(self._registration(name, type_, value, constraints, metadata))
        return written.version

    def set(self, name: str, value: Any, expected_version: int | None) -> Talk[int]:
        expected = _checked_version(expected_version)
        written = yield from self._one(self._setting(naming.variable_name(name), value, expected))
        return written.version

    def set_many(self, values: Mapping[str, Any], atomic: bool) -> Talk[dict[str, Any]]:
        if not isinstance(values, Mapping):
            raise _wrong("values", values, "a mapping from names to values")
        if not isinstance(atomic, bool):
            raise _wrong("atomic", atomic, "True or False")
        changes = [self._setting(naming.variable_name(name), value) for name, value in values.items()]
        outcome = yield from self._put(changes, atomic)
        if atomic:
            return _versions_of(outcome)
        return {one.name: one.version if one.error is None else one.error for one in outcome}

    def delete(self, name: str, expected_version: int | None) -> Talk[None]:
        expected = _checked_version(expected_version)
        yield from self._one(Delete(naming.variable_name(name), expected))

    def rollback(self, name: str, version: int) -> Talk[int]:
        versions = yield from self._versions(name)
        by_number = {one.version: one.value for one in versions}
        if version is None or _checked_version(version) not in by_number:
            kept = ", ".join(map(str, by_number))
            raise InvalidArguments(f"variable {name!r} has no version {version} any more: it keeps {kept}")
        written = yield from self._one(Set(name, packed(by_number[version])))
        return written.version

    def _one(self, change: Change) -> Talk[Written]:
        (written,) = yield from self._put([change], True)
        if written.error is not None:
            raise written.error
        return written

    def _put(self, changes: Sequence[Change], is_atomic: bool) -> Talk[Outcome]:
        if not changes:
            return ()
        wrote: Wrote = yield from self.asked(Put(self.session_id, new_op(), tuple(changes), is_atomic))
        return wrote.outcome

    def _setting(self, name: str, value: Any, expected: int | None = None) -> Set:
        return Set(name, self.access.data(value, f'variables["{name}"]'), expected)

    def _registration(self, name: str, type_: str, value: Any, constraints: Any, metadata: Any) -> Register:
        naming.variable_name(name)
        kept = naming.metadata({} if metadata is None else metadata)
        if constraints is not None and not isinstance(constraints, Mapping):
            raise _wrong("constraints", constraints, "a mapping from names to bounds")
        demand = copy.deepcopy(demanded(type_, constraints, name))
        return Register(name, self.access.data(value, f'variables["{name}"]'), demand, kept)

    # ---- all of them --------------------------------------------------------------------------------------

    def export(self) -> Talk[dict[str, Any]]:
        variables = yield from self.list("*")
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "variables": {one.name: {part: getattr(one, part) for part in PARTS} for one in variables},
        }

    def import_(self, document: Mapping[str, Any]) -> Talk[dict[str, int]]:
        changes = [
            self._registration(name, one["type"], one["value"], one["constraints"], one["metadata"])
            for name, one in _entries(document).items()
        ]
        return _versions_of((yield from self._put(changes, True)))


def _versions_of(outcome: Outcome) -> dict[str, Any]:
    """The versions by name. Raises the first error."""
    for one in outcome:
        if one.error is not None:
            raise one.error
    return {one.name: one.version for one in outcome}


def _checked_version(version: Any) -> int | None:
    if version is None or (isinstance(version, int) and not isinstance(version, bool) and version > 0):
        return version
    raise _wrong("a version", version, "a whole number from 1")


def _wrong(what: str, value: Any, expected: str) -> InvalidArguments:
    return InvalidArguments(f"{what}: got {naming.shown(value)}, expected {expected}")


def _entries(document: Any) -> Mapping[str, Any]:
    """The variables of a document that `export` has made."""
    expected = (
        f"what export() returns: a mapping with format {FORMAT!r}, version {FORMAT_VERSION} and variables"
    )
    head = (FORMAT, FORMAT_VERSION)
    if not isinstance(document, Mapping) or (document.get("format"), document.get("version")) != head:
        raise _wrong("the document", document, expected)
    variables = document.get("variables")
    if not isinstance(variables, Mapping):
        raise _wrong("variables of the document", variables, "a mapping")
    for name, one in variables.items():
        if not isinstance(one, Mapping) or {*one} != {*PARTS}:
            raise _wrong(f"variable {name!r} of the document", one, f"a mapping with {', '.join(PARTS)}")
    return variables
