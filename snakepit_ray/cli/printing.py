"""What commands print: JSON that is JSON on every output, tables, colour on a terminal."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

COLOURS = {"good": "32", "bad": "31", "busy": "33"}


def survive_any_encoding(*streams: TextIO) -> None:
    """What an output's encoding does not have is printed as an escape: it is no reason to lose the rest."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def print_json(value: Any, indent: int | None = None) -> None:
    """Prints `value` as JSON: arrays and tables as lists, the rest as it shows itself. JSON has no NaN and no
    infinity: they are null, and stderr says how many there were."""
    lost: list[float] = []
    text = json.dumps(_plain(value, lost), ensure_ascii=not _takes_unicode(sys.stdout), indent=indent)
    print(text)
    if lost:
        kinds = ", ".join(sorted({str(number) for number in lost}))
        print(f"snakepit-ray: JSON has no {kinds}: printed as null, {len(lost)} in all", file=sys.stderr)


def _plain(value: Any, lost: list[float]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(value)
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item, lost) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, lost) for item in value]
    for method in ("tolist", "to_pylist"):
        if hasattr(value, method):
            return _plain(getattr(value, method)(), lost)
    return repr(value)


def _takes_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def table(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with columns of one width each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return [indent + "  ".join(row).rstrip() for row in padded]


def coloured(text: str, colour: str) -> str:
    """`text` in a colour of COLOURS on a terminal, elsewhere (and where NO_COLOR is set) as it is."""
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
