"""Every Python that is found runs the bridge, with nothing but grpcio and protobuf."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.harness import ROOT, BridgeProcess

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
CACHE = ROOT / ".venv-bridges"
OLDEST = (3, 9)
UV = shutil.which("uv") or shutil.which("uv", path="/tmp/venv0/bin")


def found() -> dict[str, str]:
    """Interpreters by version, one a minor version; at least the one that runs the tests."""
    pythons = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for folder in sorted(PYENV.glob("3.*")):
        version = folder.name.split(".")
        python = folder / "bin" / "python"
        if version[1].isdigit() and (3, int(version[1])) >= OLDEST and python.exists():
            pythons.setdefault(".".join(version[:2]), str(python))
    return pythons


def environment(version: str, python: str) -> str:
    """The Python of a venv with the bridge's two dependencies, made once; skips where that fails."""
    venv = CACHE / version
    ready = venv / "bin" / "python"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        for command in _commands(python, str(venv), str(ready)):
            ran = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=100,
                env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
            )
            if ran.returncode:
                unavailable(f"{' '.join(command)}: {ran.stderr.strip()[-400:]}")
        (venv / "complete").touch()
    return str(ready)


def _commands(python: str, venv: str, ready: str) -> list[list[str]]:
    packages = ["grpcio>=1.60", "protobuf>=6.31.1"]
    if UV:
        return [
            [UV, "venv", "-q", "--python", python, venv],
            [UV, "pip", "install", "-q", "--python", ready, *packages],
        ]
    return [[python, "-m", "venv", venv], [ready, "-m", "pip", "install", "-q", *packages]]


def unavailable(reason: str) -> None:
    """Skips on a user's machine; fails where SNAKEPIT_REQUIRE names pythons."""
    if "pythons" in os.environ.get("SNAKEPIT_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.interpreters
@pytest.mark.parametrize(("version", "python"), found().items(), ids=list(found()))
def test_a_python_runs_the_bridge(version: str, python: str) -> None:
    one = BridgeProcess("commands:Commands", python=environment(version, python), capacity=2).start()
    try:
        assert one.ready["version"].startswith(f"{version}.")
        stream = one.attach()
        assert stream.run("echo", {"value": [1, 2.5, "é", {"$snakepit": "float", "value": "nan"}]})[:3] == [
            1,
            2.5,
            "é",
        ]
        assert stream.run("async_add", {"a": 1, "b": 2}) == 3
        assert (
            stream.failure("async_add", {"a": "1", "b": 2}).message == "async_add: a must be int, got str '1'"
        )
        assert stream.failure("deep_error").type == "LookupError"
        assert "numpy is needed" in stream.failure("echo", _array(), [b"12345678"]).message
        for name, count in (("generator", 3), ("async_generator", 1)):
            request = stream.stream(name, {"count": 3} if name == "generator" else {}, pack=True)
            assert stream.reply(request).end.chunks == count
        request = stream.request("sleep_until_cancelled", budget_ms=20)
        assert "its budget ended" in stream.reply(request).failure.message
        assert one.unary("/grpc.health.v1.Health/Check") == b"\x08\x01"
        assert stream.run("grpc_aio").startswith("grpc.aio")
        one.process.terminate()
        assert one.wait(5) == 0
    finally:
        one.stop()


def _array() -> dict:
    return {"value": {"$snakepit": "tensor", "buffer": 0, "dtype": "<f8", "shape": []}}


@pytest.mark.interpreters
def test_the_showcase_needs_no_numpy() -> None:
    version, python = next(iter(found().items()))
    one = BridgeProcess("showcase", python=environment(version, python)).start()
    try:
        stream = one.attach()
        assert stream.run("create_tensor", {"shape": [2, 1]})["tensor"] == [[0.0], [0.0]]
        assert len(stream.run("generate_embeddings", {"texts": ["a"], "dimensions": 4})["embeddings"][0]) == 4
    finally:
        one.stop()
