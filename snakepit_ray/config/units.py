"""Durations ("1h", "500ms") and sizes ("2GiB"), and how they become seconds and bytes."""

from __future__ import annotations

import math
import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {
    "b": 1,
    **{"kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4},
    **{"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4},
}

_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]+)")
_WHOLE = re.compile(r"(?:\s*[0-9]+(?:\.[0-9]+)?\s*[a-zA-Z]+)+\s*")


def duration(value: object) -> float:
    """Seconds of a number of seconds or of "500ms", "30s", "1.5m", "1h30m", "2d".

    Raises ValueError saying what is expected (infinite, negative and unitless strings are refused).
    """
    expected = 'seconds or a duration such as "500ms", "30s", "1.5m", "1h"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number) or number < 0:
            raise ValueError(expected + ", finite and not negative")
        return number
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise ValueError(expected)
    parts = _PART.findall(value)
    if any(unit.lower() not in SECONDS for _, unit in parts):
        raise ValueError(expected + f" (units: {', '.join(SECONDS)})")
    return math.fsum(float(number) * SECONDS[unit.lower()] for number, unit in parts)


def size(value: object) -> int:
    """Bytes of a whole number or of "512KiB", "100MB", "2GiB" (1 MB is 1000 kB, 1 MiB is 1024 KiB).

    Raises ValueError saying what is expected.
    """
    expected = 'bytes or a size such as "512KiB", "100MB", "2GiB"'
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(expected + ", not negative")
        return value
    match = _PART.fullmatch(value.rstrip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in BYTES:
        raise ValueError(expected)
    return round(float(match[1]) * BYTES[match[2].lower()])
