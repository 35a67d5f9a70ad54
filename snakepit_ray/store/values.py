"""Values of variables as the store keeps them: encoded, and looked at only for their types and
constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from snakepit_ray.core.state.asked import (
    Changes,
    Data,
    Found,
    Put,
    Question,
    StoreProgram,
    VariableChange,
    VariableInfo,
    Versioned,
)
from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.core.state.writes import Change, Register, Set
from snakepit_ray.errors import PayloadTooLarge
from snakepit_ray.store.files import LARGE
from snakepit_ray.wire.codec.encoding import encode_value
from snakepit_ray.wire.codec.outline import outline

LARGEST_JSON = 4 * 1024 * 1024  # bytes: reading it holds up the questions of everybody


def accepted(demand: Demand, data: Data, name: str) -> Data:
    """The value as the variable `name` keeps it: itself, or what it is converted to.

    Raises VariableTypeError, ConstraintViolation, EncodingError, PayloadTooLarge."""
    check_size(data, f"the value of variable {name!r}")
    value = outline(data.json, data.buffers, name)
    taken = demand.accepted(value, name)
    return data if _is_same(taken, value) else Data(encode_value(taken).json)


def check_size(data: Data, what: str) -> None:
    """Raises PayloadTooLarge where `what` has so much JSON that reading it would hold up the store."""
    if len(data.json) > LARGEST_JSON:
        raise PayloadTooLarge(
            f"{what} has {len(data.json):,} bytes of JSON, the limit is {LARGEST_JSON:,}; pass bulk data as "
            "numpy arrays, Arrow tables or bytes, which are kept beside it, or split it into several "
            "variables",
            size=len(data.json),
            limit=LARGEST_JSON,
        )


def _is_same(taken: Any, value: Any) -> bool:
    """Whether nothing was converted. A list is made anew in any case, of the same elements."""
    if isinstance(taken, list) and isinstance(value, list):
        return all(one is other for one, other in zip(taken, value, strict=True))
    return taken is value


def refusal(question: Question) -> PayloadTooLarge | None:
    """Why a program is too large to be kept; None where it is not. Variables are looked at when their turn
    comes."""
    if not isinstance(question, StoreProgram):
        return None
    try:
        check_size(question.program, f"program {question.id!r}")
    except PayloadTooLarge as error:
        return error
    return None


def changed(question: Question, change: Callable[[Data], Data]) -> Question:
    """The question with other values in it, where it has values."""
    if isinstance(question, StoreProgram):
        return replace(question, program=change(question.program))
    if isinstance(question, Put):
        return replace(question, changes=tuple(_changed(one, change) for one in question.changes))
    return question


def _changed(one: Change, change: Callable[[Data], Data]) -> Change:
    return replace(one, value=change(one.value)) if isinstance(one, Set | Register) else one


def is_in_memory(question: Question) -> bool:
    """Whether nothing in the question is memory of somebody else."""
    return all(type(buffer) is bytes for data in _data(question) for buffer in data.buffers)


def _data(question: Question) -> Iterator[Data]:
    if isinstance(question, StoreProgram):
        yield question.program
    elif isinstance(question, Put):
        yield from (one.value for one in question.changes if isinstance(one, Set | Register))


def in_memory(data: Data) -> Data:
    """The value with its data in this process: a buffer may be memory of somebody who ends."""
    return Data(data.json, tuple(bytes(memoryview(buffer)) for buffer in data.buffers))


def opened(answer: Any, open_: Callable[[Data], Data]) -> Any:
    """The answer with the data of its values, which `open_` gives. Raises what it raises."""
    if isinstance(answer, Found):
        return answer._replace(values={name: _opened(one, open_) for name, one in answer.values.items()})
    if isinstance(answer, Changes):
        return answer._replace(changes=tuple(_changed_opened(one, open_) for one in answer.changes))
    if isinstance(answer, Data):
        return open_(answer) if answer.buffers else answer
    if type(answer) is tuple:  # a history, or a list of variables
        return tuple(_opened_one(one, open_) for one in answer)
    return answer


def _opened(one: Versioned, open_: Callable[[Data], Data]) -> Versioned:
    return one._replace(value=open_(one.value)) if one.value.buffers else one


def _changed_opened(one: VariableChange, open_: Callable[[Data], Data]) -> VariableChange:
    return one if one.newest is None else one._replace(newest=_opened(one.newest, open_))


def _opened_one(one: Any, open_: Callable[[Data], Data]) -> Any:
    if isinstance(one, Versioned):
        return _opened(one, open_)
    return replace(one, newest=_opened(one.newest, open_)) if isinstance(one, VariableInfo) else one


def is_large(question: Question) -> bool:
    """Whether a value in the question has a buffer that is kept as a file."""
    return any(memoryview(buffer).nbytes >= LARGE for data in _data(question) for buffer in data.buffers)
