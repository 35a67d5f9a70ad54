"""Starts the real bridge process and talks to its real socket with a plain gRPC client, or with frames.

How requests travel is `wire`, as PoolConfig has it: "grpc", "auto" (as frames beside gRPC), "frames" (alone).
SNAKEPIT_TEST_WIRE says it for a whole run; conftest.py has the files that every run does over two of them.

Rules: every wait has a bound and none is a sleep; what is started is ended by its own pid.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

import grpc

from snakepit_ray.rpc import frames_wire as kinds
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.frames import LONGEST, FrameReader, pack

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "bridge" / "python"
SCRIPT = BRIDGE / "main.py"
SHOWCASE = "snakepit_bridge.adapters.showcase:ShowcaseAdapter"
ADAPTERS = Path(__file__).resolve().parent / "adapters"
TIMEOUT = 20.0
SERVICE = "/snakepit.v1.Interpreter/"
KIND = pb.Failure.Kind
WIRE = [os.environ.get("SNAKEPIT_TEST_WIRE", "grpc")]  # the last one counts

sys.path.append(str(BRIDGE))  # for the tests of its modules that need no process


class CallFailed(Exception):
    """A Failure came; its fields."""

    def __init__(self, failure: pb.Failure) -> None:
        super().__init__(f"{KIND.Name(failure.kind)} {failure.type}: {failure.message}")
        self.kind = KIND.Name(failure.kind)
        self.type = failure.type
        self.message = failure.message
        self.traceback = failure.traceback
        self.details = json.loads(failure.details_json) if failure.details_json else None


def carriers(tokens: set[str]) -> set[int]:
    """Pids of living processes that carry one of `tokens`."""
    entries = {f"SNAKEPIT_TOKEN={token}".encode() for token in tokens}
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile
                if entries & set(Path(f"/proc/{name}/environ").read_bytes().split(b"\0")):
                    found.add(int(name))
    return found


def shared_memories(size: int) -> list[int]:
    """Descriptors of memory for arguments and for results."""
    memories = [os.memfd_create("snakepit-test") for _ in range(2)]
    for memory in memories:
        os.ftruncate(memory, size)
    return memories


class BridgeProcess:
    """One interpreter, started as a worker starts it."""

    tokens: ClassVar[set[str]] = set()  # of every one that this run has started

    def __init__(
        self,
        adapter: str = SHOWCASE,
        *,
        python: str = sys.executable,
        script=SCRIPT,
        env=None,
        shared: int = 0,
        inherited=(),
        words=(),
        wire: str | None = None,
        **config,
    ) -> None:
        self.wire = wire or WIRE[-1]
        self.memories = shared_memories(shared) if shared else []
        if shared:
            arguments, results = self.memories
            config["arena"] = {"size": shared, "arguments": arguments, "results": results}
        self.directory = tempfile.TemporaryDirectory(prefix="snakepit-test-")
        self.token = secrets.token_hex(8)
        self.tokens.add(self.token)
        self.secret = secrets.token_hex(8)
        self.config = {
            "snakepit": 2,
            "socket": f"{self.directory.name}/s",
            "secret": self.secret,
            "adapter": adapter,
            "adapter_args": {},
            "capacity": 1,
            "thread_profile": False,
            "unserializable": "error",
            "binary_threshold": 10240,
            "max_message_size": 100 * 1024 * 1024,
            "worker_id": "w1",
            "pool": "test",
            "cwd": str(ADAPTERS),
            "code_paths": [],
            **config,
        }
        if self.wire != "grpc":
            alone = self.wire == "frames"
            self.config.setdefault("frames", {"socket": f"{self.directory.name}/f", "alone": alone})
        ready, child_end = os.pipe()
        environ = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        environ |= {
            "PYTHONUNBUFFERED": "1",
            "GRPC_VERBOSITY": "ERROR",
            "SNAKEPIT_TOKEN": self.token,
            **(env or {}),
        }
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self.process = subprocess.Popen(
            [python, str(script), "--ready-fd", str(child_end), *words],
            stdin=subprocess.PIPE,
            stdout=self._stdout,
            stderr=self._stderr,
            env=environ,
            pass_fds=(child_end, *self.memories, *inherited),
        )
        os.close(child_end)
        self._ready_fd = ready
        self.pid = self.process.pid
        self._channel: grpc.Channel | None = None

    def configure(self) -> None:
        """Writes the configuration line."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: its exit says why
            self.process.stdin.write(json.dumps(self.config).encode() + b"\n")
            self.process.stdin.flush()

    def ready_line(self, timeout: float = TIMEOUT) -> bytes:
        """The first line on the ready descriptor, b"" if it closes without one. Raises TimeoutError."""
        data, end = b"", time.monotonic() + timeout
        while not data.endswith(b"\n"):
            if not select.select([self._ready_fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no ready line within {timeout} s; stderr: {self.stderr()}")
            part = os.read(self._ready_fd, 65536)
            if not part:
                break
            data += part
        os.close(self._ready_fd)
        self._ready_fd = -1
        return data

    def start(self) -> BridgeProcess:
        """Configures, and waits until it serves."""
        self.configure()
        line = self.ready_line()
        assert line, f"it ended without a ready line: {self.wait()} {self.stderr()}"
        self.ready = json.loads(line)
        assert "error" not in self.ready, self.ready["error"]
        return self

    def start_error(self) -> dict:
        """Configures a process that must not start: its error, after it has exited with status 3."""
        self.configure()
        line = json.loads(self.ready_line())
        assert self.wait() == 3, self.stderr()
        return line["error"]

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            limit = 2**30
            self._channel = grpc.insecure_channel(
                f"unix:{self.config['socket']}",
                options=[
                    ("grpc.max_receive_message_length", limit),
                    ("grpc.max_send_message_length", limit),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.default_authority", "localhost"),
                ],
            )
        return self._channel

    def metadata(self, secret: str | None = None):
        return (("snakepit-secret", self.secret if secret is None else secret),)

    def unary(self, method: str, request: bytes = b"", secret: str | None = None) -> bytes:
        """One unary call of raw bytes; where there is no gRPC the frame that is its like."""
        if self.wire == "frames":
            return self._asked(method, request)
        return self.channel.unary_unary(method)(request, metadata=self.metadata(secret), timeout=TIMEOUT)

    def _asked(self, method: str, request: bytes) -> bytes:
        link = Frames(self)
        try:
            if method.endswith("/Check"):
                return b"\x08" + link.ask(kinds.PING, b"1", kinds.PONG)[:1]
            if method.endswith("/Describe"):
                return link.ask(kinds.DESCRIBE, request, kinds.DESCRIPTION)
            return link.ask(kinds.SHUTDOWN, request, kinds.SHUTTING_DOWN)
        finally:
            link.close()

    def attach(self, **options) -> Stream:
        """Opens the stream."""
        return Stream(self, **options)

    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def stdout(self) -> bytes:
        self._stdout.seek(0)
        return self._stdout.read()

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def stop(self) -> None:
        """SIGKILL if it is still there, and everything closed."""
        if self._channel is not None:
            self._channel.close()
        for memory in self.memories:
            os.close(memory)
        self.memories = []
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        for pid in carriers({self.token}):  # what a test has started in it and killed it over
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stdin.close()
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
        self._stderr.close()
        self._stdout.close()
        self.directory.cleanup()


class Refused(Exception):
    """The bridge refused a connection, or what came over it; its words."""


class Frames:
    """A connection of frames, with nothing of the worker's end but the framing."""

    def __init__(self, bridge: BridgeProcess, secret: str | None = None) -> None:
        self.connect(bridge)
        self.send(kinds.SECRET, (bridge.secret if secret is None else secret).encode())

    def connect(self, bridge: BridgeProcess) -> None:
        """Connects, and sends nothing."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(bridge.config["frames"]["socket"])
        self._reader = FrameReader(LONGEST)
        self._come: list[tuple[int, bytes]] = []

    def send(self, kind: int, payload: bytes) -> None:
        self.socket.sendall(pack(kind, payload))

    def next(self) -> tuple[int, bytes] | None:
        """The next frame, None at the end of the connection. Raises Refused."""
        while not self._come:
            data = self.socket.recv(65536)
            if not data:
                self._reader.end()
                return None
            self._come = self._reader.feed(data)
        kind, payload = self._come.pop(0)
        if kind == kinds.REFUSED:
            raise Refused(pb.Failure.FromString(payload).message)
        return kind, payload

    def ask(self, kind: int, payload: bytes, answer: int) -> bytes:
        self.send(kind, payload)
        came = self.next()
        assert came is not None and came[0] == answer, came
        return came[1]

    def close(self) -> None:
        self.socket.close()


class FramesCall:
    """A connection of frames that looks like a gRPC call: it takes an iterator of messages, and is one."""

    def __init__(self, bridge: BridgeProcess, messages) -> None:
        self._link = Frames(bridge)
        self._messages = messages
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the bridge has ended it: the reader hears of it
            for message in self._messages:
                self._link.send(kinds.TO_INTERPRETER, message.SerializeToString())
        self.cancel()

    def __iter__(self):
        while True:
            try:
                came = self._link.next()
            except OSError:  # closed at this end
                return
            if came is None:
                return
            assert came[0] == kinds.FROM_INTERPRETER, came
            yield pb.FromInterpreter.FromString(came[1])

    def cancel(self) -> None:
        """Ends it from this side."""
        with contextlib.suppress(OSError):
            self._link.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._link.close()


class Stream:
    """An attachment: frames out, and replies, host calls and released ids in, each in its place."""

    def __init__(self, bridge: BridgeProcess, protocol: int = 2, epoch=(7, 3), on_host_call=None) -> None:
        self._out: queue.SimpleQueue = queue.SimpleQueue()
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self._on_host_call = on_host_call
        self.welcome: pb.Welcome | None = None
        self.replies: dict[str, list[pb.Reply]] = {}
        self.chunks: dict[str, list[pb.Chunk]] = {}
        self.late: list[str] = []  # streams of which a chunk came after their reply
        self.released: list[str] = []
        self.host_calls: list[pb.HostCall] = []
        self.host_cancels: list[str] = []
        self.host_credits: list[pb.Credit] = []
        self.ended: Exception | str | None = None
        hello = pb.Hello(
            protocol=protocol, worker_id="w1", epoch=pb.Epoch(incarnation=epoch[0], number=epoch[1])
        )
        self._out.put(pb.ToInterpreter(hello=hello))
        self.call = self._called(bridge)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _called(self, bridge: BridgeProcess):
        messages = iter(self._out.get, None)
        if bridge.wire != "grpc":
            return FramesCall(bridge, messages)
        method = bridge.channel.stream_stream(
            SERVICE + "Attach",
            request_serializer=pb.ToInterpreter.SerializeToString,
            response_deserializer=pb.FromInterpreter.FromString,
        )
        return method(messages, metadata=bridge.metadata(), wait_for_ready=True)

    def _read(self) -> None:
        ended: Exception | str = "end of stream"
        try:
            for frame in self.call:
                with self._changed:
                    self._take(frame)
                    self._changed.notify_all()
        except (grpc.RpcError, Refused) as error:
            ended = error
        with self._changed:
            self.ended = ended
            self._changed.notify_all()

    def _take(self, frame: pb.FromInterpreter) -> None:
        if frame.HasField("welcome"):
            self.welcome = frame.welcome
        for chunk in frame.chunks:
            self.chunks.setdefault(chunk.id, []).append(chunk)
            if chunk.id in self.replies:
                self.late.append(chunk.id)
        for reply in frame.replies:
            self.replies.setdefault(reply.id, []).append(reply)
        self.released.extend(frame.released)
        self.host_cancels.extend(cancel.id for cancel in frame.host_cancels)
        self.host_credits.extend(frame.host_credits)
        for call in frame.host_calls:
            self.host_calls.append(call)
            if self._on_host_call is not None:
                self._out.put(pb.ToInterpreter(host_replies=[self._on_host_call(call)]))

    def until(self, true, timeout: float = TIMEOUT):
        """Waits until `true()` is, and gives what it gave. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: true() or self.ended is not None, timeout):
                raise TimeoutError("what was waited for did not come")
            value = true()
            if not value:
                raise ConnectionError(f"the stream ended: {self.ended}")
            return value

    def request(self, command: str, args: dict | bytes | None = None, buffers=(), **fields) -> str:
        """Sends a request; its id."""
        request_id = fields.pop("id", None) or f"r{next(self._ids)}"
        data = args if isinstance(args, bytes) else json.dumps(args or {}).encode()
        places = [b if isinstance(b, pb.Buffer) else pb.Buffer(inline=b) for b in buffers]
        payload = pb.Payload(json=data, buffers=places)
        self.send(requests=[pb.Request(id=request_id, command=command, args=payload, **fields)])
        return request_id

    def send(self, **fields) -> None:
        """Sends one frame."""
        self._out.put(pb.ToInterpreter(**fields))

    def cancel(self, request_id: str, reason: int = pb.Cancel.CALLER) -> None:
        self.send(cancels=[pb.Cancel(id=request_id, reason=reason)])

    def reply(self, request_id: str, timeout: float = TIMEOUT) -> pb.Reply:
        """The one reply to a request."""
        replies = self.until(lambda: self.replies.get(request_id), timeout)
        assert len(replies) == 1
        return replies[0]

    def result(self, request_id: str):
        """The JSON value of a reply. Raises CallFailed."""
        reply = self.reply(request_id)
        if reply.WhichOneof("outcome") == "failure":
            raise CallFailed(reply.failure)
        return json.loads(reply.value.json)

    def values(self, request_id: str) -> list:
        """The JSON values of the chunks that have come; their indices have no gap."""
        found: list = []
        for chunk in list(self.chunks.get(request_id, [])):
            value = json.loads(chunk.value.json)
            assert chunk.index == len(found)
            assert not chunk.packed or len(value) == chunk.packed
            found.extend(value if chunk.packed else [value])
        return found

    def stream(self, command: str, args: dict | None = None, credit: int = 10_000, **fields) -> str:
        """Sends a request for a stream; its id."""
        return self.request(command, args, stream=True, credit=credit, **fields)

    def run(self, command: str, args: dict | None = None, **fields):
        """Request and result."""
        return self.result(self.request(command, args, **fields))

    def failure(self, command: str, args: dict | bytes | None = None, buffers=(), **fields) -> CallFailed:
        """Request whose failure is expected."""
        try:
            value = self.result(self.request(command, args, buffers, **fields))
        except CallFailed as failed:
            return failed
        raise AssertionError(f"{command} gave {value!r}")

    def close(self) -> None:
        """Ends the stream from this side."""
        self._out.put(None)
        self._thread.join(TIMEOUT)
        if isinstance(self.call, FramesCall):
            self.call.close()
