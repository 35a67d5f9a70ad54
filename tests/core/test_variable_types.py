"""Types and constraints of session variables: what is taken, as what, and what is refused in which words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state.constraints import RULES, demanded, shape_of
from snakepit_ray.core.state.types import MEANING, Array, VariableType, accepted, inferred
from snakepit_ray.errors import ConstraintViolation, InvalidArguments, VariableTypeError

FLOATS = Array("float32", "f", (3,))
MATRIX = Array("int64", "i", (2, 3))
MASK = Array("bool", "b", (3,))

TAKEN: list[tuple[str, Any, Any]] = [
    ("float", 1, 1.0),
    ("float", -0.5, -0.5),
    ("float", math.inf, math.inf),
    ("integer", 3, 3),
    ("integer", 3.0, 3),
    ("integer", 2**80, 2**80),
    ("string", "", ""),
    ("boolean", False, False),
    ("choice", "adam", "adam"),
    ("module", "dspy.ChainOfThought", "dspy.ChainOfThought"),
    ("list", [1, "a", None], [1, "a", None]),
    ("dict", {"a": [1]}, {"a": [1]}),
    ("embedding", [1, 2.5], [1.0, 2.5]),
    ("embedding", [], []),
    ("embedding", FLOATS, FLOATS),
    ("tensor", MATRIX, MATRIX),
    ("tensor", MASK, MASK),
    ("tensor", {"shape": [2, 2], "data": [[1, 2], [3, 4]]}, {"shape": [2, 2], "data": [[1, 2], [3, 4]]}),
    ("tensor", {"shape": [], "data": [1]}, {"shape": [], "data": [1]}),
]
REFUSED: list[tuple[str, Any]] = [
    ("float", "1.0"),
    ("float", True),
    ("float", None),
    ("float", 10**400),
    ("integer", 3.5),
    ("integer", math.nan),
    ("integer", math.inf),
    ("integer", False),
    ("string", 1),
    ("string", None),
    ("boolean", "true"),
    ("boolean", 1),
    ("choice", 1),
    ("module", "not a name"),
    ("module", ".relative"),
    ("list", (1, 2)),
    ("list", "abc"),
    ("dict", {1: "a"}),
    ("dict", []),
    ("embedding", [1, "a"]),
    ("embedding", [True]),
    ("embedding", MATRIX),
    ("embedding", MASK),
    ("tensor", [1, 2]),
    ("tensor", {"shape": [2, 2], "data": [1, 2, 3]}),
    ("tensor", {"shape": [-1], "data": []}),
    ("tensor", {"shape": [True], "data": [1]}),
    ("tensor", {"shape": [1], "data": ["a"]}),
    ("tensor", {"shape": [1], "data": [1], "more": 1}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("type_", "value", "kept"), TAKEN)
def test_what_a_type_takes(type_: str, value: Any, kept: Any) -> None:
    found = accepted(VariableType(type_), value, "v")
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(("type_", "value"), REFUSED)
def test_what_a_type_refuses(type_: str, value: Any) -> None:
    with pytest.raises(VariableTypeError) as refused:
        accepted(VariableType(type_), value, "speed")
    assert refused.value.variable == "speed" and refused.value.expected == type_
    assert MEANING[VariableType(type_)] in str(refused.value) and len(str(refused.value)) < 300


@given(value=JSON, type_=st.sampled_from(list(VariableType)))
def test_what_is_kept_is_kept_as_it_is_when_it_is_written_again(value: Any, type_: VariableType) -> None:
    try:
        kept = accepted(type_, value, "v")
    except VariableTypeError:
        return
    again = accepted(type_, kept, "v")
    assert repr(again) == repr(kept)  # NaN is not equal to itself


@given(value=JSON)
def test_the_type_that_is_inferred_takes_the_value(value: Any) -> None:
    if value is None:
        with pytest.raises(VariableTypeError, match="None"):
            inferred(value)
    else:
        accepted(inferred(value), value, "v")


BREAKS: list[tuple[str, dict[str, Any], Any, str]] = [
    ("float", {"min": 0, "max": 1}, 1.5, "max"),
    ("float", {"min": 0}, -1e-9, "min"),
    ("float", {"max": 1}, math.inf, "max"),
    ("float", {"min": 0}, math.nan, "min"),
    ("float", {"max": 0}, math.nan, "max"),
    ("integer", {"min": 1}, 0, "min"),
    ("string", {"min_length": 2}, "a", "min_length"),
    ("string", {"max_length": 2}, "abc", "max_length"),
    ("string", {"pattern": "^[a-z]+$"}, "A", "pattern"),
    ("string", {"pattern": "^(a+)+$"}, "a" * 10_000 + "b", "pattern"),
    ("string", {"pattern": "a"}, "a" * 4_000_000, "pattern"),
    ("string", {"enum": ["a", "b"]}, "c", "enum"),
    ("choice", {"choices": ["sgd", "adam"]}, "rmsprop", "choices"),
    ("module", {"allowed_modules": ["Predict"]}, "ReAct", "allowed_modules"),
    ("list", {"max_length": 1}, [1, 2], "max_length"),
    ("dict", {"min_length": 1}, {}, "min_length"),
    ("embedding", {"dimensions": 2}, [1.0], "dimensions"),
    ("embedding", {"dimensions": 2}, FLOATS, "dimensions"),
    ("tensor", {"shape": [3, 2]}, MATRIX, "shape"),
    ("tensor", {"shape": [None]}, MATRIX, "shape"),
]
MEETS: list[tuple[str, dict[str, Any], Any]] = [
    ("float", {"min": 0}, math.inf),
    ("float", {"min": 0, "max": 1}, 1),
    ("string", {"pattern": "b"}, "abc"),
    ("choice", {"choices": ["sgd", "adam"]}, "adam"),
    ("choice", {}, "whatever"),
    ("embedding", {"dimensions": 3}, FLOATS),
    ("tensor", {"shape": [None, 3]}, MATRIX),
    ("tensor", {"shape": [2]}, {"shape": [2], "data": [1, 2]}),
]


@pytest.mark.parametrize(("type_", "constraints", "value", "rule"), BREAKS)
def test_what_breaks_a_constraint(type_: str, constraints: dict[str, Any], value: Any, rule: str) -> None:
    demand = demanded(type_, constraints, "v")
    with pytest.raises(ConstraintViolation, match=rule) as broken:
        demand.accepted(value, "v")
    assert (broken.value.rule, broken.value.bound) == (rule, constraints[rule])


@pytest.mark.parametrize(("type_", "constraints", "value"), MEETS)
def test_what_meets_a_constraint(type_: str, constraints: dict[str, Any], value: Any) -> None:
    demanded(type_, constraints, "v").accepted(value, "v")


NONE_SUCH: list[tuple[str, dict[str, Any], str]] = [
    ("flaot", {}, "did you mean 'float'"),
    ("float", {"minimum": 1}, "no constraint 'minimum'.*max, min"),
    ("boolean", {"min": 1}, "it has: none"),
    ("float", {"min": "1"}, "min must be a number"),
    ("float", {"max": math.nan}, "max must be a number"),
    ("float", {"min": 2, "max": 1}, "min=2 is above max=1"),
    ("string", {"min_length": -1}, "an integer from 0"),
    ("string", {"pattern": "("}, "a regular expression"),
    ("string", {"pattern": "a" * 1001}, "at most 1000"),
    ("string", {"pattern": r"(a)\1"}, "no references back"),
    ("string", {"pattern": "(?=a)"}, "no looking ahead"),
    ("string", {"pattern": "(a{100}){100}"}, "repetition"),
    ("string", {"pattern": r"\pL\pL"}, "too large"),
    ("choice", {"choices": []}, "at least one"),
    ("choice", {"choices": "ab"}, "a list of strings"),
    ("tensor", {"shape": [1.5]}, "a list of lengths"),
]


@pytest.mark.parametrize(("type_", "constraints", "words"), NONE_SUCH)
def test_what_cannot_be_demanded(type_: str, constraints: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArguments, match=words):
        demanded(type_, constraints, "v")


@given(low=st.floats(allow_nan=False), high=st.floats(allow_nan=False), value=st.floats())
def test_bounds_are_those_of_the_numbers(low: float, high: float, value: float) -> None:
    low, high = min(low, high), max(low, high)
    demand = demanded("float", {"min": low, "max": high}, "v")
    try:
        demand.accepted(value, "v")
        taken = True
    except ConstraintViolation:
        taken = False
    assert taken == (low <= value <= high)


def test_each_type_has_its_words_and_rules() -> None:
    assert set(RULES) == set(MEANING) == set(VariableType)
    assert shape_of([1.0, 2.0]) == (2,)
