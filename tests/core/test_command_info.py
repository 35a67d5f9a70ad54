"""A ready line's words become the JSON schema of a command's arguments."""

from __future__ import annotations

import pytest

from snakepit_ray.core.worker.command_info import info_of, of_words
from snakepit_ray.core.worker.handshake import command_of


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("int", {"type": "integer"}),
        ("float or None", {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        ("one of 'a', 2, None", {"enum": ["a", 2, None]}),
        ("one of <a>", {}),
        ("bytes", {}),
        ("list or bytes", {}),
        ("", {}),
    ],
)
def test_words_of_a_type(words: str, schema: dict) -> None:
    assert of_words(words) == schema


def test_a_command() -> None:
    first = {"name": "a", "required": True, "type": "int"}
    params = [first, {"name": "b", "required": False, "default": None}]
    info = info_of(command_of("f", {"params": params, "stream": True, "timeout": 5, "doc": "Does."}))
    assert (info.name, info.doc, info.is_stream) == ("f", "Does.", True)
    assert (info.is_idempotent, info.timeout) == (False, 5.0)
    assert info.parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"default": None}},
        "additionalProperties": False,
        "required": ["a"],
    }
    assert info_of(command_of("g", {"open": True})).parameters["additionalProperties"] is True
