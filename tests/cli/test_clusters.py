"""Which cluster a command works on: the one that was named, else the only one; without any real cluster."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from snakepit_ray.cli import clusters, main
from snakepit_ray.port import ray_port
from tests.conftest import wait_until

TOKEN = "a-token-for-tests"
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nobody is connected, nothing is named, and what Ray would join is written down."""
    addresses: list[str] = []
    monkeypatch.setattr(ray_port, "is_connected", lambda: False)
    monkeypatch.setattr(ray_port, "ensure_ray", lambda address, **_: addresses.append(address))
    monkeypatch.setattr(ray_port, "pool_names", list)
    monkeypatch.setattr(ray_port, "workers_named", list)
    for name in AUTH:
        monkeypatch.delenv(name, raising=False)
    return addresses


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Starts what looks like a raylet of the cluster at an address; only those of this test are seen."""
    started: list[subprocess.Popen[bytes]] = []
    everything = clusters.psutil.process_iter

    def ours(attributes: list[str]) -> list[object]:
        pids = {process.pid for process in started}
        return [process for process in everything(attributes) if process.pid in pids]

    monkeypatch.setattr(clusters.psutil, "process_iter", ours)

    def start(address: str) -> None:
        words = ["raylet", "-c", "input()", "--raylet_socket_name=x", f"--gcs-address={address}"]
        process = subprocess.Popen(words, executable=sys.executable, stdin=subprocess.PIPE)
        started.append(process)
        wait_until(lambda: address in clusters.running())

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a gRPC server that refuses what carries no token, as the head of a Ray cluster does."""

    class Guard(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            if ("authorization", f"Bearer {TOKEN}") in details.invocation_metadata:
                return None  # UNIMPLEMENTED: it was let through
            refuse = lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")  # noqa: E731
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1), interceptors=(Guard(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def open_port() -> Iterator[str]:
    """An address where something listens that is no gRPC server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_nobody_is_there(raylet: object, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status"], ["down", "--all"], ["call", "p", "add"], ["recycle", "p"]):
        assert main(command) == 1
        assert "no Ray cluster runs on this machine; start one with `ray start --head`" in (
            capsys.readouterr().err
        )


def test_the_only_one_is_joined_and_named(
    raylet: Callable[[str], None],
    open_port: str,
    joined: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(clusters, "refuses", lambda *_: False)
    raylet(open_port)
    assert main(["status"]) == 0
    assert joined == [open_port]
    said = capsys.readouterr()
    assert said.err == f"cluster: {open_port} (the only one on this machine)\n"
    assert said.out == "no pool is running\n"


@pytest.mark.parametrize("command", [["status"], ["down", "--all"], ["up"], ["call", "p", "add"]])
def test_of_several_none_is_taken(
    raylet: Callable[[str], None],
    joined: list[str],
    command: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = tmp_path_factory.mktemp("up")
    (directory / "snakepit.toml").write_text("[pools.a]\n")
    monkeypatch.chdir(directory)
    raylet("10.0.0.1:6379")
    raylet("10.0.0.2:6379")
    assert main(command) == 1
    assert joined == []
    assert (
        "2 Ray clusters run on this machine: 10.0.0.1:6379, 10.0.0.2:6379; name one of them: --address"
        in capsys.readouterr().err
    )


def test_the_environment_names_one(
    open_port: str,
    joined: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(clusters, "refuses", lambda *_: False)
    monkeypatch.setenv("RAY_ADDRESS", open_port)
    assert main(["status"]) == 0
    assert joined == [open_port]
    assert capsys.readouterr().err == f"cluster: {open_port} (RAY_ADDRESS)\n"


@pytest.mark.parametrize(
    "address", ["garbage", "local", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", ":1", ""]
)
def test_what_is_no_address(address: str, joined: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--address", address]) == 1
    assert joined == []
    said = capsys.readouterr().err
    assert f"got {address!r}, expected HOST:PORT, as in 127.0.0.1:6379" in said


def test_a_cluster_that_asks_for_a_token(
    head: str, joined: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It was half a minute of Ray's warnings, and then the advice to start a cluster."""
    assert main(["status", "--address", head]) == 1
    said = capsys.readouterr().err
    assert f"the cluster at {head} asks for a token" in said
    assert "RAY_AUTH_MODE=token sends that of RAY_AUTH_TOKEN" in said
    assert "ray start" not in said
    assert joined == []


@pytest.mark.parametrize(
    ("variable", "value"), [("RAY_AUTH_TOKEN", "wrong"), ("RAY_AUTH_TOKEN_PATH", "/nowhere/token")]
)
def test_a_token_that_is_not_its_own(
    head: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv(variable, value)
    assert main(["status", "--address", head]) == 1
    said = capsys.readouterr().err
    assert f"the cluster at {head} refuses " in said
    assert (variable if value == "wrong" else value) in said


def test_the_right_token(
    head: str, joined: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert main(["status", "--address", head]) == 0
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN + "\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert main(["status", "--address", head]) == 0
    assert joined == [head, head]


def test_up_reads_its_file_before_it_joins_anything(
    joined: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "/nowhere/nothing.toml"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("snakepit-ray: ConfigError: ") and "/nowhere/nothing.toml" in said
    assert "cluster:" not in said and joined == []


def test_down_asks_for_a_word(
    open_port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clusters, "refuses", lambda *_: False)
    monkeypatch.setattr(ray_port, "pool_names", lambda: ["mine", "theirs"])
    assert main(["down", "--address", open_port]) == 1
    said = capsys.readouterr().err
    assert "name the pools that are to end, or --all; running: mine, theirs" in said
    assert main(["down", "mine", "--all", "--address", open_port]) == 1
    assert "one of the two" in capsys.readouterr().err
