"""How a pool's router is asked from outside of the pool, and what its silence or its end means.

Rules:
- A router that is being restarted is asked again, by Ray (`ray_port.survives_restarts`), within the bound.
- An error names what was asked and whom: the router, never a worker.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import ray

from snakepit_ray.errors import DeadlineExceeded, SnakepitError, WorkerStartError
from snakepit_ray.port import leftovers, ray_port
from snakepit_ray.process.awaiting import within

END_SECONDS = 30.0  # for a router to end its workers politely
MISSING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
OWN_PACKAGE = "snakepit_ray"
RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Interrupt|Exit)\b.*$", re.MULTILINE)


def ask(router: Any, pool: str, seconds: float, method: str, *args: Any) -> Any:
    """What the router of `pool` answers, within so many seconds. Blocks. Raises our errors."""
    ref = getattr(router, method).remote(*args)
    try:
        return ray.get(ref, timeout=seconds)
    except ray_port.RayError as error:
        raise control_error(error, pool, method, seconds) from None


async def ask_async(router: Any, pool: str, seconds: float, method: str, *args: Any) -> Any:
    """`ask` for asyncio."""
    ref = getattr(router, method).remote(*args)
    try:
        return await within(seconds, ref)
    except (ray_port.RayError, asyncio.TimeoutError) as error:
        raise control_error(error, pool, method, seconds) from None


def end(router: Any, pool: str) -> None:
    """Ends a pool, its workers first, whatever its router answers. Blocks. Safe to repeat."""
    ray_port.quietly(router.shutdown.remote(), END_SECONDS)
    ray_port.end(router)
    leftovers.reap(pool)


def control_error(error: Exception, pool: str, method: str, seconds: float) -> Exception:
    """Our error for what went wrong with a question to a router; itself where it has no meaning of ours."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, SnakepitError):
        return cause
    if isinstance(error, ray_port.GetTimeout | asyncio.TimeoutError | ray_port.ActorUnavailable):
        return DeadlineExceeded(
            f"the router of pool {pool!r} did not answer {method!r} within {seconds:g} s; it may be "
            "restarting or its machine overloaded, and calls to the workers go on without it: ask again",
            budget_s=seconds,
            where="waiting",
        )
    if isinstance(error, ray_port.ActorDied):
        return _died(str(error), pool)
    return ray_port.translate(error, pool, seconds) or error


def _died(text: str, pool: str) -> SnakepitError:
    """For a router that is gone for good, by Ray's text about it."""
    if "creation task" not in text:
        return ray_port.pool_gone(text, pool)
    return WorkerStartError(f"the router of pool {pool!r} could not start: {creation_cause(text)}")


def creation_cause(text: str) -> str:
    """Why an actor's creation failed, and the cure where there is a usual one, from Ray's text about it."""
    missing = MISSING.search(text)
    if missing is None:
        raised = RAISED.findall(text)
        return raised[-1] if raised else text.strip()
    module = missing.group(1)
    package = "snakepit-ray" if module.partition(".")[0] == OWN_PACKAGE else f"what has {module!r}"
    return (
        f"{missing.group(0)}: the Python of the cluster's nodes lacks it. Install {package} on every node, "
        "or bring it along with a runtime_env: ray.init(runtime_env={'pip': [...]}) or 'py_modules'"
    )
