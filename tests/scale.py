"""How large the long storms are, in one place. `SNAKEPIT_STORMS=0.05` runs a twentieth of each."""

from __future__ import annotations

import os

SCALE = float(os.environ.get("SNAKEPIT_STORMS", "1"))


def scaled(full: int) -> int:
    """As many as that, by the scale of this run; at least 4."""
    return max(4, round(full * SCALE))


INTERRUPTS = scaled(2_000)  # of a thread that makes blocking calls, beside others
ORDERS = scaled(1_000)  # sequences of a session's calls, over both ways
KILLS = scaled(200)  # of interpreters, and of worker actors, under load over the lane
OPERATIONS = scaled(20_000)  # of callers and commands on variables, while everything dies
