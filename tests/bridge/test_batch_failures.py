"""Failures of a batch travel in its reply, and count as its results do."""

from __future__ import annotations

import json

from tests.bridge.harness import KIND
from tests.bridge.test_batches import ask

LIMIT = 64 * 1024
FAILS = {"code": "(_ for _ in ()).throw(ValueError('x' * 20_000))"}


def test_failures_count_for_the_size_of_a_message(bridge) -> None:
    stream = bridge("commands:Commands", max_message_size=LIMIT).start().attach()
    items = [FAILS] * 40 + [{"code": "'a' * 30_000"}, {"code": "1"}]
    reply = stream.reply(ask(stream, "result_of", items))
    assert reply.items == 42 and len(reply.failures) == 41
    assert reply.ByteSize() < LIMIT + 41 * 500  # what is left of each
    first, last = reply.failures[0].failure, reply.failures[39].failure
    assert len(first.message) == 20_000 and "Traceback" in first.traceback
    assert last.message.endswith("(20,000 characters; cut: max_message_size)") and not last.traceback
    assert (first.type, last.type) == ("ValueError", "ValueError")
    assert KIND.Name(reply.failures[40].failure.kind) == "PAYLOAD_TOO_LARGE"
    assert json.loads(reply.value.json)[40:] == [None, 1]
    stream.close()


def test_many_failures_give_the_rest_back(stream) -> None:
    reply = stream.reply(ask(stream, "result_of", [FAILS] * 1000))
    assert 100 < reply.items < 1000
    assert reply.items == len(reply.failures) and reply.ByteSize() < 16 * 1024 * 1024
