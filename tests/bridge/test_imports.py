"""What is imported where, and when: the start-up time of a pool is made of it."""

from __future__ import annotations

import ast
import asyncio
import pkgutil
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
        "from snakepit_bridge.values import encoding, decoding; import snakepit_bridge.main.bridge",
    ],
)
def test_adapters_and_values_load_no_heavy_library(statement: str) -> None:
    heavy = {"grpc", "google.protobuf", "numpy", "pyarrow", "asyncio", "logging", "ctypes"}
    assert not heavy & loaded(statement)


def test_only_the_server_knows_grpc() -> None:
    assert [file.name for file in FILES if "grpc" in imports(file)] == ["transport.py"]


def test_only_few_know_protobuf_numpy_and_pyarrow() -> None:
    where = {
        name: sorted(f.name for f in FILES if name in imports(f)) for name in ("google", "numpy", "pyarrow")
    }
    assert where == {
        "google": ["messages.py", "standard.py"],
        "numpy": ["arrays.py", "tensors.py"],
        "pyarrow": ["tensors.py"],
    }


def test_a_started_interpreter_has_loaded_neither_arrays_nor_the_other_half_of_grpc(bridge) -> None:
    stream = bridge("loaded:Loaded").start().attach()
    assert stream.run("modules") == []
    assert stream.run("grpc_aio") == "grpc.aio._server"  # and it is there when somebody wants it
    assert stream.run("modules") == ["asyncio.base_events", "grpc.aio._server"]


SUBMODULES = sorted(
    f"asyncio.{found.name}"
    for found in pkgutil.iter_modules(asyncio.__path__)
    if not found.name.startswith(("__", "windows", "proactor"))
)
PUT_OFF = f"""
import sys; sys.path.insert(0, {str(BRIDGE)!r})
from snakepit_bridge.server import transport
unused = ("asyncio", "grpc.aio", "calendar", "pkgutil", "socket")
assert not any(name in sys.modules for name in unused), "put off"
"""


def test_every_part_of_asyncio_can_be_imported_first() -> None:
    """As uvloop does: whoever imports a part of it gets the real one, and so does whoever comes later."""
    source = (
        PUT_OFF
        + """
import os
for name in sys.argv[1:]:
    if not os.fork():
        __import__(name)
        import asyncio
        assert asyncio.run(asyncio.sleep(0, 5)) == 5
        os._exit(0)
    assert os.wait()[1] == 0, name
print("done")
"""
    )
    ran = subprocess.run(
        [sys.executable, "-c", source, *SUBMODULES], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "done\n", ran.stderr
    assert len(SUBMODULES) > 20


@pytest.mark.parametrize(
    "use",
    [
        "import asyncio; asyncio.sleep = 5; from asyncio import sleep; assert sleep == 5",
        "from asyncio import *; from asyncio.events import new_event_loop; new_event_loop().close()",
        "import grpc; assert grpc.aio.server.__module__ == 'grpc.aio._server'",
        "from grpc.aio._server import Server; import grpc; assert grpc.aio.Server",
        "import grpc.aio as aio, sys; assert aio is sys.modules['grpc.aio'] and aio.insecure_channel",
        "from google.protobuf.internal import python_message as p; assert p.GeneratedProtocolMessageType",
        "import calendar; assert calendar.timegm and type(calendar).__name__ == 'module'",
        "import socket; socket.socketpair()[0].close(); assert type(socket).__name__ == 'module'",
        "import pkgutil; assert pkgutil.get_data and type(pkgutil).__name__ == 'module'",
    ],
)
def test_what_was_put_off_is_the_real_module_for_everybody_else(use: str) -> None:
    ran = subprocess.run([sys.executable, "-c", PUT_OFF + use], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_threads_that_meet_a_module_first_at_one_moment_all_get_it() -> None:
    source = (
        PUT_OFF
        + """
import threading
gate = threading.Barrier(4)
def use(source):
    gate.wait()
    exec(source, {})
    done.append(source)
done = []
uses = 2 * ["import asyncio; asyncio.run(asyncio.sleep(0))", "import calendar; calendar.timegm"]
threads = [threading.Thread(target=use, args=(use_,), daemon=True) for use_ in uses]
[thread.start() for thread in threads]
[thread.join(20) for thread in threads]
assert sorted(done) == sorted(uses), done
"""
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_in_the_thread_profile_asyncio_is_there_before_commands_could_race_for_it(bridge) -> None:
    """Python itself raises where one thread imports a package and another a part of it, both first."""
    stream = bridge("loaded:Loaded", thread_profile=True, capacity=2).start().attach()
    assert stream.run("modules") == ["asyncio.base_events"]


def test_a_stand_in_answers_as_its_module_and_is_seen_by_nobody_later(tmp_path) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").write_text("")
    (tmp_path / "parcel" / "slow.py").write_text("value = 5\n")
    (tmp_path / "library.py").write_text("import parcel.slow as kept\nfrom parcel import slow\n")
    source = f"""
import sys
sys.path[:0] = [{str(BRIDGE)!r}, {str(tmp_path)!r}]
from snakepit_bridge.server.deferred import putting_off
import parcel
with putting_off("parcel.slow"):
    import library
assert "parcel.slow" not in sys.modules and "slow" not in vars(parcel)
assert parcel.slow is sys.modules["parcel.slow"] and type(parcel.slow).__name__ == "module"
assert library.kept is not parcel.slow and library.kept.value == library.slow.value == 5
for broken in (library.kept, parcel):
    try:
        broken.missing
    except AttributeError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=20)
    assert ran.stdout.count("missing") == 2, ran.stderr


def test_every_module_opens_with_what_it_knows() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert len(file.read_text().splitlines()) <= 305, file
