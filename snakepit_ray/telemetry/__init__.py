"""Events of pools, and who listens to them.

`attach(pattern, handler)` calls `handler(event, measurements, metadata)` for each event that matches. A
handler that is attached in a driver, a task or an actor hears the events of every pool that this process
holds a handle of, whichever process they happen in. EVENTS lists them all.
"""

from snakepit_ray.telemetry.bus import (
    QUEUE_SIZE,
    Far,
    Handle,
    Handler,
    Occurrence,
    Tap,
    attach,
    attach_many,
    deliver,
    emit,
    enabled,
    listen_far,
    listening,
    patterns,
)
from snakepit_ray.telemetry.events import CUSTOM, EVENTS, Event, Why

__all__ = [
    "CUSTOM",
    "EVENTS",
    "QUEUE_SIZE",
    "Event",
    "Far",
    "Handle",
    "Handler",
    "Occurrence",
    "Tap",
    "Why",
    "attach",
    "attach_many",
    "deliver",
    "emit",
    "enabled",
    "listen_far",
    "listening",
    "patterns",
]
