"""Runtimes are found by name, say what is wrong before a start, and hooks that do nothing cost nothing."""

import os
import pickle
import sys

import pytest

from snakepit_ray import runtimes
from snakepit_ray.config import CallOptions, PoolConfig, languages
from snakepit_ray.errors import ConfigError, UnknownCommand
from snakepit_ray.runtimes import (
    BaseRuntime,
    PythonRuntime,
    Runtime,
    argv_of,
    flagged_argv,
    has_hooks,
    has_response_hook,
    resolve_runtime,
    runtime_ref,
)
from snakepit_ray.runtimes import python as python_runtime
from snakepit_ray.wire.codec import Envelope, encode_value
from snakepit_ray.wire.requests import RequestBuilder


class Reports(BaseRuntime):
    """The contract's Ruby example, over a Python script."""

    name = "reports"
    commands = ("process_data", "generate_report")

    def executable(self, config):
        return sys.executable

    def script(self, config):
        return os.path.abspath(__file__)

    def supported_commands(self):
        return self.commands

    def prepare_args(self, command, args):
        return {**args, "data": args["data"].strip()} if command == "process_data" else args

    def process_response(self, command, result):
        return {**result, "processed_at": "2026-01-01"} if command == "generate_report" else result

    def command_timeout(self, command, args):
        return 120.0 if command == "generate_report" else None


class Stateful(Reports):
    def __init__(self, commands=("only",)):
        self.commands = commands


class Plain(BaseRuntime):
    """Only another program: nothing is asked about calls."""

    def script(self, config):
        return "/bridge.rb"


class Typed:
    """A Runtime that inherits nothing."""

    name = "typed"

    def executable(self, config): ...
    def script(self, config): ...
    def args(self, config): ...
    def env(self, config): ...
    def supported_commands(self): ...
    def validate_command(self, command, args): ...
    def prepare_args(self, command, args): ...
    def process_response(self, command, result): ...
    def command_timeout(self, command, args): ...


class OnlyLast(Plain):
    def process_response(self, command, result):
        return [result]


