"""Runs one seed of the stress (`python -m tests.stress SEED`), or new ones for `--seconds`."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument(
        "seed", type=int, nargs="?", help="one seed; default: new ones, each in a process of its own"
    )
    parser.add_argument("--steps", type=int, default=250, help="turns of one seed (default 250)")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="how long new seeds are begun (default 300)"
    )
    parser.add_argument("--first", type=int, default=int(time.time()), help="the first new seed")
    asked = parser.parse_args()
    return _one(asked.seed, asked.steps) if asked.seed is not None else _many(asked)


def _one(seed: int, steps: int) -> int:
    where = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))  # short: a socket's path has 107 bytes at most
    (where / "t").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(where / "t")
    logging.basicConfig(
        filename=where / "story", level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s"
    )
    from tests.stress.driver import run  # after TMPDIR is set: modules read it

    report = run(seed, steps, where)
    print(report, flush=True)
    if not report.faults:
        shutil.rmtree(where, ignore_errors=True)
    else:
        print(f"  what happened is in {where}")
    return 1 if report.faults else 0


def _many(asked: argparse.Namespace) -> int:
    deadline, seeds, bad = time.monotonic() + asked.seconds, 0, []
    while time.monotonic() < deadline:
        seed = asked.first + seeds
        command = [sys.executable, "-m", "tests.stress", str(seed), "--steps", str(asked.steps)]
        try:
            failed = subprocess.run(command, timeout=600, check=False).returncode
        except subprocess.TimeoutExpired:
            print(f"seed {seed}: no end within 600 s", flush=True)
            failed = 1
        bad += [seed] if failed else []
        seeds += 1
    print(f"{seeds} seeds from {asked.first}, {len(bad)} with faults: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
