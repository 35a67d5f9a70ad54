"""The table of tools: names are given once, several are added together or not at all, and whoever follows the
changes has the same table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.tools.table import Change, ToolTable
from snakepit_ray.core.tools.tool import MOST_ARGUMENTS, Tool, ToolInfo, check_info
from snakepit_ray.errors import ConfigError, DuplicateTool

NAMES, SESSIONS, OWNERS = ("a", "b", "c"), ("", "s", "t"), ("", "p", "q")


def tool(name: str, session: str = "", owner: str = "", id: str = "") -> Tool:
    return Tool(ToolInfo(name, session), id or f"{session}/{name}/{owner}", owner)


@pytest.mark.parametrize("name", ["a", "9", "A_b-c.d", "x" * 64])
def test_names_that_may_be(name: str) -> None:
    assert check_info(ToolInfo(name)).name == name


@pytest.mark.parametrize("name", ["", "_a", "-a", ".a", "a b", "a/b", "a:b", "é", "x" * 65, "a\n"])
def test_names_that_may_not(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        check_info(ToolInfo(name))


def test_what_is_said_of_a_tool_is_bounded() -> None:
    properties = {f"a{n}": {} for n in range(MOST_ARGUMENTS + 1)}
    with pytest.raises(ConfigError, match="33 arguments, expected at most 32"):
        check_info(ToolInfo("a", parameters={"properties": properties}))
    with pytest.raises(ConfigError, match="at most 4,096"):
        check_info(ToolInfo("a", description="x" * 4096))
    with pytest.raises(ConfigError, match="are no JSON"):
        check_info(ToolInfo("a", parameters={"default": object()}))
    with pytest.raises(ConfigError, match="unknown where"):
        check_info(ToolInfo("a", where="there"))


def test_the_sessions_tool_comes_first_and_is_nobody_elses() -> None:
    table = ToolTable()
    table.add([tool("a"), tool("a", "s"), tool("b", "s")], 1)
    found = {(name, s): table.find(name, s) for name in NAMES for s in SESSIONS}
    assert {key: one and one.info.session for key, one in found.items()} == {
        ("a", ""): "",
        ("a", "s"): "s",
        ("a", "t"): "",
        ("b", ""): None,
        ("b", "s"): "s",
        ("b", "t"): None,
        **{("c", s): None for s in SESSIONS},
    }
    assert [(one.session, one.name) for one in table.seen_by("s")] == [("s", "a"), ("s", "b")]


def test_a_registration_that_comes_twice_is_one() -> None:
    table = ToolTable()
    first = table.add([tool("a", id="1")], 5)
    assert table.add([tool("a", id="1")], 9) == Change(first.after, first.after)
    with pytest.raises(DuplicateTool):
        table.add([tool("b"), tool("a", id="2")], 9)
    assert [one.name for one in table.all()] == ["a"]


OPERATIONS = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(st.tuples(*map(st.sampled_from, (NAMES, SESSIONS, OWNERS, "12"))), max_size=3),
    ),
    st.tuples(st.just("remove"), st.tuples(st.sampled_from(NAMES), st.sampled_from(SESSIONS))),
    st.tuples(st.just("gone"), st.lists(st.sampled_from(OWNERS[1:]), max_size=2)),
    st.tuples(st.just("ended"), st.lists(st.sampled_from(SESSIONS), max_size=2)),
)


@given(st.lists(st.tuples(OPERATIONS, st.booleans(), st.integers(0, 50)), max_size=30))
def test_a_model_and_those_who_follow_agree(steps: list) -> None:
    """A worker misses some of the changes, and is sent the whole table when it says so."""
    router, worker = ToolTable(), ToolTable()
    model: dict[tuple[str, str], Tool] = {}
    for (kind, what), is_lost, now in steps:
        before, change = router.version, None
        if kind == "add":
            tools = [tool(*one[:3], id=one[3]) for one in what]
            ids: dict[tuple[str, str], set[str]] = {}
            for one in [*model.values(), *tools]:
                ids.setdefault(one.key, set()).add(one.id)
            if any(len(ids[one.key]) > 1 for one in tools):
                with pytest.raises(DuplicateTool):
                    router.add(tools, now)
            else:
                change = router.add(tools, now)
                for one in tools:
                    model.setdefault(one.key, one)
        elif kind == "remove":
            change = router.remove(*what, now)
            model.pop((what[1], what[0]), None)
        elif kind == "gone":
            change = router.without_owners(what, now)
            model = {key: one for key, one in model.items() if one.owner not in what}
        else:
            change = router.without_sessions(what, now)
            model = {key: one for key, one in model.items() if key[0] not in set(what) - {""}}
        assert {one.key: one for one in router.whole().tools} == model
        assert router.version >= before
        if change is not None and not is_lost and not worker.take(change):
            assert worker.adopt(router.whole())
        if change is not None and not is_lost:
            assert worker.version == router.version
            assert {one.key: one for one in worker.whole().tools} == model
