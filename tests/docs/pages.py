"""The pages in snakepit_ray/docs as tests read them: their blocks in order, and what a console shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import snakepit_ray

DOCS = Path(snakepit_ray.__file__).with_name("docs")
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROMPT = "$ "


class Block(NamedTuple):
    """A fenced block: its language, its text."""

    language: str
    text: str


class Command(NamedTuple):
    """One command of a console block, and the lines that it is to print."""

    words: str
    shows: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in order."""
    found = (Block(*one) for one in BLOCK.findall(page.read_text()))
    return [block for block in found if block.language in languages]


def commands(text: str) -> list[Command]:
    """The commands of a console block. A line of output belongs to the command before it."""
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith(PROMPT):
            found.append(Command(line.removeprefix(PROMPT), ""))
        else:
            words, shows = found.pop()
            found.append(Command(words, f"{shows}{line}\n"))
    return found


def pattern(shows: str) -> re.Pattern[str]:
    """What matches the output that a page shows: `...` stands for anything in a line, and alone in a line for
    any number of lines."""
    parts = []
    for line in shows.splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(map(re.escape, line.split("..."))) + r"[ ]*\n")
    return re.compile("".join(parts))
