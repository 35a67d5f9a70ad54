"""How a storm's requests are sent: at a given rate whatever becomes of them, from several threads.

- Open loop, so a pool that stalls is not spared.
- Each request gets a tag of its own and exactly one Outcome.
- What has none within its budget and MARGIN_SECONDS is lost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snakepit_ray.client.pool import Pool
from snakepit_ray.errors import SnakepitError
from snakepit_ray.testing.accounting import Outcome
from snakepit_ray.testing.plan import moments

MARGIN_SECONDS = 10.0


@dataclass(frozen=True)
class Load:
    """What is sent: `rate` requests a second for `seconds`, tags beginning with `name`."""

    name: str
    rate: float
    seconds: float
    request_seconds: float
    callers: int
    options: Mapping[str, Any]  # of each call; `timeout` is its budget


class Callers:
    """Threads that send a load to a pool."""

    def __init__(self, pool: Pool, load: Load) -> None:
        self.outcomes: list[Outcome] = []
        self._pool = pool
        self._load = load
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._call, args=(i,), name=f"storm-caller-{i}", daemon=True)
            for i in range(load.callers)
        ]

    def start(self, began: float) -> None:
        """Begins; the first request is due at `began` (monotonic)."""
        self._began = began
        for thread in self._threads:
            thread.start()

    def join(self) -> list[Outcome]:
        """Waits for the outcome of each request. Raises what broke a caller, if anything did."""
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        return self.outcomes

    def _call(self, caller: int) -> None:
        try:
            self.outcomes += asyncio.run(self._send_all(caller))
        except BaseException as error:  # noqa: BLE001 - raised again where the storm waits for us
            self._failed.append(error)

    async def _send_all(self, caller: int) -> list[Outcome]:
        load = self._load
        tasks = []
        for number, at in enumerate(moments(load.rate, load.seconds, caller, load.callers)):
            await asyncio.sleep(max(0.0, self._began + at - time.monotonic()))
            tasks.append(asyncio.ensure_future(self._send(f"{load.name}-{caller}-{number}")))
        return list(await asyncio.gather(*tasks))

    async def _send(self, tag: str) -> Outcome:
        args = {"tag": tag, "seconds": self._load.request_seconds}
        patience = self._load.options["timeout"] + MARGIN_SECONDS
        began = time.monotonic()
        call = asyncio.ensure_future(self._pool.call("run", args, **self._load.options))
        await asyncio.wait([call], timeout=patience)
        seconds = time.monotonic() - began
        if not call.done():
            call.cancel()
            return Outcome(tag, seconds)
        error = call.exception()
        if error is None:
            return Outcome(tag, seconds, answer=call.result()["tag"])
        if not isinstance(error, SnakepitError):
            error.__traceback__ = None  # thousands of frames are not worth keeping
        return Outcome(tag, seconds, error=error)
