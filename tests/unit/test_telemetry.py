"""Events are told to who listens, cost nothing otherwise, and no handler breaks what it watches."""

import logging
import os
import re
import threading
import timeit
from pathlib import Path

import pytest

from snakepit_ray import telemetry
from snakepit_ray.errors import ConfigError
from snakepit_ray.telemetry import (
    EVENTS,
    Occurrence,
    Tap,
    Why,
    attach,
    attach_many,
    bus,
    deliver,
    emit,
    enabled,
)

ROOT = Path(__file__).resolve().parents[2]

CONTRACT = {
    "worker.initialized": ({"initialization_time"}, set()),
    "worker.request": ({"duration", "items", "failed"}, {"result"}),
    "worker.recycled": ({"uptime", "request_count"}, {"reason"}),
    "worker.health_check_failed": (set(), {"error"}),
    "pool.saturated": ({"queue_size", "max_queue_size"}, {"available_workers", "busy_workers"}),
    "pool.capacity_reached": ({"capacity", "load"}, {"rejected"}),
    "request.executed": ({"duration_us", "items", "failed"}, {"command", "success"}),
}


@pytest.fixture(autouse=True)
def nobody_listens():
    yield
    for listener in bus._listeners:
        listener.detach()


ONE = {"duration": 0.5, "items": 1, "failed": 0}  # of a worker.request


def gather(pattern):
    told = []
    return told, attach(pattern, lambda *event: told.append(event))


def flush():
    """Every handler has had what was emitted."""
    assert all(listener.flush(10) for listener in bus._listeners if isinstance(listener, telemetry.Handle))


def test_the_table_has_the_contracts_events():
    for name, (measurements, metadata) in CONTRACT.items():
        assert set(EVENTS[name].measurements) == measurements
        assert metadata <= set(EVENTS[name].metadata)
    groups = {name.split(".")[0] for name in EVENTS}
    assert groups >= {
        "worker",
        "pool",
        "queue",
        "request",
        "session",
        "stream",
        "affinity",
        "delegation",
    }
    assert all(event.doc for event in EVENTS.values())


def test_handlers_get_what_matches():
    told, handle = gather("worker.*")
    everything, _ = gather("*")
    emit("worker.request", ONE, {"result": "ok"})
    emit("pool.saturated", {"queue_size": 1, "max_queue_size": 1})
    flush()
    assert told == [("worker.request", ONE, {"result": "ok"})]
    assert [event for event, _, _ in everything] == ["worker.request", "pool.saturated"]
    assert (enabled("worker.request"), enabled("pool.closed")) == (True, True)
    handle.detach()
    handle.detach()
    emit("worker.request", ONE)
    flush()
    assert len(told) == 1
    assert len(everything) == 3


def test_several_patterns_tell_an_event_once():
    told = []
    with attach_many(
        ["worker.*", "worker.request", "stream.ended"], lambda *event: told.append(event[0])
    ) as handle:
        emit("worker.request", ONE)
        emit("stream.ended", {"duration": 1, "chunks": 2})
        emit("stream.started")
        assert "worker.*" in repr(handle)
    emit("worker.request", ONE)
    assert told == ["worker.request", "stream.ended"]


def test_unknown_names_and_keys_are_errors():
    with pytest.raises(
        ConfigError, match=r"unknown telemetry event 'worker.reqest'; did you mean 'worker.request'"
    ):
        emit("worker.reqest")
    with pytest.raises(ConfigError, match="unknown telemetry event"):
        enabled("nothing")
    with pytest.raises(ConfigError, match=r"no telemetry event matches 'worker.requests'; did you mean"):
        attach("worker.requests", print)
    gather("*")
    with pytest.raises(
        ConfigError, match=r"got measurements \[\], expected \['duration', 'failed', 'items'\]"
    ):
        emit("worker.request")
    with pytest.raises(ConfigError, match="expected"):
        emit("worker.request", {**ONE, "more": 2})
    with pytest.raises(
        ConfigError, match=r"unknown worker.request metadata key 'resul'; did you mean 'result'"
    ):
        emit("worker.request", ONE, {"resul": 1})


def test_a_handler_that_raises_is_detached_and_logged_once(caplog):
    def broken(event, measurements, metadata):
        raise RuntimeError("oops")

    attach("worker.*", broken)
    told, _ = gather("worker.*")
    with caplog.at_level(logging.WARNING, "snakepit_ray.telemetry"):
        for _ in range(3):
            emit("worker.request", ONE)
        flush()
    assert len(told) == 3
    assert len(caplog.records) == 1
    assert "was detached" in caplog.text
    assert "oops" in caplog.text


def test_a_handler_may_detach_and_attach_while_it_is_told():
    told = []

    def once(*event):
        handle.detach()
        told.append(event)
        attach("worker.request", lambda *event: told.append(event))

    handle = attach("worker.request", once)
    emit("worker.request", {**ONE, "duration": 1})
    assert handle.flush(10)
    assert len(told) == 1
    emit("worker.request", {**ONE, "duration": 2})
    flush()
    assert [event[1]["duration"] for event in told] == [1, 2]


def test_adapters_events_have_any_keys():
    told, _ = gather("custom.*")
    emit("custom.epoch_done", {"loss": 0.5}, {"anything": 1})
    flush()
    assert told == [("custom.epoch_done", {"loss": 0.5}, {"anything": 1})]
    assert enabled("custom.other")
    special, _ = gather("custom.mine")
    emit("custom.mine")
    flush()
    assert special == [("custom.mine", {}, {})]


