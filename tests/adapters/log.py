"""An adapter that writes down what it executes: the child's own word on what ran, for tests that must not
trust the pool's."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from snakepit_bridge import Adapter, command


class Log(Adapter):
    """Commands append their `tag` to the file `path` before they do anything else."""

    def __init__(self, path=None, ballast="", linger=None):
        self.path = path
        self.size = len(ballast)
        self.state = {}
        self.linger = linger

    def teardown(self):
        """Takes until the file `linger` exists."""
        deadline = time.monotonic() + 20
        while self.linger and not Path(self.linger).exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    def note(self, tag):
        if self.path:
            with open(self.path, "a") as file:
                file.write(f"{tag}\n")

    @command
    def run(self, tag: str, seconds: float = 0.0):
        self.note(tag)
        time.sleep(seconds)
        return {"tag": tag, "pid": os.getpid()}

    @command(idempotent=True)
    def die_once(self, tag: str, marker: str):
        """Kills its interpreter the first time it is called."""
        self.note(tag)
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), 9)
        return {"tag": tag, "pid": os.getpid()}

    @command
    def die(self, tag: str = "die"):
        self.note(tag)
        os.write(2, b"about to die\n")
        os._exit(7)

    @command
    def until_cancelled(self, ctx, tag: str, seconds: float = 30.0):
        """Runs until it is told to stop; writes that it was."""
        self.note(tag)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if ctx.cancelled:
                self.note(f"{tag}:cancelled")
                ctx.raise_if_cancelled()
            time.sleep(0.005)
        return {"tag": tag}

    @command
    async def until_cancelled_async(self, tag: str):
        self.note(tag)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.note(f"{tag}:cancelled")
            raise
        return {"tag": tag}

    @command
    def until_file(self, tag: str, path: str):
        """Holds its slot until `path` exists."""
        self.note(tag)
        deadline = time.monotonic() + 60
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        return {"tag": tag, "pid": os.getpid()}

    @command
    def stream(self, ctx, tag: str, count: int = 10**9, end: str = "", size: int = 0):
        """Yields numbers and notes how many it produced; `end`: raise, die or wait, after the last."""
        self.note(tag)
        self.produced = 0
        try:
            for i in range(count):
                self.produced = i + 1
                yield {"i": i, "x": "x" * size} if size else {"i": i}
            if end == "raise":
                raise ValueError("at the end")
            if end == "die":
                with contextlib.suppress(RuntimeError):  # answered when the chunks before it have been read
                    ctx.host("worker.info")
                os._exit(7)
            if end == "wait":
                ctx.wait(60)
        finally:
            self.note(f"{tag}:{'cancelled' if ctx.cancelled else 'ended'}:{self.produced}")

    @command
    async def stream_async(self, ctx, tag: str, count: int = 10**9):
        self.note(tag)
        produced = 0
        try:
            for i in range(count):
                produced = i + 1
                yield {"i": i}
                await asyncio.sleep(0)
        finally:
            self.note(f"{tag}:{'cancelled' if ctx.cancelled else 'ended'}:{produced}")

    @command
    def report(self, ctx, count: int):
        for i in range(count):
            ctx.progress(i + 1, count, "working")
            yield i

    @command
    def session_stream(self, ctx, count: int):
        for i in range(count):
            self.state.setdefault(ctx.session_id, []).append(i)
            yield {"pid": os.getpid(), "session": ctx.session_id, "seen": len(self.state[ctx.session_id])}

    @command
    def remember(self, ctx, value: int):
        self.state.setdefault(ctx.session_id, []).append(value)
        return {"pid": os.getpid(), "session": ctx.session_id, "values": self.state[ctx.session_id]}

    @command
    def ballast(self):
        return self.size

    @command
    def output_of(self, argv: list):
        """What a program prints that is started by its name."""
        import subprocess

        return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout

    @command
    def environment(self):
        return {"env": dict(os.environ), "cwd": os.getcwd(), "nice": os.nice(0), "pid": os.getpid()}

    @command
    def spawn(self):
        """Starts a grandchild that would outlive everybody."""
        import subprocess

        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        return {"pid": os.getpid(), "grandchild": child.pid}

    @command
    def host_info(self, ctx):
        return ctx.host("worker.info")

    @command
    def host_unknown(self, ctx):
        return ctx.host("no.such.method")

    @command
    def unencodable(self):
        return {"x": [1, {"y": object()}]}

    @command
    def raises(self, name: str):
        import builtins

        raise getattr(builtins, name)("as asked")

    @command
    def identity(self, **values):
        return values
