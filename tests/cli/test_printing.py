"""What commands print: JSON that is JSON on every output, verdicts, colour only on a terminal."""

from __future__ import annotations

import io
import json
import math
import sys

import numpy as np
import pyarrow as pa
import pytest

from snakepit_ray import __version__
from snakepit_ray.cli import main, printing, status
from snakepit_ray.cli.printing import coloured, print_json, survive_any_encoding

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "printed", "lost"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}, ""),
        ({"loss": NAN, "best": [INF, -INF]}, {"loss": None, "best": [None, None]}, "-inf, inf, nan"),
        (np.array([[1.0, NAN], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]], "nan"),
        (pa.table({"x": [1.0, INF]}), [{"x": 1.0}, {"x": None}], "inf"),
        ({"raw": b"ab"}, {"raw": "b'ab'"}, ""),
    ],
)
def test_json(value: object, printed: object, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json(value)
    said = capsys.readouterr()
    assert json.loads(said.out, parse_constant=pytest.fail) == printed
    assert (f"JSON has no {lost}: printed as null" in said.err) if lost else said.err == ""


@pytest.mark.parametrize(
    ("encoding", "text"), [("ascii", '"\\u00e9"'), ("latin-1", '"\\u00e9"'), ("utf-8", '"é"')]
)
def test_json_on_every_output(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_json("é")
    sys.stdout.flush()
    assert written.getvalue().decode(encoding) == text + "\n"


def test_words_on_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    survive_any_encoding(sys.stdout)
    print("pool é: ready")
    sys.stdout.flush()
    assert written.getvalue() == b"pool \\xe9: ready\n"


@pytest.mark.parametrize(
    ("states", "good", "words"),
    [
        (["ready", "ready"], True, "ready: 2 of 2 workers ready"),
        (["ready", "draining"], True, "ready: 1 of 1 workers ready, 1 leaving"),
        (
            ["ready", "quarantined", "starting"],
            False,
            "NOT READY: 1 of 3 workers ready, 1 quarantined, 1 starting",
        ),
        (["dead"], False, "NOT READY: 0 of 1 workers ready, 1 dead"),
        ([], False, "NOT READY: 0 of 0 workers ready"),
    ],
)
def test_verdicts(states: list[str], good: bool, words: str) -> None:
    assert status.verdict(states) == (good, words)


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("ready", "good") == "ready"
    monkeypatch.setattr(printing.sys.stdout, "isatty", lambda: True, raising=False)
    assert coloured("ready", "good") == "\x1b[32mready\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("ready", "good") == "ready"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"snakepit-ray {__version__}\n"


@pytest.mark.parametrize(
    "words", [["--seconds", "nan"], ["--seconds", "inf"], ["--rate", "nan"], ["--kills", "-1"]]
)
def test_chaos_takes_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--start", *words]) == 1
    assert f"{words[0]}: got {words[1]}, expected a number from " in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf"])
def test_call_takes_a_timeout(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "p", "add", f"--timeout={seconds}", "--address", "127.0.0.1:1"]) == 1
    assert "timeout" in capsys.readouterr().err
