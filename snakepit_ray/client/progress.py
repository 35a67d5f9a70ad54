"""How reports of progress look: one line that is written over in a terminal or a notebook, plain lines
elsewhere.

- Everything goes to stderr, so that output stays output.
- Plain lines come at most once for each tenth of the whole (without a total: at most one in PLAIN_SECONDS),
  so that a log is not flooded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from snakepit_ray.wire.codec import Progress

WIDTH = 30
REDRAW_SECONDS = 0.05
PLAIN_SECONDS = 5.0


def line(report: Progress, elapsed: float) -> str:
    """`[#####.....]  50 % 5/10 message (1.2 s)`."""
    message = f" {report.message}" if report.message else ""
    if not report.total:
        return f"{report.done:g}{message} ({elapsed:.1f} s)"
    share = min(1.0, max(0.0, report.done / report.total))
    full = int(share * WIDTH)
    bar = "#" * full + "." * (WIDTH - full)
    return f"[{bar}] {share:4.0%} {report.done:g}/{report.total:g}{message} ({elapsed:.1f} s)"


class Bar:
    """Shows the reports of one stream. `close` ends the line."""

    def __init__(
        self,
        file: IO[str] | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._file = sys.stderr if file is None else file
        self._live = live if live is not None else self._file.isatty() or "ipykernel" in sys.modules
        self._began = self._clock()
        self._shown_at = float("-inf")
        self._step = -1
        self._width = 0  # of the line that is on the screen
        self._last: Progress | None = None

    def __call__(self, report: Progress) -> None:
        """Shows a report, unless another one was shown a moment ago."""
        self._last = report
        now = self._clock()
        whole = bool(report.total) and report.done >= (report.total or 0)
        if self._live:
            if whole or now - self._shown_at >= REDRAW_SECONDS:
                self._draw(report, now)
        elif self._is_due(report, now):
            self._shown_at = now
            print(line(report, now - self._began), file=self._file, flush=True)

    def close(self) -> None:
        """The stream has ended."""
        if self._live and self._last is not None:
            self._draw(self._last, self._clock())
            print(file=self._file, flush=True)
        self._last = None

    def _draw(self, report: Progress, now: float) -> None:
        text = line(report, now - self._began)
        print("\r" + text.ljust(self._width), end="", file=self._file, flush=True)
        self._width, self._shown_at = len(text), now

    def _is_due(self, report: Progress, now: float) -> bool:
        if not report.total:
            return now - self._shown_at >= PLAIN_SECONDS
        step = int(10 * report.done / report.total)
        before, self._step = self._step, step
        return step != before
