"""How many calls travel as one: their arguments as one JSON array, their results as one envelope that
unpickles as the list of them.

Rules:
- Arguments are what they were when they were drawn. Objects of scalars are copied then, and become JSON
  together, in one pass in C.
- A failed item, or one whose result cannot be read, is its error in its place.
- The worker actor decodes nothing (see envelope.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import envelope as envelopes
from snakepit_ray.wire.codec.decoding import decode_values
from snakepit_ray.wire.codec.encoding import (
    FLAT_TYPES,
    Encoded,
    encode_args,
    flat_json,
    read_json,
    strict_json,
    write_json,
)
from snakepit_ray.wire.codec.encoding import nbytes as size_of
from snakepit_ray.wire.codec.envelope import Epoch, Info, Reply, portable_buffers
from snakepit_ray.wire.codec.tags import TAG

# One call's arguments as they were: an object of small scalars that nobody else holds, as most are, or its
# JSON, or its JSON with buffers and refs.
Item = dict[str, Any] | bytes | Encoded

RAISE, RETURN, APART = 0, 1, 2  # snakepit.v1.BatchErrors, here as numbers: the codec needs no protobuf

# ---- arguments -----------------------------------------------------------------------------------------

COPIED_BYTES = 1024  # of strings in an object that is kept as a copy, at most
COPIED_KEYS = 32
_NUMBERS = FLAT_TYPES - {str}


def encode_items(items: Iterable[Any], ref_type: type | None = None, begin: int = 0) -> Encoded:
    """The arguments of many calls: mappings with string keys, without refs, each taken when it is drawn.

    `begin` is the number of the first, for error messages. Raises EncodingError for the first that cannot be
    encoded."""
    taken = [encode_item(item, number, ref_type) for number, item in enumerate(items, begin)]
    for number, item in enumerate(taken, begin):
        refuse_refs(refs_of(item), number)
    return join_items(taken)


def encode_item(item: Any, number: int, ref_type: type | None = None) -> Item:
    """The arguments of one call of many, as they are now: what their owner changes later changes nothing. An
    object of small scalars is copied, and becomes JSON together with others.

    `number` is its number, for error messages. Raises EncodingError."""
    if type(item) is dict:
        size = 0
        # Not a function of its own: its call would cost as much as all of it.
        for name, value in item.items():
            kind = type(value)
            if type(name) is not str:
                break
            if kind not in _NUMBERS:
                if kind is not str or not value.isascii():  # ASCII is certain to have a JSON
                    break
                size += len(value)
        else:
            if size <= COPIED_BYTES and len(item) <= COPIED_KEYS:
                return item.copy()
        if FLAT_TYPES.issuperset(map(type, item.values())):
            raw = flat_json(item)
            if raw is not None:
                return raw
    encoded = encode_args(item, ref_type, f"items[{number}]")
    if not encoded.buffers and not encoded.refs:
        return encoded.json
    return encoded._replace(buffers=[_owned(buffer) for buffer in encoded.buffers])


def _owned(buffer: Any) -> Any:
    """The buffer as it is now: a copy of memory that somebody may write to."""
    view = memoryview(buffer)
    return buffer if view.readonly else view.tobytes()


def refs_of(item: Item) -> Sequence[tuple[str, Any]]:
    """The refs among the arguments of one call."""
    return item.refs if isinstance(item, Encoded) else ()


def refuse_refs(refs: Sequence[tuple[str, Any]], number: int) -> None:
    """Raises EncodingError where item `number` of a batch has refs: nobody would resolve them."""
    for name, _ in refs:
        path = f"items[{number}]" + (f'["{name}"]' if name else "")
        raise EncodingError(
            f"{path}: cannot encode an ObjectRef in a batch; pool.map and pool.call send such items one by "
            "one, or ray.get it first",
            path=path,
        )


def whole_item(item: Item) -> Encoded:
    """One item as the arguments of a call of its own."""
    if isinstance(item, dict):
        item = _json_of(item)
    return Encoded(item, [], []) if isinstance(item, bytes) else item


def item_bytes(item: Item) -> int:
    """Bytes of its JSON and its buffers; of one that is a copy no more than COPIED_BYTES, and not counted."""
    if isinstance(item, Encoded):
        return len(item.json) + sum(map(size_of, item.buffers))
    return len(item) if isinstance(item, bytes) else 0


def join_items(items: Sequence[Item]) -> Encoded:
    """The arguments of many calls as one payload: a JSON array, whose tags name the buffers of all."""
    if set(map(type, items)) == {dict}:
        raw = strict_json(items)
        if raw is not None:
            return Encoded(raw, [], [])
    texts, buffers = [], list[Any]()
    for item in items:
        if isinstance(item, dict):
            texts.append(_json_of(item))
        elif isinstance(item, bytes):
            texts.append(item)
        else:
            texts.append(rebased(item.json, len(buffers)) if buffers else item.json)
            buffers.extend(item.buffers)
    return Encoded(b"[" + b",".join(texts) + b"]", buffers, [])


def _json_of(item: dict[str, Any]) -> bytes:
    """The JSON of an object that is kept as a copy."""
    raw = flat_json(item)
    return encode_args(item).json if raw is None else raw


def rebased(text: bytes, base: int) -> bytes:
    """The JSON with each buffer's index higher by `base`."""
    value = read_json(text)
    _shift(value, base)
    return write_json(value)


