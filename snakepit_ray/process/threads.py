"""Threads of our own for what blocks, so that no event loop waits for a disk, for /proc or for another
process.

Rules: not the default executor, which others may fill. A job that was begun ends, whatever becomes of its
caller: a process that is started or files that are removed by halves are nobody's."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from snakepit_ray.process.awaiting import finish

THREADS = 8

T = TypeVar("T")


async def aside(job: Callable[..., T], *args: object) -> T:
    """The result of `job(*args)`, which runs in a thread. Raises what the job raises.

    A caller that is cancelled waits for the end of the job, and is cancelled then."""
    return await finish(asyncio.get_running_loop().run_in_executor(_threads(), job, *args))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="snakepit-process")
