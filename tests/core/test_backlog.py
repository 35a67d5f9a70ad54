"""Which questions to the store leave together: nothing is lost, and one session's writes keep their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state.asked import Cleanup, Data, Get, Join, Look, Put, Remove, StoreProgram, Usage
from snakepit_ray.core.state.backlog import (
    MOST_BYTES,
    MOST_QUESTIONS,
    READS,
    WRITES,
    Backlog,
    Message,
    data_bytes,
    is_write,
)
from snakepit_ray.core.state.writes import Delete, Set


def read(number: int = 0) -> Get:
    return Get("s", (str(number),))


def write(session: str, number: int = 0) -> Remove:
    return Remove(session, str(number))


def drained(backlog: Backlog[Any]) -> list[Message[Any]]:
    found = []
    while (message := backlog.next()) is not None:
        found.append(message)
    return found


def test_what_gathers_while_messages_are_under_way_leaves_as_one() -> None:
    backlog: Backlog[int] = Backlog()
    for number in range(READS):
        backlog.add(number, read())
    first = backlog.next()
    assert first is not None
    assert first.asked == (0, 1, 2)
    others = []
    for number in range(READS - 1):
        backlog.add(10 + number, read())
        others += drained(backlog)
    for number in range(100):
        backlog.add(100 + number, read())
    assert (len(others), backlog.next()) == (READS - 1, None)
    backlog.ended(first)
    assert [message.asked for message in drained(backlog)] == [tuple(range(100, 200))]


def test_no_read_waits_for_a_write() -> None:
    backlog: Backlog[str] = Backlog()
    for number in range(2 * WRITES):
        backlog.add(f"w{number}", write(f"s{number}"))
        drained(backlog)
    backlog.add("r", read())
    assert [message.asked for message in drained(backlog)] == [("r",)]


def test_later_writes_of_a_session_wait_and_go_together() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.add("a1", write("a"))
    (first,) = drained(backlog)
    for name in ("a2", "b1", "a3"):
        backlog.add(name, write(name[0]))
    assert [message.asked for message in drained(backlog)] == [("b1",)]
    backlog.ended(first)
    assert [message.asked for message in drained(backlog)] == [("a2", "a3")]


def test_a_message_has_its_bounds() -> None:
    backlog: Backlog[int] = Backlog()
    large = Put("s", "1", (Set("x", Data(b"", (bytes(MOST_BYTES // 2),))),))
    for number in range(5):
        backlog.add(number, large)
    first = backlog.next()
    assert first is not None
    assert first.asked == (0, 1)
    for number in range(MOST_QUESTIONS + 1):
        backlog.add(number, read())
    assert [len(message.asked) for message in drained(backlog)] == [MOST_QUESTIONS, 1]


@pytest.mark.parametrize(
    ("question", "changes"),
    [(read(), False), (Look("s"), False), (Usage(), False), (write("s"), True), (Cleanup(), True)],
)
def test_what_changes_something_is_a_write(question: Any, changes: bool) -> None:
    assert is_write(question) is changes


def test_the_bytes_of_values() -> None:
    data = Data(b"12", (b"345", memoryview(b"67")))
    assert data_bytes(StoreProgram("s", "p", data, "1")) == 7
    assert data_bytes(Put("s", "1", (Set("x", data), Delete("y")))) == 7
    assert data_bytes(read()) == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["add"]), st.sampled_from(["", "a", "b", "c"]), st.booleans()),
            st.tuples(st.sampled_from(["leave", "end"]), st.just(""), st.booleans()),
        ),
        max_size=80,
    )
)
def test_everything_leaves_once_and_writes_of_a_session_in_order(steps: list[tuple[str, str, bool]]) -> None:
    backlog: Backlog[tuple[str, int, bool]] = Backlog()
    added: list[tuple[str, int, bool]] = []
    left: list[tuple[str, int, bool]] = []
    under_way: list[Message[Any]] = []

    def leave() -> bool:
        message = backlog.next()
        if message is not None:
            keys = [key for other in under_way for key in other.keys]
            assert not message.keys & {*keys}, "two messages with writes of one session"
            under_way.append(message)
            left.extend(message.asked)
        return message is not None

    for number, (what, session, changes) in enumerate(steps):
        if what == "add":
            added.append((session, number, changes))
            question: Any = write(session) if changes else Get(session, ("x",))
            backlog.add(added[-1], question)
        elif what == "leave":
            leave()
        elif under_way:
            backlog.ended(under_way.pop(len(under_way) // 2 if changes else 0))
        assert sum(message.is_write for message in under_way) <= WRITES
        assert sum(not message.is_write for message in under_way) <= READS
    while leave() or under_way:
        if under_way:
            backlog.ended(under_way.pop())
    assert sorted(left) == sorted(added)
    for session in {one[0] for one in added}:
        ours = [one for one in left if one[0] == session and one[2]]
        assert ours == sorted(ours)


def test_a_question_without_a_session_has_one_order_too() -> None:
    backlog: Backlog[int] = Backlog()
    backlog.add(1, Cleanup())
    drained(backlog)
    backlog.add(2, Cleanup())
    assert backlog.next() is None
    join = Join("s", None, "1")  # type: ignore[arg-type]
    backlog.add(3, join)
    assert [message.asked for message in drained(backlog)] == [(3,)]
