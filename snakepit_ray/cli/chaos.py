"""The command `chaos`: a storm against a running pool or one of its own, and what came of it.

Exit status: 1 when something was lost, duplicated, left behind or did not come back; failed requests alone
are what a storm may do, and are shown."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import secrets
import sys
import tempfile

from snakepit_ray.cli import clusters
from snakepit_ray.client.start import connect, start
from snakepit_ray.errors import ConfigError
from snakepit_ray.testing.accounting import StormResult
from snakepit_ray.testing.storm import Storm, witness_settings


def run(args: argparse.Namespace) -> int:
    """Runs the storm and prints its result."""
    if bool(args.pool) == args.start:
        raise ConfigError("chaos: name a running pool, or --start one: exactly one of the two")
    for name, least in (("kills", 0), ("seconds", 0.1), ("rate", 0.01), ("size", 1)):
        value = getattr(args, name)
        if value is not None and not least <= value < math.inf:  # nan is neither
            raise ConfigError(f"--{name}: got {value:g}, expected a number from {least:g}")
    storm = Storm(
        kill=args.kill,
        kills=args.kills,
        seconds=args.seconds,
        rate=args.rate,
        idempotent=args.idempotent,
        seed=args.seed,
        end_pool=args.start,
    )
    # Ray tells of every actor that we kill, on stdout: what is asked for stays alone there.
    with contextlib.redirect_stdout(sys.stderr), clusters.left_at_the_end():
        result = _on_its_own(storm, args) if args.start else _on_a_running_one(storm, args)
    print(json.dumps(result.as_dict(), indent=2) if args.json else result.report())
    return int(bool(result.wrong))


def _on_a_running_one(storm: Storm, args: argparse.Namespace) -> StormResult:
    clusters.join(args.address)
    return storm.run(connect(args.pool))


def _on_its_own(storm: Storm, args: argparse.Namespace) -> StormResult:
    clusters.join_or_begin(args.address)
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        settings = witness_settings(os.path.join(directory, "log"))
        with start(name=f"chaos-{secrets.token_hex(3)}", size=args.size, **settings) as pool:
            return storm.run(pool)
