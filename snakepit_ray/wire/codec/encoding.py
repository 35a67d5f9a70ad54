"""How a caller's values become JSON and buffers (bridge/README.md section 4).

- What is not in the table of values is an EncodingError that names its path.
- Plain JSON is checked at C speed and never copied.
- numpy and pyarrow are imported only when a value needs them.
- Refs are recognised by the type that the caller names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import isfinite, isnan
from typing import Any, NamedTuple, TypeVar

import orjson

from snakepit_ray.errors import EncodingError, PayloadTooLarge
from snakepit_ray.wire.codec import kinds
from snakepit_ray.wire.codec.hints import hint_for, kind_of
from snakepit_ray.wire.codec.tags import LARGEST_INT, MAX_DEPTH, TAG, Progress, Unserializable
from snakepit_ray.wire.codec.tensors import NotCarried

T = TypeVar("T")
Buffer = Any  # bytes, or a memoryview of bytes: 1-D, contiguous
INLINE = 10_240  # default of binary_threshold: data of strictly more bytes travels out of band


class Encoded(NamedTuple):
    """A payload: UTF-8 JSON, the buffers that its tags name by index, and the top-level refs taken out of
    it."""

    json: bytes
    buffers: list[Buffer]
    refs: list[tuple[str, Any]]


def encode_args(args: Any, ref_type: type | None = None, root: str = "args") -> Encoded:
    """The arguments of a command: a mapping with string keys, or a ref to one (then `refs` is [("", ref)]).

    Values that are instances of `ref_type` are taken out into `refs` as (name, ref). `root` begins the path
    in error messages. Raises EncodingError.
    """
    if type(args) is dict and _is_plain(args, 1):
        raw = plain_json(args)
        if raw is not None:
            return Encoded(raw, [], [])
    if ref_type is not None and isinstance(args, ref_type):
        return Encoded(b"{}", [], [("", args)])
    if not isinstance(args, Mapping):
        raise EncodingError(
            f"{root}: cannot encode {kind_of(args)}: the arguments are a mapping from names to values",
            path=root,
        )
    refs = []
    if ref_type is not None:
        refs = [(name, value) for name, value in args.items() if isinstance(value, ref_type)]
        args = {name: value for name, value in args.items() if not isinstance(value, ref_type)}
    raw, buffers = Converter(root, ref_type).run(args)
    for name, _ in refs:
        Converter(root, ref_type).check_key(name)
    return Encoded(raw, buffers, refs)


def encode_value(value: Any, root: str = "value", ref_type: type | None = None) -> Encoded:
    """One value; `root` begins the path in error messages. Raises EncodingError."""
    if type(value) in _CONTAINERS and _is_plain(value, 1):
        raw = plain_json(value)
        if raw is not None:
            return Encoded(raw, [], [])
    raw, buffers = Converter(root, ref_type).run(value)
    return Encoded(raw, buffers, [])


def check_size(
    encoded: Encoded, limit: int, threshold: int | None = INLINE, what: str = "the message"
) -> None:
    """Raises PayloadTooLarge when the JSON and the buffers that travel with it have more than `limit` bytes.

    Buffers of more than `threshold` bytes travel out of band and do not count; None: all count.
    """
    size = len(encoded.json)
    if size <= limit and not encoded.buffers:
        return
    lengths = map(nbytes, encoded.buffers)
    size += sum(length for length in lengths if threshold is None or length <= threshold)
    if size > limit:
        raise PayloadTooLarge.of(size, limit, what)


def nbytes(buffer: Buffer) -> int:
    """Bytes in a buffer of any kind."""
    return len(buffer) if isinstance(buffer, bytes) else memoryview(buffer).nbytes


# ---- plain JSON, at C speed ----------------------------------------------------------------------------

_CONTAINERS = frozenset({dict, list, tuple})
_JSON_TYPES = frozenset({dict, list, tuple, str, int, float, bool, type(None)})
FLAT_TYPES = _JSON_TYPES - _CONTAINERS
_STR_ONLY = {str}
_TAG_BYTES = TAG.encode()
_FEW = 8


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a container holds nothing but plain JSON (lone surrogates are found when it is encoded)."""
    if type(value) is dict:
        if TAG in value:
            return False
        if len(value) > _FEW and not set(map(type, value)) <= _STR_ONLY:
            return False
        if len(value) <= _FEW:
            for key in value:
                if type(key) is not str:
                    return False
        value = value.values()
    return _few_plain(value, depth) if len(value) <= _FEW else _many_plain(value, depth)


