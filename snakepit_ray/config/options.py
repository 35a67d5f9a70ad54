"""The options of one call: the same names wherever a call is made.

- The calling path builds no options when none is given: DEFAULT_OPTIONS serves for that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from snakepit_ray.config import checks
from snakepit_ray.errors import ConfigError, did_you_mean


class Affinity(str, Enum):
    """What happens to a session's request when its worker is busy: it runs elsewhere, waits for a slot there,
    or fails at once with WorkerBusy."""

    HINT = "hint"
    STRICT_QUEUE = "strict_queue"
    STRICT_FAIL_FAST = "strict_fail_fast"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def strict(self) -> bool:
        """Whether only the session's own worker will do."""
        return self is not Affinity.HINT


def check_affinity(value: Any) -> Affinity:
    choices = [member.value for member in Affinity]
    expected = f"one of {', '.join(map(repr, choices))}"
    if isinstance(value, str) and value in choices:
        return Affinity(value)
    raise ValueError(f"{expected}{did_you_mean(value, choices)}")


_CHECKS: dict[str, checks.Check] = {
    "session": checks.optional(checks.session_id),
    "timeout": checks.optional(checks.seconds(zero=False, most=checks.MAX_BUDGET)),
    "affinity": checks.optional(check_affinity),
    "rebind": checks.flag,
    "idempotent": checks.optional(checks.flag),
    "retries": checks.optional(checks.whole(0, 1000)),
    "info": checks.flag,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Options of a call. None means what the command says, or else the pool.

    Args:
        session: the session's id, 1 to 1024 bytes of UTF-8; None: no session.
        timeout: seconds, or text such as "500ms": the whole budget of waiting and running. None: the
            command's own, else the pool's request_timeout (for streams 300 s, where that is longer).
        affinity: an `Affinity` or its name: what happens when the session's worker is busy.
        rebind: accept another worker after SessionWorkerLost.
        idempotent: the command may run again after a crash.
        retries: how often an idempotent call is tried again, 0 to 1000.
        info: the result is a `Reply`, which has the value in it.

    Raises: ConfigError that names every wrong value.
    """

    session: str | None = None
    timeout: float | None = None
    affinity: Affinity | None = None
    rebind: bool = False
    idempotent: bool | None = None
    retries: int | None = None
    info: bool = False

    def __post_init__(self) -> None:
        kept = checks.checked("call options", {key: getattr(self, key) for key in OPTION_NAMES}, _CHECKS)
        for key, value in kept.items():
            object.__setattr__(self, key, value)

    def merge(self, **options: Any) -> CallOptions:
        """A copy with other `options` over these. Raises: ConfigError, also for unknown names."""
        if not options:
            return self
        unknown = options.keys() - _CHECKS.keys()
        if unknown:
            raise ConfigError.unknown("call option", unknown, OPTION_NAMES)
        return replace(self, **options)


OPTION_NAMES = tuple(field.name for field in fields(CallOptions))
DEFAULT_OPTIONS = CallOptions()
