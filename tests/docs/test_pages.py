"""The pages as a whole: what each has, where links lead, what the tables say. Nothing runs here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from snakepit_ray.cli import parser
from tests.docs import tables
from tests.docs.pages import PAGES, blocks, commands, pattern

README = tables.README
PATH = re.compile(r"`([a-z]\w*/(?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|json|proto))?)`")
LINK = re.compile(r"\]\(([^)#]+?)(#[^)]*)?\)")


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_is_what_the_code_says(name: str) -> None:
    page, make = tables.TABLES[name]
    assert tables.written(name) == make(), f"to fix {page.name}: python -m tests.docs.tables"


def test_the_docstrings_that_tables_are_made_of_name_everything_once() -> None:
    assert [name for _, name, _ in tables.entries(tables.PoolConfig)] == [*tables.PoolConfig().to_dict()]
    options = [name for _, name, _ in tables.entries(tables.CallOptions)]
    assert options == [*tables.CallOptions.__dataclass_fields__]
    named = {name for members in tables.error_tree().values() for name, _ in members}
    groups = {group for group, _ in tables.error_tree()}
    classes = {name for name in tables.errors.__all__ if name[0].isupper()}
    assert named | groups == classes - {"SnakepitError"}


def test_the_readme_lists_every_page_and_no_other() -> None:
    listed = re.findall(
        r"^\| \[[\w ]+\]\(snakepit_ray/docs/([\w-]+\.md)\) \| .+ \|$", README.read_text(), re.MULTILINE
    )
    assert sorted(listed) == [page.name for page in PAGES]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link, _ in LINK.findall(page.read_text()):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_paths_of_the_code_are_there(page: Path) -> None:
    """`core/worker/lifecycle.py` is a path in the package, `bridge/python/` one in the repository."""
    for path in PATH.findall(page.read_text()):
        assert any((place / path).exists() for place in (tables.ROOT, tables.PACKAGE)), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_is_for_and_shows_it(page: Path) -> None:
    title, _, rest = page.read_text().partition("\n\n")
    assert re.fullmatch(r"# .+", title)
    first = rest.partition("\n\n")[0]
    assert re.match(r"(?:This page|A \w+ is|Recycling) .*\.", first, re.DOTALL), first
    shown = blocks(page, "python", "console", "mermaid")
    assert shown or page.stem == "values", "values.md is one table, and each of its rows is a test"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_goes_wrong(page: Path) -> None:
    explains = ("architecture", "failures", "values")  # the last two are about nothing else
    assert ("\n## What goes wrong\n" in page.read_text()) != (page.stem in explains)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_commands(page: Path) -> None:
    for block in blocks(page, "console"):
        for words, _ in commands(block.text):
            if words.startswith("snakepit-ray "):
                assert parser().parse_args(shlex.split(words)[1:]).run, words


def test_a_pattern_stands_for_what_it_leaves_out() -> None:
    shown = "$ a\nx ... z\n...\nend\n$ b\n"
    (first, second) = commands(shown)
    assert (first.words, second.words, second.shows) == ("a", "b", "")
    assert pattern(first.shows).fullmatch("x y z  \nmore\nand more\nend\n")
    assert pattern(first.shows).fullmatch("x  z\nend\n")
    assert not pattern(first.shows).fullmatch("x y\nend\n")
    assert not pattern(first.shows).fullmatch("x y z\nend\nmore\n")
    assert pattern("").fullmatch("")