def _shift(value: Any, base: int) -> None:
    if isinstance(value, dict):
        if TAG in value and "buffer" in value:  # a user's own key of that name is wrapped as an object
            value["buffer"] += base
        for inner in value.values():
            _shift(inner, base)
    elif isinstance(value, list):
        for inner in value:
            _shift(inner, base)


# ---- results -------------------------------------------------------------------------------------------


class BatchPart(NamedTuple):
    """The results of items that ran together: a JSON array of `size`, null where `failures` has an error."""

    json: bytes
    size: int
    buffers: Sequence[Any] = ()
    failures: Sequence[tuple[int, Exception]] = ()
    info: Info | None = None

    @property
    def ran(self) -> float:
        """Seconds that they took in their interpreter."""
        return self.info[6] if self.info is not None else 0.0


class BatchOutcome(NamedTuple):
    """What the pool's own parts get of a batch: results with None where an item failed, the errors by index,
    and what it cost: seconds in the interpreter, bytes of results."""

    values: list[Any]
    failed: list[tuple[int, Exception]]
    ran: float
    nbytes: int


class BatchEnvelope:
    """Encoded results of many calls; pickled, they arrive as their list (see BatchErrors in protos/)."""

    __slots__ = ("__weakref__", "command", "errors", "info", "parts", "runtime")

    def __init__(
        self,
        parts: Sequence[BatchPart],
        errors: int = RAISE,
        info: bool = False,
        runtime: str = "",
        command: str = "",
    ) -> None:
        self.parts = parts
        self.errors = errors
        self.info = info
        self.runtime = runtime
        self.command = command

    def __repr__(self) -> str:
        return f"<BatchEnvelope {self.count} results of {self.command!r}>"

    @property
    def count(self) -> int:
        """How many items have an outcome."""
        return sum(part.size for part in self.parts)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        parts = [
            tuple(part._replace(buffers=portable_buffers(part.buffers, protocol))) for part in self.parts
        ]
        return decode_parts, (parts, self.errors, self.info, self.runtime, self.command)

    def value(self) -> Any:
        """The list of results, as `errors` says. Raises EncodingError, or the first item's error."""
        values: list[Any] = []
        failed: list[tuple[int, Exception]] = []
        for part in self.parts:
            begin = len(values)
            results = self._results(part, begin, failed)
            if begin:
                values.extend(results)
            else:
                values = results
        return self._answer(values, failed)

    def _results(self, part: BatchPart, begin: int, failed: list[tuple[int, Exception]]) -> list[Any]:
        results, unreadable = decode_values(part.json, part.buffers, part.size, "results", begin)
        bad: dict[int, Exception] = {**unreadable, **dict(part.failures)}
        failed += [(begin + index, error) for index, error in bad.items()]
        if self.runtime:
            self._process(results, bad, begin, failed)
        if self.info and part.info is not None:
            worker_id, epoch, *rest = part.info
            rest[4] = part.ran / max(1, part.size)  # ran_s: they ran one after the other
            more: list[Any] = rest
            return [Reply(value, worker_id, Epoch(*epoch), *more) for value in results]
        return results

    def _process(
        self, results: list[Any], bad: Mapping[int, Exception], begin: int, failed: list[Any]
    ) -> None:
        process = envelopes.runtime_of(self.runtime).process_response
        for index, value in enumerate(results):
            if index not in bad:
                try:
                    results[index] = process(self.command, value)
                except Exception as error:  # noqa: BLE001 - user code: the failure of this item
                    failed.append((begin + index, error))

    def _answer(self, values: list[Any], failed: list[tuple[int, Exception]]) -> Any:
        for index, _ in failed:
            values[index] = None
        if self.errors == APART:
            nbytes = sum(len(part.json) + sum(map(size_of, part.buffers)) for part in self.parts)
            return BatchOutcome(values, failed, sum(part.ran for part in self.parts), nbytes)
        if self.errors == RAISE and failed:
            raise min(failed, key=lambda one: one[0])[1]
        for index, error in failed:
            values[index] = error
        return values


def decode_parts(parts: Sequence[Any], errors: int, info: bool, runtime: str, command: str) -> Any:
    """What pickle calls for a BatchEnvelope: its value; in a process that keeps them encoded, itself."""
    batch = BatchEnvelope([BatchPart(*part) for part in parts], errors, info, runtime, command)
    return envelopes.decoded(batch, batch.count, command)