def _few_plain(values: Iterable[Any], depth: int) -> bool:
    """One by one: less to do than sets for a handful."""
    for item in values:
        kind = type(item)
        if kind is int:
            if not -LARGEST_INT <= item <= LARGEST_INT:
                return False
        elif kind is float:
            if not isfinite(item):
                return False
        elif kind in _CONTAINERS:
            if depth >= MAX_DEPTH or not _is_plain(item, depth + 1):
                return False
        elif kind not in FLAT_TYPES:
            return False
    return True


def _many_plain(value: Iterable[Any], depth: int) -> bool:
    """Whether many values are nothing but plain JSON: a few passes at C speed where they are scalars."""
    kinds = set(map(type, value))
    if not kinds <= _JSON_TYPES or not _numbers_fit(value, kinds):
        return False
    if kinds.isdisjoint(_CONTAINERS):
        return True
    if depth >= MAX_DEPTH:
        return False
    return all(_is_plain(item, depth + 1) for item in value if type(item) in _CONTAINERS)


def _numbers_fit(values: Iterable[Any], kinds: set[type]) -> bool:
    """Whether every int is within ±(2^53 - 1) and every float finite."""
    if int in kinds:
        ints = values if len(kinds) == 1 else [item for item in values if type(item) is int]
        if max(ints) > LARGEST_INT or min(ints) < -LARGEST_INT:
            return False
    if float in kinds:
        floats = values if len(kinds) == 1 else [item for item in values if type(item) is float]
        return all(map(isfinite, floats))
    return True


def write_json(value: Any) -> bytes:
    """JSON values as text. They are to be of the types of JSON and no other: orjson would write dates, enums
    and whatever else it knows, and NaN as null."""
    return orjson.dumps(value)


def read_json(text: bytes) -> Any:
    """What `write_json` has written."""
    return orjson.loads(text)


def plain_json(value: Any) -> bytes | None:
    """The JSON of a plain value; None where a string in it has a lone surrogate."""
    try:
        return write_json(value)
    except orjson.JSONEncodeError:
        return None


