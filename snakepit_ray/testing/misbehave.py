"""How bridges go wrong, and is one: started as any bridge is. `adapter_args["how"]` says what happens.

Never right: no_ready, hang, garbage_ready, wrong_version, exit_at_once. The real bridge, with a twist:
stderr_flood, stdout_garbage, ignore_sigterm, die_on_command (dies of any command); freeze (answers its
first request, then stops itself by SIGSTOP); crash_loop (gets ready, dies `after` seconds later);
crash_at_start_times (dies at start the first `times` times, one byte each in the file `counter`, then
works); hold_gil, deaf, leak (serves the adapter `Misbehaving`, which has these commands).

- Runs as a script in any Python from 3.9 that has the bridge's requirements, so it imports nothing of
  snakepit_ray.
- What works otherwise hands its start over to the real bridge, with the configuration line on a pipe of its
  own and without the arguments that are ours.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BRIDGES = (
    HERE.parent / "_bridge" / "python",  # a wheel
    HERE.parents[1] / "bridge" / "python",  # a checkout
)
EXIT_STATUS = 7
FLOOD_BYTES = 32 * 1024 * 1024
CRASH_AFTER_SECONDS = 0.2
OURS = ("how", "after", "times", "counter")


class DyingAdapter:
    """Whatever it is asked for, it dies: by the signal `signal`, or with the exit status `status`."""

    __thread_safe__ = True
    __execute_methods__ = True

    def execute_echo(self, args):
        if args.get("signal"):
            os.kill(os.getpid(), args["signal"])
        os._exit(args.get("status", EXIT_STATUS))

    execute_add = execute_ping = execute_die = execute_echo


def main() -> None:
    ready = int(sys.argv[sys.argv.index("--ready-fd") + 1])
    line = read_line()
    config = json.loads(line)
    args = config["adapter_args"]
    how = args["how"]
    behaviours = {
        "no_ready": wait_for_ever,
        "hang": hang,
        "garbage_ready": lambda: say(ready, b"\xff\xfe not json {{{\n"),
        "wrong_version": lambda: say(ready, b'{"snakepit": 99, "address": "unix:/nowhere", "pid": 1}\n'),
        "exit_at_once": leave,
        "stderr_flood": lambda: serve(config, flood),
        "stdout_garbage": lambda: serve(config, garbage),
        "ignore_sigterm": lambda: serve(config, ignore_sigterm),
        "die_on_command": lambda: serve(config, adapter="__main__:DyingAdapter"),
        "freeze": lambda: serve(config, freeze_after_an_answer),
        "crash_loop": lambda: serve(config, lambda: die_when_ready(args.get("after", CRASH_AFTER_SECONDS))),
        "crash_at_start_times": lambda: fail_first(config, args["counter"], args["times"]),
    }
    for command in ("hold_gil", "deaf", "leak"):
        behaviours[command] = lambda: serve(config, adapter=f"{HERE / 'adapters.py'}:Misbehaving")
    if how not in behaviours:
        sys.exit(f"misbehave.py does not know {how!r}: it knows {', '.join(behaviours)}")
    behaviours[how]()


def read_line() -> bytes:
    """The configuration line. The host writes nothing behind it: what follows is only the end of stdin."""
    line = bytearray()
    while not line.endswith(b"\n"):
        block = os.read(0, 1 << 16)
        if not block:
            sys.exit("stdin ended before the configuration line")
        line += block
    return bytes(line)


# ---- never right ---------------------------------------------------------------------------------------


def wait_for_ever() -> None:
    """Never gets ready; ends with its host, as SIGTERM and the end of stdin do."""
    while os.read(0, 4096):
        pass


def hang() -> None:
    """As no_ready, and deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever()


def say(ready: int, line: bytes) -> None:
    os.write(ready, line)
    os.close(ready)
    wait_for_ever()


def leave() -> None:
    os.write(2, b"misbehave: leaving at once, as I was told\n")
    os._exit(EXIT_STATUS)


# ---- the real bridge, with a twist -----------------------------------------------------------------------


def flood() -> None:
    chunk = b"misbehave: flooding stderr\n" * 4096
    for _ in range(FLOOD_BYTES // len(chunk)):
        os.write(2, chunk)


def garbage() -> None:
    os.write(1, b'\xff\xfe\x00{"snakepit": 2}\nGRPC_READY:1\n' + bytes(range(256)) + b"\n")


def ignore_sigterm() -> None:
    from snakepit_bridge.main import bridge

    bridge.Bridge._terminated = lambda self, *_: None


def freeze_after_an_answer() -> None:
    """gRPC asks for the next message when the last one is sent, and frames are sent by `write`, or by the
    thread that has the socket: the answer is out before we stop."""
    from snakepit_bridge.server import outgoing, writer

    real, write = outgoing.Queued.frames, writer.Writer.write

    def frames(self):
        for frame in real(self):
            yield frame
            if frame.replies:
                os.kill(os.getpid(), signal.SIGSTOP)

    def written(self):
        write(self)
        while self._items:
            time.sleep(0.001)
        with self._lock:  # whoever has sent the last of them has let go of the socket
            os.kill(os.getpid(), signal.SIGSTOP)

    outgoing.Queued.frames, writer.Writer.write = frames, written


def die_when_ready(seconds: float) -> None:
    from snakepit_bridge.main import bridge

    real = bridge.Bridge._say

    def say_and_die(self, line):
        real(self, line)
        timer = threading.Timer(seconds, os._exit, (EXIT_STATUS,))
        timer.daemon = True
        timer.start()

    bridge.Bridge._say = say_and_die


def fail_first(config: dict, counter: str, times: int) -> None:
    """One byte in the file `counter` for each failed start."""
    path = Path(counter)
    if (path.stat().st_size if path.exists() else 0) < times:
        with path.open("ab") as file:
            file.write(b".")
        leave()
    serve(config)


def serve(config: dict, first=None, *, adapter: str | None = None) -> None:
    """Does `first`, then is the real bridge; with `adapter` in the place of the one that was asked for."""
    bridge = next((path for path in BRIDGES if path.is_dir()), None)
    if bridge is None:
        sys.exit(f"misbehave.py finds no bridge: looked for {' and '.join(map(str, BRIDGES))}")
    sys.path[:] = [str(bridge), *(path for path in sys.path if path != str(HERE))]
    if first is not None:
        first()
    config["adapter_args"] = {key: val for key, val in config["adapter_args"].items() if key not in OURS}
    config["adapter"] = adapter or config["adapter"]
    take_over_stdin(config)
    from snakepit_bridge.main.bridge import main

    main()


def take_over_stdin(config: dict) -> None:
    """Puts a pipe in the place of stdin: the line without our own arguments, then the host's end of file."""
    host = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    os.write(writing, json.dumps(config).encode() + b"\n")

    def relay() -> None:
        while os.read(host, 4096):
            pass
        os.close(writing)  # the host has gone: so has the bridge's

    threading.Thread(target=relay, daemon=True).start()


if __name__ == "__main__":
    main()
