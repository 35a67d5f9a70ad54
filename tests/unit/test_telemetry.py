"""Events are told to who listens, cost nothing otherwise, and no handler breaks what it watches."""

import logging
import threading
import timeit

import pytest

from snakepit_ray import telemetry
from snakepit_ray.errors import ConfigError
from snakepit_ray.telemetry import EVENTS, attach, attach_many, emit, enabled

CONTRACT = {
    "worker.initialized": ({"initialization_time"}, set()),
    "worker.request": ({"duration"}, {"result"}),
    "worker.recycled": ({"uptime", "request_count"}, {"reason"}),
    "worker.health_check_failed": (set(), {"error"}),
    "pool.saturated": ({"queue_size", "max_queue_size"}, {"available_workers", "busy_workers"}),
    "pool.capacity_reached": ({"capacity", "load"}, {"rejected"}),
    "request.executed": ({"duration_us"}, {"command", "success"}),
}


@pytest.fixture(autouse=True)
def nobody_listens():
    yield
    for handle in telemetry._handles:
        handle.detach()


def gather(pattern):
    told = []
    return told, attach(pattern, lambda *event: told.append(event))


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
        "tool",
        "affinity",
        "delegation",
    }
    assert all(event.doc for event in EVENTS.values())


def test_handlers_get_what_matches():
    told, handle = gather("worker.*")
    everything, _ = gather("*")
    emit("worker.request", {"duration": 0.5}, {"result": "ok"})
    emit("pool.saturated", {"queue_size": 1, "max_queue_size": 1})
    assert told == [("worker.request", {"duration": 0.5}, {"result": "ok"})]
    assert [event for event, _, _ in everything] == ["worker.request", "pool.saturated"]
    assert (enabled("worker.request"), enabled("pool.closed")) == (True, True)
    handle.detach()
    handle.detach()
    emit("worker.request", {"duration": 0.5})
    assert len(told) == 1
    assert len(everything) == 3


def test_several_patterns_tell_an_event_once():
    told = []
    with attach_many(
        ["worker.*", "worker.request", "stream.ended"], lambda *event: told.append(event[0])
    ) as handle:
        emit("worker.request", {"duration": 0.5})
        emit("stream.ended", {"duration": 1, "chunks": 2})
        emit("stream.started")
        assert "worker.*" in repr(handle)
    emit("worker.request", {"duration": 0.5})
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
    with pytest.raises(ConfigError, match=r"got measurements \[\], expected \['duration'\]"):
        emit("worker.request")
    with pytest.raises(ConfigError, match="expected"):
        emit("worker.request", {"duration": 1, "more": 2})
    with pytest.raises(
        ConfigError, match=r"unknown worker.request metadata key 'resul'; did you mean 'result'"
    ):
        emit("worker.request", {"duration": 1}, {"resul": 1})


def test_a_handler_that_raises_is_detached_and_logged_once(caplog):
    def broken(event, measurements, metadata):
        raise RuntimeError("oops")

    attach("worker.*", broken)
    told, _ = gather("worker.*")
    with caplog.at_level(logging.WARNING, "snakepit_ray.telemetry"):
        for _ in range(3):
            emit("worker.request", {"duration": 0.5})
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
    emit("worker.request", {"duration": 1})
    assert len(told) == 1
    emit("worker.request", {"duration": 2})
    assert [event[1]["duration"] for event in told] == [1, 2]


def test_adapters_events_have_any_keys():
    told, _ = gather("custom.*")
    emit("custom.epoch_done", {"loss": 0.5}, {"anything": 1})
    assert told == [("custom.epoch_done", {"loss": 0.5}, {"anything": 1})]
    assert enabled("custom.other")
    special, _ = gather("custom.mine")
    emit("custom.mine")
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
    assert min(counts) >= 50
    assert not enabled("queue.timeout")


def test_nobody_listening_costs_next_to_nothing():
    best = min(timeit.repeat(lambda: emit("worker.request"), number=10_000, repeat=5)) / 10_000
    assert best < 5e-6  # measured 0.2 µs; a look into a dict, with room for a busy machine
