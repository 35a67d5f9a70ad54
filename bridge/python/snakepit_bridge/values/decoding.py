"""How JSON with tagged buffers becomes Python values again (bridge/README.md, section 4).

- Whatever the data is, the answer is a value or an error that names the path.
- Nothing is unpickled, imported or executed for it.
- A payload without tags and escapes costs no more than its JSON.
"""

from __future__ import annotations

import json

from snakepit_bridge.values.failures import InvalidArguments
from snakepit_bridge.values.tags import MAX_DEPTH, TAG, Progress, Refused, Unserializable, as_bytes


def _refuse_constant(word: str):
    raise ValueError(f"{word} is not JSON: non-finite floats have a tag")


_read = json.JSONDecoder(parse_constant=_refuse_constant).decode
_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def decode(data: bytes, buffers=(), *, root: str = "args"):
    """The value of a payload; `buffers[i]` gives the bytes of buffer i. Raises InvalidArguments naming the
    path, whatever the data is.
    """
    try:
        value = _read(str(data, "utf-8"))
        # A tag, or a surrogate, can only be there if one of these is: an escape may spell either.
        if b"$snakepit" in data or b"\\u" in data:
            return _Back(buffers).value(value, 0)
        return value
    except Refused as refused:
        raise InvalidArguments(refused.text(root).replace("cannot encode", "cannot decode")) from None
    except RecursionError:
        raise InvalidArguments(f"{root}: cannot decode JSON that is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON
        raise InvalidArguments(f"{root}: cannot decode the payload: {error}") from None


def decode_items(data: bytes, buffers=()) -> list:
    """The items of a batch's payload, a JSON array; one that cannot be decoded is its InvalidArguments.

    Raises InvalidArguments for what is no array.
    """
    try:
        items = _read(str(data, "utf-8"))
    except RecursionError:
        raise InvalidArguments("args: cannot decode JSON that is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON
        raise InvalidArguments(f"args: cannot decode the payload: {error}") from None
    if type(items) is not list:
        raise InvalidArguments(f"args: a batch is an array of objects, got {type(items).__name__}")
    if b"$snakepit" in data or b"\\u" in data:
        return [_decoded_item(item, buffers) for item in items]
    return items


def _decoded_item(item, buffers):
    try:
        return _Back(buffers).value(item, 0)
    except Refused as refused:
        return InvalidArguments(refused.text("args").replace("cannot encode", "cannot decode"))
    except RecursionError:
        return InvalidArguments("args: cannot decode JSON that is nested too deeply")


class _Back:
    """One parsed JSON value on its way back to Python."""

    def __init__(self, buffers) -> None:
        self._buffers = buffers

    def value(self, value, depth: int):
        kind = type(value)
        if kind is str:
            if not value.isascii():
                _check_string(value)
            return value
        if kind is not dict and kind is not list:
            return value
        if depth >= MAX_DEPTH:
            raise Refused(f"cannot decode more than {MAX_DEPTH} levels of nesting")
        if kind is list:
            return [self._step(item, depth, index) for index, item in enumerate(value)]
        if TAG in value:
            return self._tagged(value, depth)
        for key in value:
            _check_string(key)
        return {key: self._step(item, depth, key) for key, item in value.items()}

    def _step(self, item, depth: int, step):
        try:
            return self.value(item, depth + 1)
        except Refused as refused:
            raise refused.at(f"[{json.dumps(step)}]") from None

    def _tagged(self, tag: dict, depth: int):
        name = tag[TAG]
        reader = _READERS.get(name) if type(name) is str else None
        if reader is None:
            known = ", ".join(sorted(_READERS))
            raise Refused(f"cannot decode the tag {name!r:.80}: there are {known}")
        fields, method = reader
        if tag.keys() != fields:
            expected = ", ".join(sorted(fields - {TAG}))
            raise Refused(f"cannot decode the tag {name!r} with {sorted(tag)!r:.200}: it takes {expected}")
        return method(self, tag, depth)

    def _float(self, tag: dict, depth: int) -> float:
        word = tag["value"]
        if type(word) is not str or word not in _FLOATS:
            raise Refused(f"cannot decode the float {word!r:.80}: only nan, inf and -inf are tagged")
        return _FLOATS[word]

    def _int(self, tag: dict, depth: int) -> int:
        digits = tag["value"]
        if type(digits) is not str or not digits.isascii() or not digits.removeprefix("-").isdigit():
            raise Refused(f"cannot decode the integer {digits!r:.80}: decimal digits are expected")
        try:
            return int(digits)
        except ValueError as error:  # Python's own bound on decimal digits
            raise Refused(f"cannot decode an integer of {len(digits)} digits: {error}") from None

    def _bytes(self, tag: dict, depth: int) -> bytes:
        return as_bytes(self._buffer(tag))

    def _tensor(self, tag: dict, depth: int):
        from snakepit_bridge.tensors import tensors

        return _made(tensors, tensors.decode_tensor, self._buffer(tag), tag["dtype"], tag["shape"])

    def _table(self, tag: dict, depth: int):
        from snakepit_bridge.tensors import tensors

        return _made(tensors, tensors.decode_table, self._buffer(tag))

    def _object(self, tag: dict, depth: int) -> dict:
        items = tag["items"]
        if type(items) is not list or not all(
            type(i) is list and len(i) == 2 and type(i[0]) is str for i in items
        ):
            raise Refused("cannot decode the tag 'object': its items are pairs of a string and a value")
        return {self.value(key, 0): self._step(item, depth, key) for key, item in items}

    def _marker(self, tag: dict, depth: int) -> Unserializable:
        if type(tag["type"]) is not str:
            raise Refused("cannot decode the tag 'unserializable': its type is a string")
        return Unserializable(tag["type"])

    def _progress(self, tag: dict, depth: int) -> Progress:
        done, total = (self.value(tag[name], depth) for name in ("done", "total"))
        message = tag["message"]
        numbers = type(done) in (int, float) and (total is None or type(total) in (int, float))
        if not numbers or type(message) is not str:
            raise Refused("cannot decode the tag 'progress': it has two numbers and a string")
        return Progress(done, total, self.value(message, depth))

    def _buffer(self, tag: dict):
        index = tag["buffer"]
        if type(index) is not int or not 0 <= index < len(self._buffers):
            raise Refused(f"cannot decode buffer {index!r:.80}: there are {len(self._buffers)}")
        return self._buffers[index]


def _made(tensors, make, *parts):
    try:
        return make(*parts)
    except tensors.NotCarried as error:
        raise Refused(f"cannot decode: {error}") from None


def _check_string(value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(f"cannot decode a string with a lone surrogate at {error.start}") from None


_READERS = {
    "float": (frozenset({TAG, "value"}), _Back._float),
    "int": (frozenset({TAG, "value"}), _Back._int),
    "bytes": (frozenset({TAG, "buffer"}), _Back._bytes),
    "tensor": (frozenset({TAG, "buffer", "dtype", "shape"}), _Back._tensor),
    "table": (frozenset({TAG, "buffer"}), _Back._table),
    "object": (frozenset({TAG, "items"}), _Back._object),
    "unserializable": (frozenset({TAG, "type"}), _Back._marker),
    "progress": (frozenset({TAG, "done", "total", "message"}), _Back._progress),
}
