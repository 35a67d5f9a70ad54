"""Adapters that write down what they execute, for who must not trust the pool's own word; and commands that
no worker likes.

Rules: each command writes its tag before it does anything else; a line is one write to a file opened for
appending, so that it survives a SIGKILL and several interpreters share the file; runs in any Python from 3.9.
The lines: `up TOKEN PID SUPERVISOR` once an interpreter, `begin TAG TOKEN`, `end TAG TOKEN TIME`
(time.monotonic, which all processes of a machine share)."""

import os
import subprocess
import sys
import time

from snakepit_bridge import Adapter, command

CHUNK = 1024 * 1024
CHILD = "import sys, time; kept = bytearray(b'x' * (int(sys.argv[1]) << 20)); time.sleep(float(sys.argv[2]))"


class Witness(Adapter):
    """Does next to nothing, and writes to the file `path` what it did."""

    __thread_safe__ = True

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._token = os.environ.get("SNAKEPIT_TOKEN", "-")

    def setup(self) -> None:
        self.note(f"up {self._token} {os.getpid()} {_supervisor()}")

    def note(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())

    def begins(self, tag: str) -> None:
        self.note(f"begin {tag} {self._token}")

    def ends(self, tag: str) -> None:
        self.note(f"end {tag} {self._token} {time.monotonic()}")

    @command
    def run(self, tag: str, seconds: float = 0.0) -> dict:
        """Takes `seconds`; answers with its tag."""
        self.begins(tag)
        time.sleep(seconds)
        self.ends(tag)
        return {"tag": tag, "pid": os.getpid()}


class Misbehaving(Witness):
    """Commands that hold, ignore and eat."""

    def __init__(self, path: str = os.devnull) -> None:
        super().__init__(path)
        self._kept: list = []

    @command
    def hold_gil(self, seconds: float, tag: str = "hold_gil") -> dict:
        """One call into C that keeps the GIL and a processor for `seconds`: no other thread runs
        meanwhile."""
        self.begins(tag)
        began = time.perf_counter()
        end = time.monotonic() + seconds
        any(map(end.__lt__, iter(time.monotonic, None)))  # all of it in C: nobody is asked to let go
        self.ends(tag)
        return {"tag": tag, "held_s": time.perf_counter() - began}

    @command
    def deaf(self, seconds: float, tag: str = "deaf") -> dict:
        """Runs for `seconds` whatever it is told meanwhile."""
        self.begins(tag)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.005)
        self.ends(tag)
        return {"tag": tag}

    @command
    def leak(self, megabytes: int, tag: str = "leak") -> dict:
        """Takes that much memory, touched, and keeps it."""
        self.begins(tag)
        self._kept.extend(b"x" * CHUNK for _ in range(megabytes))
        self.ends(tag)
        return {"tag": tag, "kept_mb": len(self._kept)}

    @command
    def leak_in_child(self, megabytes: int, seconds: float = 300.0, tag: str = "leak_in_child") -> dict:
        """Starts a process that takes that much and keeps it for `seconds`."""
        self.begins(tag)
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(megabytes), str(seconds)])
        self._kept.append(child)
        self.ends(tag)
        return {"tag": tag, "child": child.pid}

    @command
    def kept(self) -> dict:
        """Megabytes that `leak` keeps in this interpreter."""
        return {"kept_mb": sum(isinstance(chunk, bytes) for chunk in self._kept), "pid": os.getpid()}


def _supervisor() -> int:
    """The pid of the worker actor: the parent, or where that is a forker the parent of it."""
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            is_forker = b"--forker-fd" in file.read().split(b"\0")
        with open(f"/proc/{parent}/stat", "rb") as file:
            above = int(file.read().rpartition(b")")[2].split()[1])
    except OSError:  # not on this system, and so no forker
        return parent
    return above if is_forker else parent
