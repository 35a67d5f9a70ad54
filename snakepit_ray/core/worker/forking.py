"""When a worker's interpreters are forked instead of executed.

Rules:
- A forker costs about what one execution costs, and the memory of what it has imported. So there is one only
  while interpreters are replaced often, and none in a pool that never replaces any.
- A start that fails in a forked interpreter is repeated in an executed one. When that one starts, the fork
  was at fault: the worker forks no more.
- Whoever replaces an interpreter by hand wants everything new: that one is executed, and later ones are
  forked by another forker.
"""

from __future__ import annotations

from enum import Enum

SHORT_LIFE = 60.0  # seconds: an interpreter that is replaced earlier is likely to be replaced so again
IDLE = 2 * SHORT_LIFE  # without an order, after which a forker ends


class Forking(Enum):
    """What a worker does about forks."""

    POSSIBLE = "possible"
    DOUBTED = "doubted"  # a forked interpreter did not start; the executed one will show why
    OFF = "off"  # its adapter or the system does not allow it


def pays(lived: float) -> bool:
    """Whether a forker is worth its start when an interpreter is replaced after `lived` seconds."""
    return lived < SHORT_LIFE
