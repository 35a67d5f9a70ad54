"""Chunks that cross Ray together, and progress among them."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from snakepit_ray.client.progress import Bar, line
from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import Part, Piece, Progress, decode_value, encode_value
from tests.adapters.ruby_like import RubyLike

INFO = ("w", (1, 2), 3, "n", "r", 0.0, 0.5, 1, False)


def moved(part: Part) -> Part:
    return pickle.loads(pickle.dumps(part, protocol=5))


def test_values_come_in_order_and_arrays_with_them() -> None:
    array = encode_value({"a": np.arange(4)})
    part = moved(Part([Piece(b'{"i":0}'), Piece(b'[{"i":1},2,"x"]', (), 3), Piece(*array[:2])]))
    values = list(part.values())
    assert values[:4] == [{"i": 0}, {"i": 1}, 2, "x"]
    assert values[4]["a"].tolist() == [0, 1, 2, 3]


def test_a_pack_counts_its_values_alone() -> None:
    pack, single = Piece(b"[1,22,333]", (), 3), Piece(b"1", (b"12345",))
    assert (pack.chunks, pack.size) == (3, 6) and (single.chunks, single.size) == (1, 6)


@pytest.mark.parametrize("raw", [b"[1,2]", b"{}", b"[1,2", b"3"])
def test_a_damaged_pack_raises_in_its_place(raw: bytes) -> None:
    values = Part([Piece(b"0"), Piece(raw, (), 3)]).values()
    assert next(values) == 0
    with pytest.raises(EncodingError):
        next(values)


def test_info_and_a_runtime_apply_to_each_value_but_not_to_reports() -> None:
    report = b'{"$snakepit":"progress","done":1,"total":null,"message":""}'
    replies = list(moved(Part([Piece(b"[1," + report + b"]", (), 2)], INFO)).values())
    assert (replies[0].value, replies[0].worker_id) == (1, "w") and replies[1] == Progress(1)
    runtime = f"{RubyLike.__module__}:{RubyLike.__qualname__}"
    stamped = list(Part([Piece(b'{"title":"t"}')], None, runtime, "generate_report").values())
    assert set(stamped[0]) == {"title", "processed_at"}


@pytest.mark.parametrize("report", [Progress(1, 2, "é"), Progress(0.5), Progress(2**60, 2**61)])
def test_a_report_survives_the_codec(report: Progress) -> None:
    assert decode_value(*encode_value([report])[:2]) == [report]


@pytest.mark.parametrize(
    "fields", ['"done":"1","total":null,"message":""', '"done":1,"total":null', '"total":1,"message":""']
)
def test_a_damaged_report_is_refused(fields: str) -> None:
    with pytest.raises(EncodingError, match="progress"):
        decode_value(b'{"$snakepit":"progress",' + fields.encode() + b"}")


def test_a_line_says_how_far_it_is() -> None:
    assert line(Progress(5, 10, "files"), 1.25) == "[###############...............]  50% 5/10 files (1.2 s)"
    assert line(Progress(7), 2.0) == "7 (2.0 s)"
    assert line(Progress(20, 10), 0.0).startswith("[" + "#" * 30 + "] 100%")


def test_a_terminal_has_one_line_and_a_log_at_most_one_a_tenth() -> None:
    terminal, log = io.StringIO(), io.StringIO()
    for file, live in ((terminal, True), (log, False)):
        bar = Bar(file, live)
        for done in range(1, 1001):
            bar(Progress(done, 1000))
        bar.close()
    assert terminal.getvalue().count("\n") == 1 and terminal.getvalue().startswith("\r[")
    assert "100% 1000/1000" in terminal.getvalue().splitlines()[-1]
    assert 10 <= len(log.getvalue().splitlines()) <= 11 and "\r" not in log.getvalue()
