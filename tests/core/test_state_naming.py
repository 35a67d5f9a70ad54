"""Names of variables, ids of sessions and programs, metadata: what is taken, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state import naming
from snakepit_ray.errors import InvalidArguments


@pytest.mark.parametrize("name", ["a", "A1", "0", "learning_rate", "a-b.c", "x" * 64])
def test_names_of_variables(name: str) -> None:
    assert naming.variable_name(name) == name
    assert naming.variable_names([name, name]) == (name, name)


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "_a", ".a", "a b", "a*", "\u00e9", "a\n", 1, None, b"a", ["a"]]
)
def test_what_is_no_name_of_a_variable(name: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"the name of a variable: got .* \(\w+\), expected 1 to 64"):
        naming.variable_name(name)


def test_a_string_is_no_list_of_names() -> None:
    with pytest.raises(InvalidArguments, match=r"got 'loss' \(str\), expected a list of names"):
        naming.variable_names("loss")


@pytest.mark.parametrize("check", [naming.session_id, naming.program_id, naming.pattern])
def test_ids_and_patterns(check: Callable[[Any], str]) -> None:
    assert check("user 1/\u00e9*") == "user 1/\u00e9*"
    assert check("\u00e9" * 512)
    for wrong in ("", "\u00e9" * 513, "\ud800", 1, None, b"a"):
        with pytest.raises(InvalidArguments, match=r"expected a string of 1 to 1024 bytes of UTF-8"):
            check(wrong)


def test_what_is_watched() -> None:
    assert naming.patterns("loss*") == ("loss*",)
    assert naming.patterns(iter(["a", "b"])) == ("a", "b")
    for wrong in ([], 1, None, [""]):
        with pytest.raises(InvalidArguments):
            naming.patterns(wrong)


def test_metadata_is_a_copy() -> None:
    given: dict[str, Any] = {"a": [1, (2.5, None)], "b": {"c": True}}
    kept = naming.metadata(given)
    given["a"].append(2)
    assert kept == {"a": [1, [2.5, None]], "b": {"c": True}}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "got \\[\\] \\(list\\), expected a mapping"),
        ({1: 2}, "the key 1 \\(int\\) is no string"),
        ({"a": [{None: 2}]}, "the key None"),
        ({"a": {1}}, "not JSON serializable"),
        ({"a": float("nan")}, "not JSON compliant"),
        ({"a": "\ud800"}, None),
        ({str(number): 1 for number in range(33)}, "got 33 entries, .* at most 32"),
        ({"a": "x" * 4096}, "bytes, expected .* 4,096 bytes"),
    ],
)
def test_what_is_no_metadata(value: Any, says: str | None) -> None:
    if says is None:  # JSON has a way to write it
        assert naming.metadata(value) == value
        return
    with pytest.raises(InvalidArguments, match=says):
        naming.metadata(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=4))
def test_metadata_is_kept_as_it_is(value: dict[str, Any]) -> None:
    assert naming.metadata(value) == value
