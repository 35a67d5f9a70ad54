"""Adapters whose names or libraries get into the way of the bridge work, or are refused with a reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ADAPTER = """
import asyncio
from snakepit_bridge import Adapter, command

class Mine(Adapter):
    @command
    async def later(self):
        await asyncio.sleep(0)
        return "later"

    @command
    def fails(self):
        raise ValueError("as it should")
"""
PATCHES = """
from gevent import monkey
monkey.patch_all({how})
import time
from snakepit_bridge import Adapter, command

class Mine(Adapter):
    @command
    def sleep(self):
        time.sleep(0.01)
        return "slept"
"""
IMITATION = """
import _thread, threading

def start_new_thread(*args):
    raise AssertionError("no thread is started")

def patch():
    _thread.start_new_thread = threading._start_new_thread = start_new_thread
"""


@pytest.mark.parametrize("name", ["asyncio.py", "traceback.py", "selectors.py", "queue.py", "code.py"])
@pytest.mark.parametrize("with_class", [False, True])
def test_an_adapter_file_with_the_name_of_a_module_of_the_library(bridge, tmp_path, name, with_class) -> None:
    (tmp_path / name).write_text(ADAPTER)
    stream = bridge(name + ":Mine" * with_class, cwd=str(tmp_path)).start().attach()
    assert stream.run("later") == "later"
    failed = stream.failure("fails")
    assert "as it should" in failed.traceback and name in failed.traceback


def test_replaced_threads_are_refused_with_what_helps(bridge, tmp_path: Path) -> None:
    (tmp_path / "imitation.py").write_text(IMITATION)
    (tmp_path / "mine.py").write_text("import imitation\nimitation.patch()\n" + ADAPTER)
    error = bridge("mine.py", cwd=str(tmp_path)).start_error()
    assert (error["stage"], error["type"]) == ("init", "RuntimeError")
    assert "imitation has replaced Python's threads" in error["message"]
    assert "patch_all(thread=False)" in error["message"]


@pytest.mark.parametrize(("how", "works"), [("", False), ("thread=False", True)])
def test_gevent(bridge, tmp_path: Path, how: str, works: bool) -> None:
    python = os.environ.get("SNAKEPIT_TEST_GEVENT_PYTHON")
    if not python or not shutil.which(python):
        pytest.skip("SNAKEPIT_TEST_GEVENT_PYTHON names no Python with gevent, grpcio and protobuf")
    (tmp_path / "mine.py").write_text(PATCHES.replace("{how}", how))
    one = bridge("mine.py", cwd=str(tmp_path), python=python)
    if works:
        assert one.start().attach().run("sleep") == "slept"
        one.process.terminate()
        assert one.wait() == 0
    else:
        assert "patch_all(thread=False)" in one.start_error()["message"]
