"""How Python values become JSON with tagged buffers. decoding.py knows the way back.

- What JSON cannot carry gets a `$snakepit` tag (bridge/README.md, section 4) or is an error that names the
  path.
- Nothing is ever pickled.
- A value that needs no change is handed to the JSON encoder as it is, homogeneous lists after one check at
  C speed.

What becomes of a result:

| value | becomes |
|---|---|
| None, bool, str, finite float, int within ±(2^53 - 1) | itself |
| nan, inf, -inf; larger int | tag `float`; tag `int` |
| bytes, bytearray, memoryview | tag `bytes` |
| dict with string keys, list, tuple | object, array |
| dict with other keys | an error, because JSON would change the keys |
| set, frozenset | array, sorted where it can be sorted |
| everything else | conversions.py: the table there |
"""

from __future__ import annotations

import json
from math import isfinite

from snakepit_bridge.values.failures import EncodingError
from snakepit_bridge.values.tags import MAX_DEPTH, MAX_INT, TAG, Binary, Progress, Refused, Unserializable

_AS_IS = frozenset((str, bool, type(None)))
_NUMBERS = frozenset((int, float))
_SCALARS = frozenset((int, float, str))
_SETS = (set, frozenset)

write = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode


def encode(
    value, *, marker: bool = False, root: str = "result", buffers: list | None = None
) -> tuple[bytes, list]:
    """(UTF-8 JSON, buffers) of `value`. Raises EncodingError naming the path; with `marker` what cannot be
    carried becomes a marker. `buffers`: those of other values of the same payload, which its own follow.
    """
    buffers = [] if buffers is None else buffers
    before = len(buffers)
    try:
        try:
            walk = _Walk(marker, False, buffers)
            return write(walk.value(value, 0)).encode("utf-8"), buffers
        except UnicodeEncodeError:  # a lone surrogate somewhere: once more, looking at every string
            del buffers[before:]
            walk = _Walk(marker, True, buffers)
            return write(walk.value(value, 0)).encode("utf-8"), buffers
    except Refused as refused:
        raise EncodingError(refused.text(root)) from None


class _Walk:
    """One value on its way to JSON: its buffers, and the containers that are open, to see a cycle."""

    def __init__(self, marker: bool, strict: bool, buffers: list) -> None:
        self.buffers = buffers
        self._marker = marker
        self._strict = strict
        self._open: set[int] = set()

    def value(self, value, depth: int):
        """`value` as json.dumps takes it."""
        kind = type(value)
        if kind in _AS_IS and not (self._strict and kind is str):
            return value
        if kind is int and -MAX_INT <= value <= MAX_INT:
            return value
        if kind is float and isfinite(value):
            return value
        try:
            return self._scalar(value, kind) if kind in _SCALARS else self._compound(value, kind, depth)
        except Refused as refused:
            if self._marker:
                return {TAG: "unserializable", "type": refused.type}
            raise

    def _scalar(self, value, kind: type):
        if kind is str:
            return self._string(value)
        return self._integer(value) if kind is int else {TAG: "float", "value": _word(value)}

    def _compound(self, value, kind: type, depth: int):
        if kind is Binary:
            self.buffers.append(value.data)
            return {TAG: value.tag.pop("kind"), "buffer": len(self.buffers) - 1, **value.tag}
        if kind is Unserializable:
            return {TAG: "unserializable", "type": value.type}
        if kind is Progress:
            return self._progress(value, depth)
        if depth >= MAX_DEPTH:
            raise Refused(f"cannot encode more than {MAX_DEPTH} levels of nesting", value)
        if kind is dict:
            return self._dict(value, depth)
        if kind is list or kind is tuple:
            return self._list(value, depth)
        if kind in _SETS:
            return self._list(_ordered(value), depth)
        return self._converted(value, depth)

    def _progress(self, report: Progress, depth: int) -> dict:
        fields: dict = {}
        for name in ("done", "total", "message"):
            given = getattr(report, name)
            fields[name] = self.value(given, depth)
            kind = type(
                given if isinstance(fields[name], dict) else fields[name]
            )  # a tag: a number that is large
            if kind not in ((str,) if name == "message" else (int, float, type(None))):
                raise Refused(f"cannot encode a progress whose {name} is {type(given).__name__}", report)
        return {TAG: "progress", **fields}

    def _list(self, value, depth: int):
        if self._unchanged(value):
            return value
        out: list = []
        with_cycle_check = self._enter(value)
        try:
            for item in value:
                out.append(self.value(item, depth + 1))  # noqa: PERF401 - len(out) is the path when it raises
        except Refused as refused:
            raise refused.at(f"[{len(out)}]") from None
        finally:
            self._open.discard(with_cycle_check)
        return out

    def _dict(self, value: dict, depth: int):
        if set(map(type, value)) <= {str}:
            if TAG not in value and self._unchanged(value.values()) and not self._strict:
                return value
            keys = list(value)
        else:
            keys = [self._key(key, value) for key in value]
        if self._strict:
            keys = [self._string(key) for key in keys]
        out: list = []
        identity = self._enter(value)
        try:
            for key, item in zip(keys, value.values()):  # noqa: B905 - strict= needs Python 3.10
                out.append((key, self.value(item, depth + 1)))
        except Refused as refused:
            raise refused.at(f"[{json.dumps(keys[len(out)])}]") from None
        finally:
            self._open.discard(identity)
        if TAG in keys:
            return {TAG: "object", "items": out}
        return dict(out)

    def _unchanged(self, values) -> bool:
        """Whether JSON carries all of `values` as they are: one pass at C speed for the usual homogeneous
        ones.
        """
        kinds = set(map(type, values)) - _AS_IS
        if self._strict:
            return False
        if not kinds:
            return True
        if not kinds <= _NUMBERS or len(kinds) > 1:
            return False
        try:
            if float in kinds:
                return all(map(isfinite, values))
            return min(values) >= -MAX_INT and max(values) <= MAX_INT
        except TypeError:  # numbers among strings or None: one by one
            return False

    def _converted(self, value, depth: int):
        from snakepit_bridge.values.conversions import convert

        identity = self._enter(value)
        try:
            return self.value(convert(value), depth + 1)
        finally:
            self._open.discard(identity)

    def _enter(self, value) -> int:
        identity = id(value)
        if identity in self._open:
            raise Refused("cannot encode a value that contains itself", value)
        self._open.add(identity)
        return identity

    def _key(self, key, owner) -> str:
        if type(key) is str:
            return key
        if isinstance(key, str):
            return str.__str__(key)
        words = f"the key {key!r:.80} ({type(key).__name__}): keys are strings; use str(key)"
        raise Refused(f"cannot encode {words}", owner)

    def _string(self, value: str) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            words = f"the lone surrogate {value[error.start]!r} at {error.start}"
            advice = 'send bytes, or value.encode("utf-8", "replace").decode()'
            raise Refused(f"cannot encode a string with {words}; {advice}", value) from None
        return value

    def _integer(self, value: int) -> dict:
        try:
            return {TAG: "int", "value": str(value)}
        except ValueError as error:  # Python's own bound on decimal digits
            raise Refused(f"cannot encode an integer of {value.bit_length()} bits: {error}", value) from None


def _word(value: float) -> str:
    if value != value:
        return "nan"
    return "inf" if value > 0 else "-inf"


def _ordered(value) -> list:
    try:
        return sorted(value)
    except TypeError:  # nothing orders them
        return list(value)
