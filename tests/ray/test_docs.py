"""The Python and the console of each page in snakepit_ray/docs run as they stand there, block after block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.docs.pages import PAGES, Block, blocks, commands, pattern

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

# What a page prints: each of its lines is one of these, and each of these is there.
SAID: dict[str, list[str]] = {
    "adapters": [r"2", r"2 hi", r"\['tea'\]", r"InvalidArguments"],
    "arrays": [r"float64 \[1000, 1000\]", r"False", r"1\.0 2\.0", r"6", r"True"],
    "calls": [r"\{'result': 3\}", r"\{'result': 3\} 1", r"args\[\"a\"\]\[0\]: cannot encode set.*"],
    "configuration": [r"10\.0 2147483648", r".*'qeue_timeout'.*did you mean 'queue_timeout'.*"],
    "context": [
        r"\{'temperature': 0\.7, 'prompts': 1\}",
        r"\{'temperature': 0\.2, 'prompts': 2\}",
        r"\['last_prompt', 'limits', 'model', 'prompts', 'temperature'\]",
        r"\{'tokens': 100\}",
        r"\['prompts', 2, 2\]",
    ],
    "failures": [r"add", r"True", r"30\.0"],
    "first-pool": [
        r"\{'result': 8\}",
        r"<Pool 'default' 1 of 1 workers ready>",
        r"21\.5",
        r"\[21\.5, 22\]",
        r"-300 degrees is colder than anything",
    ],
    "lane": [r"\{'result': 3\} lane", r"0 lane", r"3 3", r"\{'near-0': ''\}", r"7", r"ray"],
    "many-calls": [r"500500", r"1000", r"\['dict', 'InvalidArguments'\]", r"\[3, 5, 7\]", r"3"],
    "pools": [
        r"features: [0-2] of 3 ready, 0 failed",
        r"features: 3 of 3 ready, 0 failed",
        r"<Pool 'features' 3 of 3 workers ready>",
        r"the cluster has no room for a worker of pool 'default', "
        r"which asks for CPU 1e\+06: it has 1 node .*",
        r"1 \['ready'\]",
    ],
    "recycling": [r"1 replaced", r"True", r"recycle_manual"],
    "session-state": [
        r"0\.1 \(2, 3\)",
        r"2",
        r"max 2",
        r"read again",
        r"\[\(1, 0\.1\), \(2, 0\.5\), \(3, 1\.0\)\]",
        r"4",
        r"\{'rate': 5, 'epochs': 2\}",
        r"\{'rate': 0\.2, 'epochs': 5\} \['momentum'\]",
        r"\['epochs', 'weights'\]",
        r"0\.2",
        r"0\.3 6 0",
        r"\{'visits': 1\}",
        r"\['bob', 'carol'\]",
        r"True False",
        r"\{'prompt': 'Hello, \{name\}!'\}",
    ],
    "session-store": [r"sqlite True"],
    "sessions": [r"1", r"2", r"crashed", r"1 after rebind"],
    "streams": [r"line 0", r"line 1", r"2", r"1 of 3 opened", r"\['line 0', 'line 1', 'line 2'\]", r"closed"],
    "telemetry": [r"request\.executed .* add"],
    "testing": [r"\{'total': 12\.5\}", r"ok"],
}
OTHERS = ("(", "\x1b")  # how lines begin that Ray and the workers print


def run_python(block: Block, names: dict[str, object], where: str) -> None:
    exec(compile(block.text, where, "exec"), names)


def run_console(block: Block) -> None:
    """Runs its commands as a shell does, in the tests' cluster, and compares what they print."""
    place = os.path.dirname(sys.executable)
    env = {
        **os.environ,
        "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    for words, shows in commands(block.text):
        ran = subprocess.run(
            words,
            shell=True,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert pattern(shows).fullmatch(ran.stdout), f"$ {words}\n{ran.stdout}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python", "console")], ids=lambda page: page.stem
)
def test_a_page_does_what_it_says(
    cluster: None,
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(blocks(page, "python", "console")):
        if block.language == "python":
            run_python(block, names, f"{page.name}, block {number}")
        else:
            run_console(block)
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(OTHERS)]
    expected = SAID.get(page.stem, [])
    assert [line for line in said if not any(re.fullmatch(one, line) for one in expected)] == []
    assert [one for one in expected if not any(re.fullmatch(one, line) for line in said)] == []
