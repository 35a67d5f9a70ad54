"""How a worker behaves: what its pool's configuration says, in a supervisor's words."""

from __future__ import annotations

from dataclasses import dataclass, field

from snakepit_ray.core.worker.recycling import Limits


@dataclass(frozen=True)
class CarePolicy:
    """Seconds between looks, seconds of silence that mean hung, and the limits of an interpreter's life."""

    interval: float = 5.0
    silence: float = 10.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class WorkerPolicy:
    """How a worker behaves; times in seconds."""

    capacity: int = 1
    queue_limit: int | None = None
    retry_backoff: float = 0.1
    cancel_grace: float = 2.0
    overlap: bool = True
    care: CarePolicy = field(default_factory=CarePolicy)
