"""A bridge that misbehaves on command: started as any bridge is; `adapter_args["how"]` says what goes wrong.

no_ready, garbage_ready, wrong_version, exit_at_once, stderr_flood, stdout_garbage, ignore_sigterm,
die_on_command, hang. Those that must work otherwise hand the start over to the real bridge, with the
configuration line on a pipe of their own; die_on_command serves an adapter that dies of any command.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

BRIDGE = Path(__file__).resolve().parents[2] / "bridge" / "python"
EXIT_STATUS = 7
FLOOD_BYTES = 32 * 1024 * 1024


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
    how = json.loads(line)["adapter_args"]["how"]
    behaviours = {
        "no_ready": wait_for_ever,
        "hang": hang,
        "garbage_ready": lambda: say(ready, b"\xff\xfe not json {{{\n"),
        "wrong_version": lambda: say(ready, b'{"snakepit": 99, "address": "unix:/nowhere", "pid": 1}\n'),
        "exit_at_once": leave,
        "stderr_flood": lambda: serve(line, flood),
        "stdout_garbage": lambda: serve(line, garbage),
        "ignore_sigterm": lambda: serve(line, lambda: None, ignore_sigterm=True),
        "die_on_command": lambda: serve(line, lambda: None, dying=True),
    }
    if how not in behaviours:
        sys.exit(f"misbehave.py does not know {how!r}: it knows {', '.join(behaviours)}")
    behaviours[how]()


def read_line() -> bytes:
    """The configuration line, byte by byte, so that nothing behind it is taken."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("stdin ended before the configuration line")
        line += byte
    return line


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
    print("misbehave: leaving at once, as I was told", file=sys.stderr, flush=True)
    os._exit(EXIT_STATUS)


def flood() -> None:
    chunk = b"misbehave: flooding stderr\n" * 4096
    for _ in range(FLOOD_BYTES // len(chunk)):
        os.write(2, chunk)


def garbage() -> None:
    os.write(1, b'\xff\xfe\x00{"snakepit": 1}\nGRPC_READY:1\n' + bytes(range(256)) + b"\n")


def serve(line: bytes, first, *, ignore_sigterm: bool = False, dying: bool = False) -> None:
    """Does `first`, then is the real bridge with this file's adapter."""
    sys.path.insert(0, str(BRIDGE))
    first()
    hand_over(line, dying)
    from snakepit_bridge import main as bridge

    if ignore_sigterm:
        bridge.Bridge._terminated = lambda self, *_: None
    bridge.main()


def hand_over(line: bytes, dying: bool) -> None:
    """Puts a pipe in the place of stdin: the line without our own argument, and the host's end of file."""
    config = json.loads(line)
    del config["adapter_args"]["how"]
    if dying:
        config["adapter"] = "__main__:DyingAdapter"
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
