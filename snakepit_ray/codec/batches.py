"""Knows how many calls travel as one: their arguments as one JSON array, their results as one envelope that
unpickles as the list of them.

Rules: plain arguments are checked in a few passes at C speed, whatever their number; a failed item, or one
whose result cannot be read, is its error in its place; the worker actor decodes nothing (see envelope.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from snakepit_ray.codec import envelope as envelopes
from snakepit_ray.codec.decoding import decode_values
from snakepit_ray.codec.encoding import Converter, Encoded, many_plain, plain_json, write_json
from snakepit_ray.codec.encoding import nbytes as size_of
from snakepit_ray.codec.envelope import Epoch, Info, Reply, portable_buffers
from snakepit_ray.codec.hints import kind_of
from snakepit_ray.codec.tags import TAG

RAISE, RETURN, APART = 0, 1, 2  # snakepit.v1.BatchErrors, here as numbers: the codec needs no protobuf

# ---- arguments -----------------------------------------------------------------------------------------


def encode_items(items: Sequence[Any], ref_type: type | None = None, begin: int = 0) -> Encoded:
    """The arguments of many calls: mappings with string keys, without refs. `begin` is the number of the
    first, for error messages. Raises EncodingError for the first that cannot be encoded."""
    if _all_plain(items):
        raw = plain_json(items)
        if raw is not None:
            return Encoded(raw, [], [])
    converter = Converter("items", ref_type)
    converted = []
    for index, item in enumerate(items, begin):
        converter.path = [index]
        if not isinstance(item, Mapping):
            raise converter.error(
                f"cannot encode {kind_of(item)}: each call takes a mapping from names to values"
            )
        converted.append(converter.guarded(partial(converter.mapping, item)))
    return Encoded(converter.guarded(partial(write_json, converted)), converter.buffers, [])


def _all_plain(items: Sequence[Any]) -> bool:
    if set(map(type, items)) != {dict}:
        return False
    keys = set(chain.from_iterable(items))
    if TAG in keys or not set(map(type, keys)) <= {str}:
        return False
    return many_plain(list(chain.from_iterable(map(dict.values, items))), 1)


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
