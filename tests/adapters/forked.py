"""An adapter that says what an interpreter has, so that a forked one can be compared with an executed one."""

import ctypes
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from snakepit_bridge import Adapter, command

print("imported", flush=True)
AT_IMPORT = set(sys.modules)


class Forked(Adapter):
    """`ballast` is long; with `refuses` a forked interpreter cannot be made."""

    def __init__(self, ballast="", refuses=False):
        self.size = len(ballast)
        self.count = 0
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        if refuses and b"--forker-fd" in parent:
            raise RuntimeError("made by a fork")

    @command
    def count_up(self):
        """How many calls this instance has answered."""
        self.count += 1
        return self.count

    @command
    def about(self):
        """What may not depend on how it was started."""
        return {
            "descriptors": sorted(_kind(name) for name in os.listdir("/proc/self/fd")),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "handlers": [repr(_signal(number)) for number in range(1, 65)],
            "argv": sys.argv[1:],
            "path": sys.path,
            "ballast": self.size,
            "variables": sorted(os.environ),
            "cwd": os.getcwd(),
        }

    @command
    def own(self):
        """What must be of one interpreter alone."""
        tokens = [item for item in Path("/proc/self/environ").read_bytes().split(b"\0") if b"_TOKEN=" in item]
        locks = Path("/proc/self/limits").read_text().partition("Max file locks")[2].split()[0]
        return {
            "pid": os.getpid(),
            "random": random.random(),
            "ids": [uuid.uuid4().hex, uuid.uuid1().hex],
            "token": [os.environ["SNAKEPIT_TOKEN"], *[token.decode().partition("=")[2] for token in tokens]],
            "mark": int(locks),
        }

    @command
    def parent(self):
        return os.getppid()

    @command
    def imported_since(self):
        """Modules that were imported after this one."""
        return sorted(set(sys.modules) - AT_IMPORT)

    @command
    def says(self):
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)

    @command
    def descendants(self):
        """Processes that execute nothing, a child and one whose parent is gone, and one that does."""
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).pause()
        reading, writing = os.pipe()
        if os.fork() == 0:
            orphan = os.fork()
            if orphan == 0:
                ctypes.CDLL(None).pause()
            os.write(writing, str(orphan).encode())
            os._exit(0)
        os.wait()
        executed = subprocess.Popen(["sleep", "600"], env={})
        return [child, int(os.read(reading, 20)), executed.pid]

    @command
    def end(self, code: int = 0, by: int = 0):
        """Ends this process, by a signal or with a code."""
        os.write(2, b"last words\n")
        if by:
            os.kill(os.getpid(), by)
            time.sleep(20)
        os._exit(code)


def _kind(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}").partition(":[")[0]
    except OSError:
        return "the list"


def _signal(number):
    import signal

    handler = signal.getsignal(number)
    return getattr(handler, "__qualname__", handler)
