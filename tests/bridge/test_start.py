"""How an interpreter starts, and how it says that it cannot."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from snakepit_ray.core.worker.handshake import FEATURES
from tests.bridge.harness import ADAPTERS, BRIDGE, SHOWCASE, BridgeProcess


def test_the_ready_line_says_who_serves_and_what(bridge, tmp_path) -> None:
    path = str(tmp_path / "said")
    one = bridge("hooks:Hooks", adapter_args={"path": path}, capacity=3).start()
    ready = one.ready
    assert ready["commands"] == {
        "greet": {
            "stream": False,
            "idempotent": True,
            "timeout": 12.5,
            "doc": "Says hello.",
            "params": [
                {"name": "name", "required": True, "type": "str"},
                {"name": "times", "required": False, "default": 1, "type": "int"},
                {"name": "how", "required": False, "default": None, "type": "str or None"},
            ],
            "open": False,
        }
    }
    assert {key: ready[key] for key in ("snakepit", "pid", "language", "capacity", "adapter", "address")} == {
        "snakepit": 2,
        "pid": one.pid,
        "language": "python",
        "capacity": 3,
        "adapter": "hooks:Hooks",
        "address": f"unix:{one.config['socket']}",
    }
    assert ready["version"] == ".".join(map(str, sys.version_info[:3]))
    of_hooks = {"session_ends", "session_moves"}
    assert ready["features"] == sorted(FEATURES - {"arena", "frames", "marks"} - of_hooks), "none was offered"


def test_the_socket_belongs_to_its_owner_alone(bridge) -> None:
    one = bridge().start()
    mode = os.stat(one.config["socket"]).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_hooks_are_called_around_the_service(bridge, tmp_path) -> None:
    path = tmp_path / "said"
    one = bridge("hooks:Hooks", adapter_args={"path": str(path), "greeting": "hi"}).start()
    assert path.read_text() == "setup hi\n"
    one.process.terminate()
    assert one.wait() == 0
    assert path.read_text() == "setup hi\nteardown\n"


@pytest.mark.parametrize(
    ("spec", "command"),
    [
        ("hooks.Child", "renamed"),
        ("hooks:Child", "renamed"),
        ("hooks.py:Child", "renamed"),
        (str(ADAPTERS / "hooks.py") + ":Child", "renamed"),
        ("commands", "note"),
        ("commands.py", "note"),
        ("showcase", "add"),
        (SHOWCASE, "add"),
        ("snakepit_bridge.adapters.showcase.ShowcaseAdapter", "add"),
    ],
)
def test_every_way_to_name_an_adapter(bridge, spec: str, command: str) -> None:
    assert command in bridge(spec).start().ready["commands"]


def test_marks_are_inherited_and_properties_left_alone(bridge) -> None:
    one = bridge("hooks:Child").start()
    assert sorted(one.ready["commands"]) == ["inherited", "renamed"]
    assert one.ready["commands"]["inherited"]["idempotent"] is True
    stream = one.attach()
    assert [stream.run("inherited"), stream.run("renamed")] == ["child", "renamed"]


@pytest.mark.parametrize(
    ("spec", "stage", "type_", "words"),
    [
        ("nowhere:Mine", "import", "ModuleNotFoundError", "nowhere"),
        ("nowhere.Mine", "import", "ModuleNotFoundError", "nowhere"),
        ("missing.py", "import", "FileNotFoundError", "missing.py"),
        ("broken:Mine", "import", "ImportError", "a library is missing"),
        ("hooks:Hoks", "import", "ImportError", "did you mean 'Hooks'"),
        ("hooks", "import", "ImportError", "several adapters"),
        ("hooks:Empty", "init", "TypeError", "mark methods with @command"),
        ("hooks:FailsInInit", "init", "KeyError", "weights"),
        ("hooks:FailsToSetUp", "setup", "ConnectionError", "no database"),
        ("hooks:Hooks", "init", "InvalidArguments", "missing 'path'"),
    ],
)
def test_a_start_that_fails_says_at_which_stage(
    bridge, spec: str, stage: str, type_: str, words: str
) -> None:
    error = bridge(spec).start_error()
    assert (error["stage"], error["type"]) == (stage, type_)
    assert words in error["message"]


def test_the_traceback_of_a_failed_start_is_the_users_part(bridge) -> None:
    error = bridge("hooks:FailsToSetUp").start_error()
    assert "hooks.py" in error["traceback"]
    assert "snakepit_bridge/main/" not in error["traceback"]


def test_unknown_adapter_args_are_named(bridge) -> None:
    error = bridge("hooks:Hooks", adapter_args={"path": "x", "greting": "hi"}).start_error()
    assert "unknown 'greting' (did you mean 'greeting'?)" in error["message"]
    assert bridge("hooks:Child", adapter_args={"x": 1}).start_error()["stage"] == "init"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"snakepit": 1}, "protocol 1, this bridge speaks 2"),
        ({"socket": None}, "'socket'"),
        ({"capacity": "three"}, "'capacity' must be int"),
        ({"capacity": 0}, "at least 1"),
    ],
)
def test_a_configuration_that_is_wrong(bridge, change: dict, words: str) -> None:
    error = bridge(**change).start_error()
    assert error["stage"] == "config"
    assert words in error["message"]


def test_a_socket_that_cannot_be_served(bridge) -> None:
    assert bridge(socket="/nowhere/at/all").start_error()["stage"] == "serve"


def test_the_thread_profile_needs_a_declaration(bridge) -> None:
    error = bridge("hooks:Child", thread_profile=True, capacity=2).start_error()
    assert (error["stage"], error["type"]) == ("init", "NotThreadSafe")
    assert "__thread_safe__ = True" in error["message"]
    error = bridge("script.py", thread_profile=True, capacity=2).start_error()
    assert error["type"] == "NotThreadSafe"
    stream = bridge("hooks:Threads", thread_profile=True, capacity=2).start().attach()
    assert stream.run("local", {"value": 1}) is None


def test_a_script_that_serves_itself(bridge) -> None:
    one = bridge("script.py").start()
    assert sorted(one.ready["commands"]) == ["later", "shout"]
    assert one.ready["commands"]["shout"]["open"] is True
    stream = one.attach()
    assert stream.run("shout", {"text": "x"}) == {"text": "X"}
    assert stream.run("later", {"n": 1}) == {"n": 1}
    one.process.terminate()
    assert one.wait() == 0
    assert "ran to its end" in one.stderr()


def test_a_script_outside_of_a_bridge_says_what_to_do() -> None:
    ran = subprocess.run(
        [sys.executable, str(ADAPTERS / "script.py")],
        env={"PYTHONPATH": str(BRIDGE)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ran.returncode == 1
    assert "snakepit_ray.start(adapter=" in ran.stderr


def test_adapters_of_the_wild(bridge) -> None:
    one = bridge("legacy:Legacy").start()
    assert sorted(one.ready["commands"]) == ["add", "count", "later", "named", "ping"]
    assert one.ready["commands"]["count"]["stream"] is True
    assert one.ready["commands"]["add"]["doc"] == "Adds."
    stream = one.attach()
    assert stream.run("ping", {"x": 1}, session="s") == {"args": {"x": 1}, "contexts": ["s"], "ready": True}
    assert stream.run("later", {"x": 1}) == {"later": {"x": 1}}
    assert stream.run("named", {"a": 1}) == 3
    assert stream.run("add", {"a": 1, "b": 2}) == 3
    assert "execute_stream" in stream.failure("count", {"n": 1}).message


def test_a_plain_class_serves_what_takes_a_context(bridge) -> None:
    one = bridge("legacy:Plain").start()
    assert list(one.ready["commands"]) == ["greet"]
    assert one.attach().run("greet", {"name": "x"}, session="s") == "x of s"


def test_the_bridge_without_a_host_says_how_it_is_started() -> None:
    ran = subprocess.run(
        [sys.executable, str(BRIDGE / "main.py")], capture_output=True, text=True, timeout=20, input=""
    )
    assert ran.returncode == 1
    assert "--ready-fd N" in ran.stderr


def test_code_paths_come_first_and_our_own_directory_last(bridge, tmp_path) -> None:
    (tmp_path / "main.py").write_text(
        "import sys\nfrom snakepit_bridge import Adapter, command\n"
        "class Mine(Adapter):\n    @command\n    def path(self): return sys.path\n"
    )
    stream = bridge("main:Mine", code_paths=[str(tmp_path)]).start().attach()
    path = stream.run("path")
    assert path[0] == str(tmp_path)
    assert path[-1] == str(BRIDGE)


def test_the_start_of_a_process_that_never_gets_its_line(bridge) -> None:
    one: BridgeProcess = bridge()
    one.process.stdin.close()
    line = json.loads(one.ready_line())
    assert line["error"]["stage"] == "config"
    assert one.wait() == 3
