"""The tables of the pages that are made from the code. `python -m tests.docs.tables` writes them anew.

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. What it says comes from the docstrings
that `help` shows: of PoolConfig, CallOptions, and the module of errors; and from the rules of variables.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from snakepit_ray import errors
from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.core.state.constraints import RULES
from snakepit_ray.core.state.types import MEANING

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "snakepit_ray" / "docs"
PACKAGE = ROOT / "snakepit_ray"
NOT_RAISING = ("errors", "testing", "__init__.py")
ENTRY = re.compile(r"^    (\w+): (.*)$")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table. A cell cannot hold the sign that parts cells."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def entries(documented: Any) -> Iterator[tuple[str, str, str]]:
    """(section, name, text) of the indented entries of a docstring, as they stand there."""
    section = name = text = ""
    for line in (inspect.getdoc(documented) or "").splitlines():
        found = ENTRY.match(line)
        if found or not line.startswith("        "):
            if name:
                yield section, name, text
            name = text = ""
        if found:
            name, text = found.groups()
        elif line.startswith("        "):
            text += " " + line.strip()
        elif line.endswith(":") and not line.startswith(" "):
            section = line[:-1]


def shown(value: Any) -> str:
    """A default as a reader writes it."""
    return f"`{value!r}`".replace("'", '"') if isinstance(value, str) else repr(value)


def settings() -> str:
    """Every setting of a pool, by section."""
    defaults = PoolConfig().to_dict()
    sections: dict[str, list[tuple[str, ...]]] = {}
    for section, name, text in entries(PoolConfig):
        sections.setdefault(section, []).append((f"`{name}`", shown(defaults[name]), text))
    header = ("setting", "default", "meaning")
    return "\n\n".join(f"## {section}\n\n{table(header, rows)}" for section, rows in sections.items())


def setting_names() -> str:
    """The names of the settings, by section."""
    sections: dict[str, list[str]] = {}
    for section, name, _ in entries(PoolConfig):
        sections.setdefault(section, []).append(f"`{name}`")
    return table(("settings about", ""), [(section, ", ".join(names)) for section, names in sections.items()])


def options() -> str:
    """Every option of a call."""
    defaults = CallOptions()
    rows = [
        (f"`{name}`", shown(getattr(defaults, name)), text.rstrip("."))
        for _, name, text in entries(CallOptions)
    ]
    return table(("option", "default", "meaning"), rows)


def error_tree() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(error, what to do) by (group, what it means), from the tree in the module of errors."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^(?:\|   )?[|`]-- (\w+) +(.+)$", line)
        if not found:
            continue
        if line.startswith("|   "):
            list(groups.values())[-1].append(found.groups())  # type: ignore[arg-type]
        else:
            groups[found.groups()] = []  # type: ignore[index]
    return groups


def is_raised(name: str) -> bool:
    """Whether this version raises it: some errors are there for what is to come."""
    sources = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in NOT_RAISING and is_used(path.parent)
    ]
    raised = re.compile(rf"\b{name}[.(]")
    return any(raised.search(path.read_text()) for path in (*sources, PACKAGE / "errors" / "command.py"))


@cache
def is_used(room: Path) -> bool:
    """Whether a room of core is imported by another room: rules may be there before what follows them."""
    if room.parent != PACKAGE / "core":
        return True
    name = f"snakepit_ray.core.{room.name}"
    others = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(room)]
    return any(name in path.read_text() for path in others)


def raised(members: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, cure) for name, cure in members if is_raised(name)]


def error_groups() -> str:
    """The groups of errors: what each means, and which errors are in it."""
    rows = [
        (f"`{group}`", meaning, ", ".join(f"`{name}`" for name, _ in raised(members)) or f"`{group}`")
        for (group, meaning), members in error_tree().items()
    ]
    return table(("caught by", "it means", "errors"), rows)


def error_list() -> str:
    """Every error and what to do about it."""
    rows = [(f"`{name}`", cure) for members in error_tree().values() for name, cure in raised(members)]
    return table(("error", "what to do"), rows)


def variable_types() -> str:
    """Every type of a variable: what it takes, and its constraints."""
    rows = [
        (f'`"{kind}"`', meaning, ", ".join(f"`{rule}`" for rule in RULES[kind]) or "none")
        for kind, meaning in MEANING.items()
    ]
    return table(("type", "takes", "constraints"), rows)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "settings": (DOCS / "configuration.md", settings),
    "setting names": (README, setting_names),
    "call options": (DOCS / "calls.md", options),
    "options": (README, options),
    "error groups": (README, error_groups),
    "errors": (DOCS / "failures.md", error_list),
    "variable types": (DOCS / "session-state.md", variable_types),
}


def between(name: str) -> tuple[str, str]:
    """The marks around a table."""
    return f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"


def written(name: str) -> str:
    """What stands on the page between the marks."""
    page, _ = TABLES[name]
    begin, end = between(name)
    text = page.read_text()
    assert text.count(begin) == text.count(end) == 1, f"{page} has not one place for the table {name!r}"
    return text.partition(begin)[2].partition(end)[0]


def main() -> None:
    """Writes every table into its page."""
    for name, (page, make) in TABLES.items():
        written(name)
        begin, end = between(name)
        before, _, rest = page.read_text().partition(begin)
        page.write_text(f"{before}{begin}{make()}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
