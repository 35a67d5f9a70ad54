"""An adapter whose commands start processes that do not want to be found."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from snakepit_bridge import Adapter, command

SLEEP = "import time; time.sleep(600)"

# What setproctitle does: the title is written over the environment.
RETITLED = """
import ctypes, time
fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
print("titled", flush=True)
time.sleep(600)
"""

# A daemon as the books have it: its parents are gone, its session, group and environment are its own.
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
time.sleep(600)
"""


class Family(Adapter):
    """Each command starts one kind of process; its pid."""

    def __init__(self, ballast=None):
        pass

    @command
    def cleaned(self):
        return subprocess.Popen([sys.executable, "-c", SLEEP], env={}).pid

    @command
    def own_session(self):
        return subprocess.Popen([sys.executable, "-c", SLEEP], env={}, start_new_session=True).pid

    @command
    def retitled(self):
        child = subprocess.Popen([sys.executable, "-c", RETITLED], stdout=subprocess.PIPE)
        child.stdout.readline()
        return child.pid

    @command
    def daemon(self):
        said = subprocess.run([sys.executable, "-c", DAEMON], env={}, stdout=subprocess.PIPE, check=True)
        return int(said.stdout)

    @command
    def unmarked(self):
        """A child that has neither the token nor the mark: its parent alone shows whose it is."""
        script = "import resource; resource.setrlimit(10, (-1, -1))\n" + SLEEP
        child = subprocess.Popen([sys.executable, "-c", script], env={})
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            line = Path(f"/proc/{child.pid}/limits").read_text().partition("Max file locks")[2]
            if line.split()[0] == "unlimited":
                break
            time.sleep(0.005)
        return child.pid

    @command
    def forker(self, seconds: float = 30.0):
        """A process with a cleaned environment that forks on and on: its children end at once."""
        script = (
            "import os, time\n"
            f"end = time.monotonic() + {seconds}\n"
            "while time.monotonic() < end:\n"
            "    if os.fork() == 0: time.sleep(600)\n"
            "    time.sleep(0.02)\n"
        )
        return subprocess.Popen([sys.executable, "-c", script], env={}, start_new_session=True).pid

    @command
    def many(self, count: int):
        """So many children with a cleaned environment; they share this process's memory."""
        pids = []
        for _ in range(count):
            pid = os.fork()
            if not pid:
                ctypes.CDLL(None).pause()
            pids.append(pid)
        return len(pids)

    @command
    def shared_memory(self):
        """Memory with a name, which Python's tracker removes when this process has gone without doing so."""
        from multiprocessing import resource_tracker, shared_memory

        self.memory = shared_memory.SharedMemory(create=True, size=4096)
        return [self.memory.name, resource_tracker._resource_tracker._pid]

    @command
    def prints(self, what: str, size: int):
        """So many bytes on stdout: nothing but ends of lines, or one line."""
        data = (b"\n" if what == "lines" else b"x") * 65_536
        for _ in range(size // len(data)):
            os.write(1, data)

    @command
    def die(self):
        os._exit(7)

    @command
    def stuck(self):
        """A child, and then a call that no cancellation ends."""
        child = self.own_session()
        print(f"stuck {child}", flush=True)
        time.sleep(600)
