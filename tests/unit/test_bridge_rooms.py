"""The rooms of the Python bridge: those that the contract names for every language, and no circle in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "bridge/python/snakepit_bridge"
CONTRACT = ROOT / "bridge/README.md"
# Generated messages, adapters that ship, and import paths that adapters in the wild use.
NO_ROOMS = {"_pb", "adapters", "core", "session_context", "variable_aware_mixin"}


def named() -> list[str]:
    """The rooms that the contract lists, from the top down."""
    section = CONTRACT.read_text().partition("## 1. ")[0]
    return re.findall(r"^\| \*\*(\w+)\*\* \|", section, re.MULTILINE)


def modules() -> dict[str, Path]:
    """Every module of the bridge by its dotted name, without the package's own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """The modules of the bridge that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (inside(alias.name) for alias in node.names if belongs(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = absolute(name, node)
            if belongs(base):
                for alias in node.names:
                    whole = inside(f"{base}.{alias.name}")
                    yield whole if whole in MODULES else inside(base)


def absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = ["snakepit_bridge", *name.split(".")[: -node.level]]
    return ".".join([*package, *([node.module] if node.module else [])])


def belongs(module: str) -> bool:
    return module.partition(".")[0] == "snakepit_bridge"


def inside(module: str) -> str:
    return module.partition(".")[2]


GRAPH = {name: set(imported(name)) for name in MODULES}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_the_rooms_are_those_of_the_contract() -> None:
    rooms = {room(name) for name in MODULES if name} - NO_ROOMS
    assert rooms == set(named())
    assert len(named()) == len(rooms)


def test_every_module_is_in_a_room() -> None:
    flat = {path.stem for path in PACKAGE.glob("*.py")}
    assert flat == {"__init__", "core", "session_context", "variable_aware_mixin"}


def test_no_modules_form_a_circle() -> None:
    assert GRAPH["values.encoding"] > {"values.conversions"}, "imports in functions count, too"
    assert GRAPH["tensors.kinds"] == {"tensors.tensors"}, "relative ones, too"
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in named()])
def test_rooms_import_down_only(name: str) -> None:
    above = named()[: named().index(room(name))]
    assert [other for other in GRAPH[name] if room(other) in above] == []


def test_a_circle_would_be_seen() -> None:
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({**GRAPH, "values.tags": {"values.encoding"}}).static_order())
