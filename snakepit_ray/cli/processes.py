"""How the interpreters that are written down on this machine are shown, and their remains ended.

- Works without Ray.
- Only `cleanup` changes anything, and only what belongs to nobody any more.
"""

from __future__ import annotations

import json
import time
from typing import Any

from snakepit_ray.cli.printing import table
from snakepit_ray.process import registry, tree
from snakepit_ray.process.registry import Entry

COLUMNS = ("state", "worker", "pool", "pid", "age", "rss")


def show(as_json: bool) -> int:
    """Every interpreter that is written down on this machine."""
    rows = [facts(entry, time.time()) for entry in registry.entries()]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no interpreter is registered on this machine")
    else:
        print(*table([COLUMNS, *(_words(row) for row in rows)]), sep="\n")
    return 0


def cleanup() -> int:
    """Ends what is left of workers that are gone; says what."""
    swept = registry.sweep()
    if swept.killed:
        print(f"ended {_count(len(swept.killed), 'process', 'es')}: {', '.join(map(str, swept.killed))}")
    if swept.entries:
        print(f"removed {_count(swept.entries, 'entr', 'ies', 'y')} of workers that are gone")
    for path in swept.files:
        print(f"removed {path}")
    if not any(swept):
        print("nothing to clean up")
    return 0


def facts(entry: Entry, now: float) -> dict[str, Any]:
    """One line of `--json`: `pid` is null when it is not known; `rss` is that of all `processes`."""
    record, state, carriers = entry
    return {
        "state": state.value,
        "worker": record.worker_id,
        "pool": record.pool,
        "pid": record.pid or None,
        "processes": [process.pid for process in carriers],
        "owner": record.owner_pid,
        "age_s": round(max(0.0, now - record.created_at), 3),
        "rss": tree.resident(carriers),
        "directory": record.directory,
    }


def _words(row: dict[str, Any]) -> tuple[str, ...]:
    pid = "-" if row["pid"] is None else str(row["pid"])
    rss = f"{row['rss'] / 1e6:.0f} MB" if row["processes"] else "-"
    return (row["state"], row["worker"], row["pool"], pid, age(row["age_s"]), rss)


def age(seconds: float) -> str:
    """A duration in its largest whole unit, such as "3m"."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _count(number: int, word: str, many: str, one: str = "") -> str:
    return f"{number} {word}{one if number == 1 else many}"