def strict_json(value: Any) -> bytes | None:
    """The JSON of scalars in objects and lists, in one pass in C; None where one of them needs a tag or has
    no JSON, and also where one might: orjson writes NaN as null, and refuses the others itself."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        return None
    return None if b"null" in raw or _TAG_BYTES in raw else raw


def flat_json(value: dict[Any, Any]) -> bytes | None:
    """The JSON of a mapping whose values are of FLAT_TYPES; None where it is not plain: a key that is no
    string or is TAG, an int beyond LARGEST_INT, a float that is not finite, a lone surrogate.

    One pass in C and two searches, unless one of them finds something."""
    raw = strict_json(value)
    if raw is None:
        return plain_json(value) if _is_plain(value, 1) else None
    # A copy: what orjson returns keeps a kilobyte of the heap, and a thousand of them cost page faults.
    return bytes(memoryview(raw))


# ---- everything else -----------------------------------------------------------------------------------


class Converter:
    """Turns one value into JSON values and tags; `path` is where it is. Used once: an error ends it."""

    def __init__(self, root: str, ref_type: type | None) -> None:
        self.root = root
        self.ref_type = ref_type
        self.path: list[str | int] = []
        self.open: set[int] = set()  # ids of the containers around the present place
        self.buffers: list[Buffer] = []

    def run(self, value: Any) -> tuple[bytes, list[Buffer]]:
        return self.guarded(lambda: write_json(self.convert(value))), self.buffers

    def guarded(self, step: Callable[[], T]) -> T:
        """What `step` gives. Raises EncodingError, whatever the code of a value's class raises."""
        try:
            return step()
        except EncodingError:
            raise
        except RecursionError as error:
            raise self.error("nested too deep for what is left of this thread's stack") from error
        except Exception as error:
            raise self.error(f"cannot encode what is here: {type(error).__name__}: {error}") from error

    def error(self, what: str) -> EncodingError:
        parts = [f"[{p}]" if isinstance(p, int) else f"[{json.dumps(p)[:80]}]" for p in self.path]
        path = self.root + "".join(parts if len(parts) <= 20 else [*parts[:10], "...", *parts[-5:]])
        return EncodingError(f"{path}: {what}", path=path)

    def convert(self, value: Any) -> Any:
        kind = type(value)
        if kind in FLAT_TYPES or isinstance(value, str | int | float):
            return self.scalar(value)
        if isinstance(value, list | tuple):
            fields = getattr(value, "_asdict", None)  # a namedtuple has names to keep
            return self.items(value) if fields is None else self.mapping(fields())
        if isinstance(value, dict):
            return self.mapping(value)
        if self.ref_type is not None and isinstance(value, self.ref_type):
            raise self.error(
                f"cannot encode {kind_of(value)} here: send refs at the top level of the arguments, "
                '{"name": ref}, where Ray resolves them at the worker, or ray.get it first'
            )
        if isinstance(value, Unserializable):
            return {TAG: "unserializable", "type": value.type}
        if isinstance(value, Progress):
            fields = {"done": value.done, "total": value.total, "message": value.message}
            return {TAG: "progress", **{name: self.scalar(field) for name, field in fields.items()}}
        return self.foreign(value)

    def scalar(self, value: Any) -> Any:
        """Strings, numbers, booleans and None, and their subclasses as what they are made of."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, int):
            return self.integer(int.__index__(value))
        number = float.__float__(value)
        if isfinite(number):
            return number
        return {TAG: "float", "value": "nan" if isnan(number) else "inf" if number > 0 else "-inf"}

    def string(self, value: str) -> str:
        value = str.__str__(value)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(
                f"cannot encode a string with the lone surrogate {value[error.start]!r} at {error.start}; "
                'send bytes, or value.encode("utf-8", "replace").decode()'
            ) from error
        return value

    def integer(self, value: int) -> Any:
        if -LARGEST_INT <= value <= LARGEST_INT:
            return value
        try:
            return {TAG: "int", "value": str(value)}
        except ValueError as error:
            raise self.error(f"cannot encode an integer of {value.bit_length()} bits: {error}") from error

    def enter(self, value: Any) -> None:
        if len(self.open) >= MAX_DEPTH:
            raise self.error(f"cannot encode more than {MAX_DEPTH} levels of nesting; flatten it")
        if id(value) in self.open:
            raise self.error(f"cannot encode {kind_of(value)} that contains itself; break the cycle")
        self.open.add(id(value))

    def items(self, value: Any) -> list[Any]:
        kinds = set(map(type, value))
        if kinds <= FLAT_TYPES and str not in kinds and _numbers_fit(value, kinds):
            return list(value)
        self.enter(value)
        converted = []
        for index, item in enumerate(value):
            self.path.append(index)
            converted.append(self.convert(item))
            self.path.pop()
        self.open.discard(id(value))
        return converted

    def mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        self.enter(value)
        converted = {}
        for key, item in value.items():
            name = self.check_key(key)
            self.path.append(name)
            converted[name] = self.convert(item)
            self.path.pop()
        self.open.discard(id(value))
        if TAG in converted:
            return {TAG: "object", "items": [[key, item] for key, item in converted.items()]}
        return converted

    def check_key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise self.error(
                f"cannot encode the key {key!r} ({kind_of(key)}): keys are strings; use str(key)"
            )
        return self.string(key)

    def foreign(self, value: Any) -> Any:
        """Arrays, tables and bytes: a tag and a buffer."""
        encode = kinds.encoder(value)
        if encode is None and isinstance(value, Mapping):
            return self.mapping(value)
        if encode is None:
            raise self.error(f"cannot encode {kind_of(value)}: {hint_for(value)}")
        try:
            tag, buffer = kinds.carried(encode, value)
        except NotCarried as error:
            raise self.error(f"cannot encode {kind_of(value)}: {error}") from error
        if buffer is None:
            return self.convert(tag["value"])
        self.buffers.append(buffer)
        return {TAG: tag.pop("tag"), "buffer": len(self.buffers) - 1, **tag}