def test_threads_attach_and_detach_at_once():
    counts = [0] * 8

    def work(i):
        for _ in range(50):
            with attach("queue.timeout", lambda *_: counts.__setitem__(i, counts[i] + 1)):
                emit("queue.timeout", {"waited": 1, "limit": 1})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) >= 50  # each block was flushed at its end
    assert not enabled("queue.timeout")


def test_nobody_listening_costs_next_to_nothing():
    best = min(timeit.repeat(lambda: emit("worker.request"), number=10_000, repeat=5)) / 10_000
    assert best < 5e-6  # measured 0.2 µs; a look into a dict, with room for a busy machine


def test_a_slow_handler_delays_nobody_and_what_it_misses_is_counted():
    entered, may_go = threading.Event(), threading.Event()
    handled = []

    def slow(event, measurements, metadata):
        entered.set()
        assert may_go.wait(30)
        handled.append(measurements["position"])

    handle = attach("queue.enqueued", slow, queue_size=3)
    told, _ = gather("queue.enqueued")
    emit("queue.enqueued", {"position": 0})
    assert entered.wait(10)
    for position in range(1, 10):
        emit("queue.enqueued", {"position": position})
    assert handled == []
    may_go.set()
    flush()
    assert handled == [0, 1, 2, 3]
    assert handle.dropped == 6
    assert len(told) == 10


def test_a_handler_may_wait_for_its_own_flush_without_hanging():
    said = []
    handle = attach("stream.started", lambda *_: said.append(handle.flush(30)))
    emit("stream.started")
    flush()
    assert said == [False]


def test_events_of_another_process_reach_handlers_and_no_tap():
    woken = []
    tap = Tap(["stream.*"], lambda: woken.append(1), queue_size=2)
    told, _ = gather("stream.*")
    deliver([Occurrence("stream.started", {}, {"pool": "far"})])
    flush()
    assert told == [("stream.started", {}, {"pool": "far"})]
    assert (tap.take(), woken) == (([], 0), [])
    for _ in range(3):
        emit("stream.started")
    assert len(woken) == 3
    assert tap.take() == ([Occurrence("stream.started", {}, {})] * 2, 1)
    assert tap.take() == ([], 0)
    tap.detach()
    emit("stream.started")
    assert tap.take() == ([], 0)


class Elsewhere:
    """Notes what it would have to bring from other processes."""

    def __init__(self):
        self.wanted = []

    def changed(self):
        self.wanted.append(telemetry.patterns())

    def connected(self, timeout):
        return timeout > 1

    def fetch(self, timeout):
        emit("worker.health_check_failed")
        return timeout > 1


def test_who_brings_events_of_others_hears_of_every_change(monkeypatch):
    elsewhere = Elsewhere()
    monkeypatch.setattr(bus, "_far", elsewhere)
    told = []
    with attach("worker.*", lambda event, *_: told.append(event)) as handle:
        assert (handle.flush(5), handle.flush(1)) == (True, False)
        assert told == ["worker.health_check_failed"] * 2
    assert len(told) == 3
    elsewhere.wanted.clear()
    with attach_many(["worker.*", "queue.*"], print) as handle:
        assert (handle.connected(2), handle.connected(1)) == (True, False)
        tap = Tap(["stream.*"], lambda: None)
        tap.listen_to(["pool.*"])
        assert (enabled("stream.ended"), enabled("pool.closed")) == (False, True)
        tap.detach()
    assert elsewhere.wanted == [("queue.*", "worker.*")] * 4 + [()]


@pytest.mark.parametrize(
    ("pattern", "handler", "settings", "words"),
    [
        (3, print, {}, "a telemetry pattern is a string"),
        ("*", "print", {}, "called with each event; got 'print'"),
        ("*", print, {"queue_size": 0}, "at least 1; got 0"),
        ("*", print, {"queue_size": True}, "at least 1; got True"),
    ],
)
def test_nonsense_is_refused(pattern, handler, settings, words):
    with pytest.raises(ConfigError, match=words):
        attach(pattern, handler, **settings)


def test_a_forked_child_has_no_listeners_and_may_have_its_own():
    told, _ = gather("*")
    pid = os.fork()
    if not pid:
        mine = []
        emit("stream.started")
        with attach("stream.started", lambda *event: mine.append(event)):
            emit("stream.started")
        os._exit(0 if len(mine) == 1 and not enabled("stream.started") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    emit("stream.ended", {"duration": 1, "chunks": 1})
    flush()
    assert [event[0] for event in told] == ["stream.ended"]


EMITTED = re.compile(r'telemetry\.emit\(\s*"([a-z_.]+)"')


def test_the_table_lists_what_is_emitted_and_nothing_else():
    sources = [path.read_text() for path in (ROOT / "snakepit_ray").rglob("*.py")]
    assert {event for text in sources for event in EMITTED.findall(text)} == set(EVENTS)


def test_the_page_lists_every_event():
    page = (ROOT / "snakepit_ray/docs/telemetry.md").read_text()
    for name, event in EVENTS.items():
        row = f"| `{name}` | {', '.join(event.measurements)} | {', '.join(event.metadata)} | {event.doc} |"
        assert row in page
    assert all(f"`{why.value}`" in page for why in Why)
