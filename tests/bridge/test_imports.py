"""What is imported where, and when: the start-up time of a pool is made of it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.bridge.harness import BRIDGE

PACKAGE = BRIDGE / "snakepit_bridge"
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if "_pb" not in file.parts]


def loaded(statement: str) -> set[str]:
    """Names of the modules that are loaded after `statement` in a fresh interpreter."""
    source = f"import sys; sys.path.insert(0, {str(BRIDGE)!r}); {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def imports(file) -> set[str]:
    """Top-level names of every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    "statement",
    [
        "import snakepit_bridge",
        "from snakepit_bridge import Adapter, command, SessionContext, ThreadSafeAdapter",
        "from snakepit_bridge import BaseCommandHandler, ProtocolHandler, BaseAdapter, tool, current",
        "import snakepit_bridge.values, snakepit_bridge.decoding, snakepit_bridge.main",
    ],
)
def test_adapters_and_values_load_no_heavy_library(statement: str) -> None:
    heavy = {"grpc", "google.protobuf", "numpy", "pyarrow", "asyncio", "logging", "ctypes"}
    assert not heavy & loaded(statement)


def test_only_the_server_knows_grpc() -> None:
    assert [file.name for file in FILES if "grpc" in imports(file)] == ["server.py"]


def test_only_few_know_protobuf_numpy_and_pyarrow() -> None:
    where = {
        name: sorted(f.name for f in FILES if name in imports(f)) for name in ("google", "numpy", "pyarrow")
    }
    assert where == {
        "google": ["server.py", "standard.py"],
        "numpy": ["arrays.py", "tensors.py"],
        "pyarrow": ["tensors.py"],
    }


def test_a_started_interpreter_has_loaded_neither_arrays_nor_the_other_half_of_grpc(bridge) -> None:
    stream = bridge("commands:Commands").start().attach()
    assert stream.run("modules") == []
    assert stream.run("grpc_aio") == "grpc.aio._server"  # and it is there when somebody wants it
    assert stream.run("modules") == ["asyncio.base_events", "grpc.aio._server"]


def test_a_deferred_package_is_itself_for_who_imports_it_or_a_part_of_it() -> None:
    for use in (
        "import asyncio; assert asyncio.run(asyncio.sleep(0, 5)) == 5",
        "import asyncio.subprocess; assert asyncio.subprocess.PIPE == -1 and asyncio.Event()",
        "from asyncio import *; from asyncio.events import new_event_loop; new_event_loop().close()",
        "from asyncio import gather, TimeoutError; import asyncio; assert asyncio.gather is gather",
    ):
        assert "asyncio.base_events" in loaded(
            f"from snakepit_bridge.deferred import defer; assert defer('asyncio'); {use}"
        )


def test_a_deferred_module_is_whole_for_all_threads_that_touch_it(tmp_path) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").write_text("")
    (tmp_path / "parcel" / "slow.py").write_text(
        "import threading\nfirst = 1\nthreading.Event().wait(0.05)\nlast = 2\n"
    )
    source = f"""
import sys, threading
sys.path[:0] = [{str(BRIDGE)!r}, {str(tmp_path)!r}]
from snakepit_bridge.deferred import defer
import parcel
assert defer("parcel.slow")
assert not defer("parcel.slow") and not defer("nowhere.at_all")
assert "first" not in vars(parcel.slow)
seen = []
threads = [threading.Thread(target=lambda: seen.append(parcel.slow.last)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert seen == [2] * 4, seen
try:
    parcel.slow.missing
except AttributeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=20)
    assert "missing" in ran.stdout, ran.stderr


def test_every_module_opens_with_what_it_knows() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert len(file.read_text().splitlines()) <= 305, file
