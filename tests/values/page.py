"""Writes snakepit_ray/docs/values.md from the value table: `.venv/bin/python -m tests.values.page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "bridge" / "conformance" / "python" / "values.json"
PAGE = ROOT / "snakepit_ray" / "docs" / "values.md"
GROUPS: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))["groups"]

HEAD = """\
# Values: what travels, and as what

This page says what becomes of every kind of value on its way to a command and back. [arrays.md](arrays.md)
says how large data travels.

An argument goes from a caller to a command, a result from a command back to its caller. Both sides decide
alike on one value. It is carried whole, or it is converted as this page says, or it is refused with an error
that names the path and what to send instead:

    args["x"][3]: cannot encode pandas.Series: its labels would be lost; send value.to_frame() ...

Nothing loses a mask, a label, a unit or a null in silence. The class decides, not the value: a column is
refused with nulls and without.

The two sides differ in one way. Arguments are strict, because the caller is there to correct the call. A
result is converted where its text or its fields say all of it, because the command has run. A pool with
`unserializable="marker"` puts a marker in the place of what cannot be carried.

In a batch each result stands alone: one that cannot be carried, or cannot be read, is an error in its place
and takes no other along. A chunk that cannot be carried or read ends its stream, after the chunks before it.

Each row of this page is a test (bridge/conformance/python/values.json). What every language carries is in
bridge/README.md, section 4.
"""


def rows() -> list[dict[str, Any]]:
    """Every row with `argument` and `result`, whatever it says in the file."""
    both = [row for group in GROUPS for row in group["rows"]]
    return [{"argument": row.get("both"), "result": row.get("both"), **row} for row in both]


def page() -> str:
    """The page as text."""
    return HEAD + "".join(_group(group) for group in GROUPS)


def _group(group: dict[str, Any]) -> str:
    note = f"{group['note']}\n\n" if "note" in group else ""
    lines = [
        f"| {row['kind']} | {_cell(row.get('argument', row.get('both')))} | "
        f"{'the same' if 'both' in row else _cell(row['result'])} |\n"
        for row in group["rows"]
    ]
    top = f"\n## {group['group']}\n\n{note}| value | as an argument | as a result |\n|---|---|---|\n"
    return top + "".join(lines)


def _cell(side: dict[str, Any]) -> str:
    if "becomes" in side:
        return side["becomes"]
    send = " or ".join(f"`{advice}`" for advice in side["send"])
    return f"refused: send {send}" if send else "refused"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
