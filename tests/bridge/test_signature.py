"""Arguments against signatures: names as Python itself would judge, types as the annotations say."""

# ruff: noqa: UP006, UP007, UP035, UP045, UP037, F821 - annotations as people write them are what is tested

from __future__ import annotations

import inspect
from typing import Any, Dict, List, Literal, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bridge import harness  # puts the bridge on the path

from snakepit_bridge import SessionContext  # isort: skip
from snakepit_bridge.adapter.signature import Signature  # isort: skip
from snakepit_bridge.values.failures import InvalidArguments  # isort: skip

assert harness

NAMES = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True)


@given(NAMES, st.integers(0, 5), st.booleans(), NAMES)
def test_names_are_judged_as_python_judges_them(names, required: int, is_open: bool, given_names) -> None:
    parameters = [name if i < required else f"{name}=None" for i, name in enumerate(names)]
    source = f"lambda {', '.join(parameters + ['**kw'] * is_open)}: None"
    function = eval(source)
    args = dict.fromkeys(given_names, 1)
    try:
        inspect.signature(function).bind(**args)
        fits = True
    except TypeError:
        fits = False
    signature = Signature("f", function)
    if fits:
        assert signature.check(dict(args)) == args
    else:
        with pytest.raises(InvalidArguments) as failed:
            signature.check(dict(args))
        for name in set(names[:required]) - set(args):
            assert repr(name) in str(failed.value)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, -5, 2**80], [True, "1", 1.5, None, [1]]),
        (float, [1, 1.5], [True, "1", None]),
        (str, ["", "x"], [1, None, b"x"]),
        (bool, [True, False], [0, 1, "true"]),
        (list, [[], [1]], [{}, "x", 1]),
        (List[int], [[], ["not looked at"]], [{}, 1]),
        (list[int], [[1]], [{}]),
        (dict, [{}], [[], "x"]),
        (Dict[str, int], [{}], [[]]),
        (bytes, [b"x", bytearray(b"x")], ["x", 1]),
        (Optional[int], [1, None], ["x", True]),
        (Union[int, str], [1, "x"], [None, [], True]),
        (int | None, [1, None], ["x"]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, None]),
        (Optional[Literal["a"]], ["a", None, "anything"], []),
        (Any, [1, None, object()], []),
        (object, [1, None], []),
        ("NoSuchName", [1, None], []),
        ("int", [1], ["x"]),
        (None, [None], [1]),
    ],
)
def test_simple_types_are_checked(annotation, good: list, bad: list) -> None:
    def function(x): ...

    function.__annotations__ = {"x": annotation}
    signature = Signature("f", function)
    for value in good:
        assert signature.check({"x": value})["x"] is value
    for value in bad:
        with pytest.raises(InvalidArguments, match="f: x must be"):
            signature.check({"x": value})


def test_a_whole_float_becomes_an_int_and_an_int_stays_one_for_float() -> None:
    def function(n: int, x: float): ...

    checked = Signature("f", function).check({"n": 3.0, "x": 2})
    assert [type(value) for value in checked.values()] == [int, int]


def test_one_annotation_that_cannot_be_resolved_leaves_the_others() -> None:
    def function(x: int, y: "Missing"): ...

    signature = Signature("f", function)
    assert signature.check({"x": 1, "y": object()})
    with pytest.raises(InvalidArguments, match="x must be int"):
        signature.check({"x": "1", "y": 2})


def test_none_is_accepted_where_it_is_the_default() -> None:
    def function(x: int = None): ...  # noqa: RUF013 - as people write it

    assert Signature("f", function).check({"x": None}) == {"x": None}


@pytest.mark.parametrize("annotation", [SessionContext, "SessionContext", "snakepit_bridge.SessionContext"])
def test_the_context_is_found_by_its_type_or_its_name(annotation) -> None:
    def function(x, context): ...

    function.__annotations__ = {"context": annotation}
    signature = Signature("f", function)
    assert signature.context == "context"
    assert [p.name for p in signature.parameters] == ["x"]
    with pytest.raises(InvalidArguments, match="unknown 'context'"):
        signature.check({"x": 1, "context": 2})
    assert Signature("f", lambda ctx: None).context == "ctx"


def test_near_misses_are_named() -> None:
    def train(epochs: int, learning_rate: float = 0.1): ...

    with pytest.raises(InvalidArguments) as failed:
        Signature("train", train).check({"epoch": 3})
    assert str(failed.value) == (
        "train: missing 'epochs'; unknown 'epoch' (did you mean 'epochs'?). "
        "It takes epochs: int, learning_rate: float = 0.1"
    )


def test_positional_only_parameters_are_refused_at_load() -> None:
    def function(a, /): ...

    with pytest.raises(TypeError, match="positional-only"):
        Signature("f", function)


def test_defaults_are_described_where_json_has_them() -> None:
    def function(a=1, b=print, c=(1, "x"), d=float("nan"), e=2**60): ...

    described = {p.name: p.describe().get("default", "left out") for p in Signature("f", function).parameters}
    assert described == {"a": 1, "b": "left out", "c": (1, "x"), "d": "left out", "e": "left out"}
