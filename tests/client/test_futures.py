"""What becomes of a future, and on which thread; no Ray."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest

from snakepit_ray.client.future import CallFuture
from snakepit_ray.client.pending import Ticket
from snakepit_ray.client.sender import Sent
from snakepit_ray.errors import DeadlineExceeded, EncodingError, PoolClosed, WorkerCrashed
from snakepit_ray.wire.codec import Envelope

WAIT = 60


class Ref:
    """Of an answer that the test gives."""

    def __init__(self) -> None:
        self.answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def future(self) -> concurrent.futures.Future[Any]:
        return self.answer


class Sender:
    """Keeps what is asked of it."""

    def __init__(self) -> None:
        self.cancelled: list[Any] = []
        self.ended_refs: list[Any] = []
        self.tickets: list[Ticket] = []
        self.resent: list[Sent] = []

    def arm(self, sent: Sent, expire: Any) -> Ticket:
        self.tickets.append(Ticket(None, sent.deadline, expire))  # type: ignore[arg-type]
        return self.tickets[-1]

    def gave_up(self, sent: Sent, is_over: bool) -> Exception:
        return PoolClosed("over") if is_over else DeadlineExceeded.after(sent.budget, "running", "c")

    def cancel(self, sent: Sent) -> None:
        self.cancelled.append(sent.ref)

    def ended(self, sent: Sent) -> None:
        self.ended_refs.append(sent.ref)

    def our(self, error: Exception, sent: Sent | None = None) -> BaseException:
        return error

    def again(self, sent: Sent, error: BaseException) -> Sent | None:
        return self.resent.pop() if self.resent and isinstance(error, WorkerCrashed) else None


def sent_to(ref: Ref) -> Sent:
    return Sent(ref, "c", 3.0, 0.0, "w-1")


def made(sender: Sender | None = None) -> tuple[CallFuture, Ref]:
    ref = Ref()
    return CallFuture(sent_to(ref), sender or Sender()), ref  # type: ignore[arg-type]


def test_a_callback_that_blocks_stops_no_answer_and_may_wait_for_one() -> None:
    outer, outer_ref = made()
    inner, inner_ref = made()
    inside, seen, done = threading.Event(), list[Any](), threading.Event()

    def blocks(_: Any) -> None:
        inside.set()
        seen.append(inner.result(WAIT))
        done.set()

    outer.add_done_callback(blocks)
    outer_ref.answer.set_result(1)  # on this thread, as if it were Ray's: it comes back at once
    assert inside.wait(WAIT)
    others = [made() for _ in range(20)]
    for number, (_, ref) in enumerate(others):
        ref.answer.set_result(number)
    assert [future.result(WAIT) for future, _ in others] == list(range(20))
    assert not done.is_set()
    inner_ref.answer.set_result(2)
    assert done.wait(WAIT)
    assert seen == [2]


def test_values_are_decoded_and_callbacks_run_on_threads_of_our_own() -> None:
    threads: list[str] = []

    class Encoded(Envelope):
        def value(self) -> Any:
            threads.append(threading.current_thread().name)
            return super().value()

    future, ref = made()
    called = threading.Event()

    def note(_: Any) -> None:
        threads.append(threading.current_thread().name)
        called.set()

    future.add_done_callback(note)
    ref.answer.set_result(Encoded(b'{"a":1}'))
    assert future.result(WAIT) == {"a": 1}
    assert called.wait(WAIT)
    assert threads == ["snakepit-answers", "snakepit-callbacks"]


def test_a_value_that_cannot_be_decoded_is_the_futures_error() -> None:
    future, ref = made()
    ref.answer.set_result(Envelope(b"{"))
    with pytest.raises(EncodingError):
        future.result(WAIT)


def test_a_callback_that_raises_stops_no_other() -> None:
    first, first_ref = made()
    second, second_ref = made()
    called = threading.Event()
    first.add_done_callback(lambda _: 1 / 0)
    second.add_done_callback(lambda _: called.set())
    first_ref.answer.set_result(1)
    second_ref.answer.set_result(2)
    assert called.wait(WAIT)


@pytest.mark.parametrize(("is_over", "error"), [(False, DeadlineExceeded), (True, PoolClosed)])
def test_a_future_that_expires_ends_once_and_for_all(is_over: bool, error: type[Exception]) -> None:
    sender = Sender()
    future, ref = made(sender)
    sender.tickets[0].expire(is_over)
    with pytest.raises(error):
        future.result(WAIT)
    assert sender.cancelled == ([] if is_over else [ref]), "nothing of a session that is over is touched"
    ref.answer.set_result(1)
    assert isinstance(future.exception(WAIT), error)
    assert not future.cancel()


def test_a_cancelled_future_wakes_who_waits_and_has_no_other_outcome() -> None:
    sender = Sender()
    future, ref = made(sender)
    assert future.cancel()
    assert future.cancel()
    done, _ = concurrent.futures.wait([future], timeout=WAIT)
    assert done == {future}
    ref.answer.set_result(1)
    sender.tickets[0].expire(False)
    assert future.cancelled()
    assert sender.cancelled[0] is ref
    assert sender.ended_refs[0] is ref


def test_what_its_worker_had_not_begun_goes_to_another_one() -> None:
    sender = Sender()
    future, ref = made(sender)
    second = Ref()
    sender.resent.append(sent_to(second))
    ref.answer.set_exception(WorkerCrashed("gone", may_have_started=False))
    second.answer.set_result(5)
    assert future.result(WAIT) == 5
    assert sender.ended_refs == [ref, second]
    assert not any(ticket.is_pending for ticket in sender.tickets)
