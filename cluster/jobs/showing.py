"""What the jobs of this folder share: the cluster that they join, and lines that say what came of a step."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray


def join_ray() -> None:
    """The cluster that RAY_ADDRESS names, as in a submitted job; else one of this process's own, without its
    log lines."""
    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        say("starting Ray on this machine")
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)


def say(text: str) -> None:
    print(text, flush=True)


def show(what: str, found: Any, expected: Any) -> None:
    """Says what was found. Ends the program with an error where that is not what was expected."""
    say(f"{what}: {found}")
    if found != expected:
        raise SystemExit(f"expected {expected}")
