"""The command line `snakepit-ray`: what each command takes; the work is in the modules beside this one.

Exit status: 0 when it did what was asked, 1 when not (the reason is on stderr), 2 for words that it does not
know, 3 of `status` when something is not ready, 130 after Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from snakepit_ray import __version__
from snakepit_ray.cli.printing import survive_any_encoding
from snakepit_ray.errors import SnakepitError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status."""
    survive_any_encoding(sys.stdout, sys.stderr)
    args = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        status = run(args)
        sys.stdout.flush()
        return status
    except SnakepitError as error:
        print(f"snakepit-ray: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `snakepit-ray status | head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    top = argparse.ArgumentParser(prog="snakepit-ray", description="Pools of external interpreters on Ray.")
    top.add_argument("--version", action="version", version=f"snakepit-ray {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    _life_commands(commands)
    _call_command(commands)
    _look_commands(commands)
    _chaos_command(commands)
    _machine_commands(commands)
    return top


def _life_commands(commands: Any) -> None:
    up = commands.add_parser("up", help="start the pools of a snakepit.toml; they outlive this command")
    up.add_argument("file", nargs="?", default="snakepit.toml")
    _cluster(up, lambda args: _pools().up(args.file, args.address))

    down = commands.add_parser("down", help="end pools")
    down.add_argument("names", nargs="*", metavar="POOL", help="which")
    down.add_argument("--all", action="store_true", help="every pool of the cluster, whoever started it")
    _cluster(down, lambda args: _pools().down(args.names, args.all, args.address))

    recycle = commands.add_parser("recycle", help="replace a pool's interpreters, a quarter at a time")
    recycle.add_argument("pool")
    recycle.add_argument("worker", nargs="?", help="only this worker's (default: all)")
    _cluster(recycle, lambda args: _pools().recycle(args.pool, args.worker, args.address))


def _look_commands(commands: Any) -> None:
    status = commands.add_parser("status", help="the pools that run, whether they are ready, their workers")
    status.add_argument("--json", action="store_true")
    status.add_argument("--detailed", action="store_true", help="with the last events of each worker")
    _cluster(status, lambda args: _status().status(args.json, args.detailed, args.address))

    describe = commands.add_parser("describe", help="the commands and tools of a pool, and what they take")
    describe.add_argument("pool")
    describe.add_argument("--json", action="store_true", help="with the JSON schema of their arguments")
    _cluster(describe, lambda args: _pools().describe(args.pool, args.json, args.address))

    demo = commands.add_parser("demo", help="a short tour on a pool of two interpreters")
    demo.add_argument(
        "--address", help="the Ray cluster (default: RAY_ADDRESS, else one that ends with the tour)"
    )
    demo.set_defaults(run=lambda args: _pools().demo(args.address))


def _machine_commands(commands: Any) -> None:
    processes = commands.add_parser("processes", help="the interpreters on this machine, also without Ray")
    processes.add_argument("--json", action="store_true")
    processes.set_defaults(run=lambda args: _processes().show(args.json))

    cleanup = commands.add_parser(
        "cleanup", help="end interpreters whose worker is gone, and remove what is left"
    )
    cleanup.set_defaults(run=lambda args: _processes().cleanup())

    doctor = commands.add_parser("doctor", help="what is here, what is missing, and what to do about it")
    doctor.add_argument("interpreters", nargs="*", metavar="PYTHON", help="more interpreters to look at")
    _cluster(doctor, lambda args: _doctor().run(args.interpreters, args.address))

    setup = commands.add_parser("setup", help="install the bridge into another interpreter")
    setup.add_argument("interpreter")
    setup.add_argument("--yes", action="store_true", help="do not ask before installed packages change")
    setup.set_defaults(run=lambda args: _setup().run(args.interpreter, args.yes))


def _call_command(commands: Any) -> None:
    call = commands.add_parser("call", help="run one command and print its value as JSON")
    call.add_argument("pool")
    call.add_argument("command")
    call.add_argument(
        "args", nargs="?", default="{}", metavar="JSON", help='arguments, such as \'{"a": 5, "b": 3}\''
    )
    call.add_argument("--session")
    call.add_argument("--timeout", type=float)
    _cluster(call, lambda args: _pools().call(args))


def _chaos_command(commands: Any) -> None:
    chaos = commands.add_parser("chaos", help="kill parts of a pool under load and account for every request")
    chaos.add_argument("pool", nargs="?", help="a running pool whose adapter is the witness")
    chaos.add_argument("--start", action="store_true", help="start a pool of its own, and end it")
    chaos.add_argument("--size", type=int, default=8, help="workers of that pool (default: 8)")
    kinds = ("interpreters", "actors", "router", "everything")
    chaos.add_argument("--kill", choices=kinds, default="interpreters", help="what is killed, by SIGKILL")
    chaos.add_argument("--kills", type=int, default=60)
    chaos.add_argument("--seconds", type=float, default=60.0)
    chaos.add_argument("--rate", type=float, help="requests a second (default: half of what the pool can do)")
    idempotent = chaos.add_mutually_exclusive_group()
    idempotent.add_argument("--idempotent", action="store_true", default=True, help="the default")
    idempotent.add_argument("--not-idempotent", dest="idempotent", action="store_false")
    chaos.add_argument("--seed", type=int, default=0)
    chaos.add_argument("--json", action="store_true")
    _cluster(chaos, lambda args: _chaos().run(args))


def _cluster(command: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    command.add_argument(
        "--address", help="the Ray cluster (default: RAY_ADDRESS, else the only one on this machine)"
    )
    command.set_defaults(run=run)


# Each command loads only what it needs: `doctor` must work where Ray does not.


def _pools() -> Any:
    from snakepit_ray.cli import pools

    return pools


def _status() -> Any:
    from snakepit_ray.cli import status

    return status


def _processes() -> Any:
    from snakepit_ray.cli import processes

    return processes


def _chaos() -> Any:
    from snakepit_ray.cli import chaos

    return chaos


def _doctor() -> Any:
    from snakepit_ray.cli import doctor

    return doctor


def _setup() -> Any:
    from snakepit_ray.cli import setup

    return setup