INSTANCE = Stateful(("a", "b"))


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No SNAKEPIT_PYTHON and a directory without .venv."""
    monkeypatch.delenv("SNAKEPIT_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


# ---- the example of the contract ---------------------------------------------------------------------------


def test_the_example_runtime_does_all_that_the_contract_asks():
    runtime = resolve_runtime(f"{__name__}:Reports")
    assert isinstance(runtime, Runtime)
    args = {"data": "  x  "}
    assert runtime.prepare_args("process_data", args) == {"data": "x"}
    assert args == {"data": "  x  "}
    assert runtime.prepare_args("generate_report", args) is args
    assert runtime.command_timeout("generate_report", {}) == 120.0
    assert runtime.command_timeout("process_data", {}) is None
    with pytest.raises(UnknownCommand, match="did you mean 'generate_report'") as caught:
        runtime.validate_command("generate_reports", {})
    assert caught.value.commands == ("generate_report", "process_data")
    runtime.validate_command("process_data", {})
    assert (has_hooks(runtime), has_response_hook(runtime)) == (True, True)


def test_the_decoder_finds_the_last_word_by_name():
    runtime = resolve_runtime(f"{__name__}:Reports")
    encoded = encode_value({"pages": 3})
    for command, expected in [
        ("generate_report", {"pages": 3, "processed_at": "2026-01-01"}),
        ("process_data", {"pages": 3}),
    ]:
        envelope = Envelope(encoded.json, encoded.buffers, runtime=runtime_ref(runtime), command=command)
        assert pickle.loads(pickle.dumps(envelope, 5)) == expected


# ---- names -------------------------------------------------------------------------------------------------


def test_python_is_built_in_and_has_no_hooks():
    runtime = resolve_runtime("python")
    assert isinstance(runtime, PythonRuntime)
    assert isinstance(runtime, Runtime)
    assert (has_hooks(runtime), runtime_ref(runtime)) == (False, "")
    assert resolve_runtime(runtime) is runtime
    assert runtime.args(PoolConfig()) == ()
    assert runtime.env(PoolConfig()).keys() <= {"PATH", "VIRTUAL_ENV"}, "its environment, activated"


def test_runtimes_are_made_once_by_name():
    name = f"{__name__}:Reports"
    assert resolve_runtime(name) is resolve_runtime(name)
    assert runtime_ref(resolve_runtime(name)) == name
    assert resolve_runtime(f"{__name__}:INSTANCE") is INSTANCE


def test_refs_of_objects():
    assert runtime_ref(Reports()) == f"{__name__}:Reports"
    assert runtime_ref(resolve_runtime(Reports)) == f"{__name__}:Reports"
    assert runtime_ref(INSTANCE) == f"{__name__}:INSTANCE"
    assert (has_hooks(Plain()), runtime_ref(Plain())) == (False, "")
    assert (has_hooks(OnlyLast()), runtime_ref(OnlyLast())) == (True, f"{__name__}:OnlyLast")
    assert (has_hooks(Typed()), runtime_ref(resolve_runtime(Typed()))) == (True, f"{__name__}:Typed")
    with pytest.raises(ConfigError, match=r'it has state of its own\), .* pass runtime="module:VARIABLE"'):
        runtime_ref(Stateful())

    class Local(Reports):
        pass

    with pytest.raises(ConfigError, match="is not importable"):
        runtime_ref(Local())


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("node", "'node' is not in this version"),
        ("ruby", "'ruby' is not in this version"),
        ("r", "'r' is not in this version"),
        ("go", "'go' is not in this version"),
        ("pythn", "did you mean 'python'"),
        ("no.such.module:X", "cannot be imported"),
        (f"{__name__}:Nothing", "has no 'Nothing'"),
        (f"{__name__}:INSTANCE.name", "lacks name, executable"),
        (3, "lacks name, executable"),
        (object, "lacks name, executable"),
    ],
)
def test_what_is_no_runtime_is_named(named, said):
    with pytest.raises(ConfigError) as caught:
        resolve_runtime(named)
    assert said in str(caught.value)


def test_the_configuration_takes_them():
    assert PoolConfig(runtime=INSTANCE).runtime is INSTANCE
    assert PoolConfig(runtime=f"{__name__}:Reports").runtime == f"{__name__}:Reports"


# ---- executables -------------------------------------------------------------------------------------------


def test_the_order_of_pythons(bare, monkeypatch):
    runtime = PythonRuntime()
    assert runtime.executable(PoolConfig()) == os.path.abspath(sys.executable)
    local = program(bare / ".venv/bin/python")
    assert runtime.executable(PoolConfig()) == local
    elsewhere = program(bare / "work/.venv/bin/python")
    assert runtime.executable(PoolConfig(cwd=str(bare / "work"))) == elsewhere
    variable = program(bare / "variable/python")
    monkeypatch.setenv("SNAKEPIT_PYTHON", variable)
    assert runtime.executable(PoolConfig()) == variable
    named = program(bare / "named/python")
    assert runtime.executable(PoolConfig(interpreter=named)) == named
    assert runtime.executable(PoolConfig(interpreter="named/python")) == named
    assert runtime.executable(PoolConfig(interpreter="../named/python", cwd=str(bare / "work"))) == named
    monkeypatch.setenv("PATH", str(bare / "named"))
    assert runtime.executable(PoolConfig(interpreter="python")) == named


@pytest.mark.parametrize(
    ("interpreter", "said"),
    [
        ("nowhere/python", "nowhere/python does not exist"),
        ("folder/", "folder is not a file (give the executable in it"),
        ("./plain", "plain is not executable (chmod +x)"),
        ("no-such-program-anywhere", "no such program on PATH"),
    ],
)
def test_an_executable_that_cannot_be_run_is_named_before_the_start(bare, interpreter, said):
    (bare / "folder").mkdir()
    (bare / "plain").write_text("x")
    if said.endswith("(chmod +x)") and os.access(bare / "plain", os.X_OK):
        pytest.skip("this user may execute anything")
    with pytest.raises(ConfigError) as caught:
        PythonRuntime().executable(PoolConfig(interpreter=interpreter, name="ml"))
    assert str(caught.value).startswith(
        f"pool 'ml': interpreter=: got {interpreter!r}, expected an executable; "
    )
    assert said in str(caught.value)


def test_a_variable_that_is_wrong_is_named(bare, monkeypatch):
    monkeypatch.setenv("SNAKEPIT_PYTHON", "/no/such/python")
    with pytest.raises(ConfigError, match="SNAKEPIT_PYTHON: got '/no/such/python', expected an executable"):
        PythonRuntime().executable(PoolConfig())


def test_the_script_is_in_the_wheel_or_beside_the_package(monkeypatch, tmp_path):
    wheel, editable = tmp_path / "wheel" / "main.py", tmp_path / "editable" / "main.py"
    for path in (wheel, editable):
        path.parent.mkdir()
    monkeypatch.setattr(python_runtime, "BRIDGES", (str(wheel), str(editable)))
    with pytest.raises(ConfigError, match="the Python bridge is not installed"):
        PythonRuntime().script(PoolConfig())
    editable.write_text("")
    assert PythonRuntime().script(PoolConfig()) == str(editable)
    wheel.write_text("")
    assert PythonRuntime().script(PoolConfig()) == str(wheel)


def test_another_language_needs_its_interpreter(bare):
    with pytest.raises(ConfigError, match="needs interpreter="):
        Plain().executable(PoolConfig())
    ruby = program(bare / "ruby")
    assert Plain().executable(PoolConfig(interpreter=ruby)) == ruby


# ---- the table of languages and command lines --------------------------------------------------------------


def test_every_language_with_a_bridge_is_built_in_and_no_other():
    assert tuple(runtimes.BUILTIN) == languages.WITH_BRIDGE
    assert set(runtimes.LATER) == {language.name for language in languages.TABLE} - set(runtimes.BUILTIN)


@pytest.mark.parametrize(
    ("language", "script", "expected"),
    [
        ("python", "/b/main.py", ("/x", "/b/main.py", "-a")),
        ("node", "/b/main.js", ("/x", "/b/main.js", "-a")),
        ("ruby", "/b/main.rb", ("/x", "/b/main.rb", "-a")),
        ("r", "/b/main.R", ("/x", "--vanilla", "/b/main.R", "-a")),
        ("go", "", ("/x", "-a")),
    ],
)
def test_the_command_line_of_each_language(language, script, expected):
    (found,) = (one for one in languages.TABLE if one.name == language)
    assert found.argv("/x", script, ("-a",)) == expected


def test_the_default_adapter_is_the_tables():
    assert PoolConfig().adapter == languages.PYTHON.adapter == "showcase"


class Flagged(Plain):
    def executable(self, config):
        return "/bin/node"

    def args(self, config):
        return ["--trace"]

    def argv(self, executable, script, args):
        return flagged_argv("--max-old-space-size=64")(executable, script, args)


class Binary(Plain):
    def executable(self, config):
        return "/opt/mine"

    def script(self, config):
        return ""


class Inherits(Typed):
    """Nothing, not even `argv`."""

    def executable(self, config):
        return "/bin/ruby"

    def script(self, config):
        return "/bridge.rb"

    def args(self, config):
        return ["-v"]


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        (Flagged(), ("/bin/node", "--max-old-space-size=64", "/bridge.rb", "--trace")),
        (Binary(), ("/opt/mine",)),
        (Inherits(), ("/bin/ruby", "/bridge.rb", "-v")),
    ],
)
def test_a_runtime_of_ones_own_says_its_command_line(runtime, expected):
    assert argv_of(resolve_runtime(runtime), PoolConfig()) == expected


@pytest.mark.parametrize("wrong", ["/bin/node script", (), ["/bin/node", 3], [None]])
def test_a_command_line_that_is_none_is_refused(wrong):
    class Wrong(Binary):
        def argv(self, executable, script, args):
            return wrong

    with pytest.raises(ConfigError, match=r"argv of runtime 'custom' gave .* a sequence of strings"):
        argv_of(Wrong(), PoolConfig())


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0, -1.0, 1e300])
def test_a_budget_of_a_runtime_that_is_none_is_refused_before_anything_is_sent(monkeypatch, seconds):
    monkeypatch.setattr(Reports, "command_timeout", lambda self, command, args: seconds)
    build = RequestBuilder(PoolConfig(), Reports(), None, lambda: "1")
    for ask in (
        lambda: build.build("generate_report", {}, CallOptions()),
        lambda: build.draw("generate_report", {}),
    ):
        with pytest.raises(ConfigError, match=r"command_timeout .* 'generate_report'"):
            ask()
