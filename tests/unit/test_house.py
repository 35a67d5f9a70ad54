"""The house's rules that no linter sees: what imports load, which names resolve, what is generated twice."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snakepit_ray
from snakepit_ray import core, errors
from snakepit_ray.config import PoolConfig

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {"ray", "grpc", "google", "numpy", "pyarrow", "psutil"}
IMPURE = {*HEAVY, "asyncio", "subprocess", "socket", "random", "threading", "multiprocessing", "concurrent"}
IMPORT_BOUND_SECONDS = 3 * 0.050  # three times what is wanted: other processes share the CPUs


def loaded_by(statement: str) -> set[str]:
    """Names of all modules that a fresh Python has after `statement` and had not before."""
    script = f"import sys; before = set(sys.modules)\n{statement}\nprint(*sorted(set(sys.modules) - before))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(ran.stdout.split())


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def core_modules() -> list[str]:
    return [
        "snakepit_ray.core",
        *(module.name for module in pkgutil.walk_packages(core.__path__, "snakepit_ray.core.")),
    ]


@pytest.mark.parametrize("module", core_modules())
def test_core_is_pure(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert tops(loaded) & IMPURE == set()
    outside = {
        name
        for name in loaded
        if name.startswith("snakepit_ray.") and not name.startswith("snakepit_ray.core")
    }
    assert not outside - {name for name in outside if name.startswith("snakepit_ray.errors")}


TAKES_APART = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix"}
KNOW_IDS = {"core/work/request_ids.py", "core/pool/worker_ids.py", "port/naming.py"}  # the modules that do


def is_id(node: ast.AST) -> bool:
    """Whether an expression is an id by its name: `request.id`, `worker_id`."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name == "id" or name.endswith("_id")


def id_troubles(tree: ast.AST) -> list[int]:
    """The lines where an id is taken apart as a string, or given by an f-string."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in TAKES_APART and is_id(node.func.value):
                found.append(node.lineno)
            found += [node.lineno for one in node.keywords if one.arg == "id" and is_f_string(one.value)]
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            if isinstance(node.ops[0], ast.In) and is_id(node.comparators[0]):
                found.append(node.lineno)
        elif isinstance(node, ast.Assign) and is_f_string(node.value) and any(map(is_id, node.targets)):
            found.append(node.lineno)
    return found


def is_f_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr)


def test_only_the_modules_of_ids_take_one_apart_or_compose_one() -> None:
    package = ROOT / "snakepit_ray"
    troubles = {
        name: lines
        for path in package.rglob("*.py")
        if (name := path.relative_to(package).as_posix()) not in KNOW_IDS
        and (lines := id_troubles(ast.parse(path.read_text())))
    }
    assert troubles == {}


@pytest.mark.parametrize(
    "code",
    [
        "request.id.partition('/')",
        "worker_id.rpartition('-')[2]",
        "any(request_id.startswith(one) for one in many)",
        "'/' in request.id",
        "request.id = f'{whole}/{part}'",
        "pb.Request(id=f'{caller}-{number}')",
    ],
)
def test_an_id_that_is_taken_apart_elsewhere_is_found(code: str) -> None:
    assert id_troubles(ast.parse(code)) == [1]


def test_the_readmes_map_has_every_room_and_no_other() -> None:
    lines = (ROOT / "README.md").read_text().partition("## The map")[2].split("```")[1].splitlines()
    mapped = {line.split()[0] for line in lines if line.startswith("  ")}
    package = ROOT / "snakepit_ray"
    files = (path.relative_to(package) for path in package.rglob("*") if "__pycache__" not in path.parts)
    rooms = {f"{path.parts[0]}/" for path in files if len(path.parts) > 1}
    assert mapped == rooms


def test_nobody_outside_reaches_through_a_supervisor() -> None:
    """Its users see names of its own: what is inside may be arranged in another way."""
    through = re.compile(r"supervisor\.\w+\.\w+")
    found = {
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "snakepit_ray/worker").glob("*.py")
        for line in path.read_text().splitlines()
        if through.search(line) and not line.startswith(("from ", "import "))
    }
    assert not found


def test_the_page_of_settings_has_every_setting_with_its_default() -> None:
    page = (ROOT / "snakepit_ray/docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", page, re.MULTILINE))
    defaults = PoolConfig().to_dict()
    assert rows == {name: repr(value).replace("'", '"') for name, value in defaults.items()}


def test_importing_the_package_loads_nothing_of_weight() -> None:
    loaded = loaded_by("import snakepit_ray")
    assert {name for name in loaded if name.startswith("snakepit_ray")} == {"snakepit_ray"}
    assert tops(loaded) & IMPURE == set()


def test_importing_the_package_takes_no_time() -> None:
    bare, ours = (
        min(seconds(statement) for _ in range(7))  # what other processes add is no time of ours
        for statement in ("pass", "import snakepit_ray")
    )
    assert ours - bare < IMPORT_BOUND_SECONDS


def seconds(statement: str) -> float:
    """Of CPU: a machine that is busy with other things makes it wait, and no more."""
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, timeout=60)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def test_errors_and_configuration_load_without_ray() -> None:
    loaded = loaded_by("import snakepit_ray; snakepit_ray.PoolConfig(name='a'); snakepit_ray.PoolSaturated")
    assert "snakepit_ray.config" in loaded
    assert tops(loaded) & HEAVY == set()


@pytest.mark.parametrize("name", snakepit_ray.__all__)
def test_each_public_name_resolves(name: str) -> None:
    assert getattr(snakepit_ray, name) is not None


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_is_reachable_from_the_package(name: str) -> None:
    assert getattr(snakepit_ray, name) is getattr(errors, name)


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = snakepit_ray.nonsense


@pytest.mark.parametrize("file", ["interpreter_pb2.py", "interpreter_pb2.pyi", "__init__.py"])
def test_both_ends_have_the_same_generated_messages(file: str) -> None:
    host, bridge = (
        ROOT / place / "_pb" / file for place in ("snakepit_ray/wire", "bridge/python/snakepit_bridge")
    )
    assert host.read_bytes() == bridge.read_bytes()
