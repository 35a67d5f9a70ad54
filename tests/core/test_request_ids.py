"""The ids of requests are taken apart as they were composed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.work.request_ids import (
    PART,
    PartId,
    RequestId,
    caller_of,
    ids_of,
    made_by,
    whole_of,
)

numbers = st.integers(0, 10**9)
callers = st.text("0123456789abcdef", min_size=1, max_size=16)
ids = st.builds(RequestId, callers, numbers)
parts = st.builds(PartId, ids.map(str), numbers, numbers, st.integers(1, 10**6))


@given(ids)
def test_a_requests_id_is_read_as_it_was_written(one: RequestId) -> None:
    assert RequestId.parse(str(one)) == one
    assert caller_of(str(one)) == one.caller
    assert PART not in str(one) and whole_of(str(one)) == str(one)


@given(parts)
def test_a_parts_id_says_which_items_of_which_request_it_has(one: PartId) -> None:
    assert PartId.parse(str(one)) == one
    assert PART in str(one) and whole_of(str(one)) == one.whole
    assert caller_of(str(one)) == RequestId.parse(one.whole).caller


@given(parts, parts)
def test_other_items_have_another_id(one: PartId, other: PartId) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(callers, callers, numbers)
def test_a_request_is_known_by_the_process_that_made_it(one: str, other: str, number: int) -> None:
    whole = str(RequestId(one, number))
    part = str(PartId(whole, 0, number, 1))
    for request_id in (whole, part):
        assert made_by([one])(request_id)
        assert made_by([other])(request_id) == (one == other)
        assert not made_by([])(request_id)


def test_a_process_numbers_its_requests_from_1_on() -> None:
    next_id = ids_of("a1b2")
    assert [RequestId.parse(next_id()) for _ in range(3)] == [RequestId("a1b2", n) for n in (1, 2, 3)]
    assert len({next_id() for _ in itertools.repeat(None, 1000)}) == 1000


@pytest.mark.parametrize("text", ["", "a", "a-", "-1", "a-x", "a-01", "a-1/0.0+1", "a-1\n", "a-\u0661"])
def test_what_is_no_id_of_a_request_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected the id of a request"):
        RequestId.parse(text)


@pytest.mark.parametrize(
    "text", ["", "a-1", "a-1/", "a-1/0.0", "a-1/0.0+0", "a-1/0.0+01", "/0.0+1", "a-1/0.0+1/"]
)
def test_what_is_no_id_of_a_part_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected the id of a part"):
        PartId.parse(text)
