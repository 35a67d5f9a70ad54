"""Values for the examples of the value table (bridge/conformance/python/values.json)."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sqlite3
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

Pair = collections.namedtuple("Pair", "left right")


class Items(list[Any]):
    pass


class Text(str):
    pass


class Whole(int):
    pass


class Real(float):
    pass


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    YES = "yes"


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    """A class variable and an argument of its making are no fields."""

    x: int
    y: list[int]
    count: ClassVar[int] = 3
    scale: dataclasses.InitVar[int] = 1


class Model:
    """What a pydantic model has."""

    def model_dump(self) -> dict[str, Any]:
        return {"kind": "model"}


class WithToDict:
    def to_dict(self) -> dict[str, Any]:
        return {"a": (1,)}


class WithArray:
    """An object that can be read as an array, and may be more."""

    unit = "m"

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.arange(3.0)


class Labelled(np.ndarray):
    """An array with something beside its elements."""


def with_units() -> np.ndarray:
    made: Any = np.arange(3.0).view(Labelled)
    made.units = "m"
    return made


class Dlpack:
    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    def __dlpack__(self, **options: Any) -> Any:
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()


class Stream:
    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def attrs_point() -> Any:
    import attrs

    return attrs.make_class("Point", ["x"])(1)


class Proxy:
    """Stands for another object, and there is none."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("there is no request now")

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise AttributeError("__class__")


def database_row() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("select 1 as a").fetchone()
    finally:
        connection.close()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


def looped() -> list[Any]:
    inner: dict[str, Any] = {}
    inner["again"] = [inner]
    return [inner]


def rich_table() -> pa.Table:
    """Whatever Arrow has, in chunks, with two columns of one name."""
    union = pa.UnionArray.from_sparse(
        pa.array([0, 1], pa.int8()), [pa.array([1, None]), pa.array(["x", "y"])]
    )
    arrays = [
        pa.chunked_array([[2**53 + 1], [None]], pa.int64()),
        pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]),
        pa.chunked_array([union]),
        pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
        pa.array(["x", None], pa.large_string()),
        pa.array([[1.5], None], pa.large_list(pa.float64())),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
        pa.array([None, b"\xff"], pa.binary()),
    ]
    names = ["n", "d", "u", "t", "s", "l", "e", "n"]
    return pa.Table.from_arrays(arrays, names).replace_schema_metadata({"made": "here"})


def frame() -> Any:
    import pandas as pd

    columns = {
        "n": pd.array([2**53 + 1, None], dtype="Int64"),
        "c": pd.Categorical(["a", "b"], ["b", "a"], ordered=True),
        "t": pd.to_datetime(["2026-01-01T00:00:00.123456789", None]).tz_localize("Europe/Berlin"),
    }
    made = pd.DataFrame(columns, index=pd.Index(["x", "y"], name="label"))
    made.attrs = {"unit": "m"}
    return made


def frame_with_attrs(attrs: dict[Any, Any]) -> Any:
    import pandas as pd

    made = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    made.attrs = attrs
    return made


def own_frame() -> Any:
    import pandas as pd

    return type("OwnFrame", (pd.DataFrame,), {"__module__": __name__})({"a": [1]})
