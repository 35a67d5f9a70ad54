"""How the showcase reads files: records of CSV, JSON lines and text, lines that are appended to a log.

- A file is read as it is asked for, and closed however the reader ends.
"""

from __future__ import annotations

import csv
import json
import os
import re

_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b", re.IGNORECASE)
_BAD = frozenset(("ERROR", "CRITICAL", "FATAL"))


def records(path: str):
    """The records of a file: dicts of .csv (its header names the columns) and .jsonl, strings of others."""
    with open(path, newline="", encoding="utf-8") as file:
        if path.endswith(".csv"):
            yield from csv.DictReader(file)
        elif path.endswith((".jsonl", ".ndjson")):
            yield from (json.loads(line) for line in file if line.strip())
        else:
            yield from (line.rstrip("\r\n") for line in file)


def count_records(path: str) -> int:
    """How many records there are."""
    return sum(1 for _ in records(path))


def chunks_of(path: str, size: int):
    """Lists of `size` records; the last may be shorter."""
    if size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {size}")
    chunk: list = []
    for record in records(path):
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class Statistics:
    """Count, mean, smallest and largest of each numeric column; of text, of the lengths."""

    def __init__(self) -> None:
        self._rows = 0
        self._columns: dict = {}

    def add(self, record) -> None:
        """Counts one record."""
        self._rows += 1
        items = record.items() if isinstance(record, dict) else [("length", len(str(record)))]
        for name, value in items:
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            count, total, low, high = self._columns.get(name, (0, 0.0, number, number))
            self._columns[name] = (count + 1, total + number, min(low, number), max(high, number))

    def result(self) -> dict:
        """What was found."""
        columns = {
            name: {"count": count, "mean": total / count, "min": low, "max": high}
            for name, (count, total, low, high) in self._columns.items()
        }
        return {"rows": self._rows, "columns": columns}


class LogCounts:
    """What was seen of a log."""

    def __init__(self) -> None:
        self._lines = 0
        self._levels: dict = {}

    def take(self, line: str) -> dict:
        """The chunk for one line."""
        found = _LEVEL.search(line)
        level = found.group(1).upper().replace("WARNING", "WARN") if found else None
        self._lines += 1
        if level is not None:
            self._levels[level] = self._levels.get(level, 0) + 1
        alert = level in _BAD
        return {
            "line": line,
            "level": level,
            "alert": alert,
            "lines": self._lines,
            "levels": dict(self._levels),
        }


def tail(path: str, follow: bool, wait):
    """The whole lines of a file; with `follow` those that are appended: `wait()` is called in between."""
    file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - reopened when it is replaced
    begun = ""
    try:
        while True:
            begun += file.readline()
            if begun.endswith("\n"):
                yield begun.rstrip("\r\n")
                begun = ""
            elif not follow:
                if begun:
                    yield begun
                return
            else:
                wait()
                if _is_another(path, file):
                    file.close()
                    file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115
    finally:
        file.close()


def _is_another(path: str, file) -> bool:
    """Whether the name is another file now, or the file was cut off."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False  # not there yet
    here = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (here.st_dev, here.st_ino) or now.st_size < file.tell()
