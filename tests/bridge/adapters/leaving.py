"""An adapter that leaves things open, as programs do that rely on the end of the process."""

import concurrent.futures
import gzip
import os
import subprocess
import sys
import time
from multiprocessing import shared_memory

from snakepit_bridge import Adapter, command

HELPER = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(sys.argv[1], "helper").write_text("cleaned")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(600)
"""


class Last:
    def __init__(self, path):
        self.path = path

    def __del__(self, open=open):
        with open(self.path, "w") as file:
            file.write("deleted")


class Leaving(Adapter):
    def __init__(self, path: str):
        self.path = path
        self.last = Last(os.path.join(path, "last"))

    @command
    def leave(self):
        self.text = open(os.path.join(self.path, "text"), "w")  # noqa: SIM115
        self.text.write("buffered")
        self.zipped = gzip.open(os.path.join(self.path, "zipped"), "wb")  # noqa: SIM115
        self.zipped.write(b"buffered")
        self.memory = shared_memory.SharedMemory(create=True, size=4096)
        self.executor = concurrent.futures.ThreadPoolExecutor(1)
        self.executor.submit(self.write_late)
        self.helper = subprocess.Popen([sys.executable, "-c", HELPER, self.path])
        while not os.path.exists(os.path.join(self.path, "ready")):
            time.sleep(0.01)
        return self.memory.name

    def write_late(self):
        time.sleep(0.1)
        with open(os.path.join(self.path, "late"), "w") as file:
            file.write("written")

    @command
    def leave_a_full_pipe(self):
        """Nobody reads it, and flushing it would take for ever."""
        _, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        self.full = open(writing, "wb")  # noqa: SIM115
        self.full.write(b"more")
