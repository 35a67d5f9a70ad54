"""The Python of each page in snakepit_ray/docs runs as it stands there, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snakepit_ray

pytestmark = pytest.mark.ray

PAGES = sorted(Path(snakepit_ray.__file__).with_name("docs").glob("*.md"))
# What a page prints: each of its lines is one of these, and each of these is there.
SAID = {
    "adapters": [r"2", r"2 hi", r"\['tea'\]", r"InvalidArguments"],
    "calls": [
        r"\{'result': 3\}",
        r"\{'result': 3\} 1",
        r"500500",
        r"1000",
        r"\['dict', 'InvalidArguments'\]",
        r"\{'result': 42\}",
    ],
    "configuration": [r"10\.0 2147483648", r".*'qeue_timeout'.*did you mean 'queue_timeout'.*"],
    "failures": [r"add", r"True", r"30\.0"],
    "pools": [
        r"features: [0-2] of 3 ready, 0 failed",
        r"features: 3 of 3 ready, 0 failed",
        r"<Pool 'features' 3 of 3 workers ready>",
        r"the cluster has no room for a worker of pool 'default', "
        r"which asks for CPU 1e\+06: it has 1 node .*",
        r"1 \['ready'\]",
    ],
    "telemetry": [r"request\.executed .* add"],
}
OTHERS = ("(", "\x1b")  # how lines begin that Ray and the workers print


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_python_of_a_page_does_what_it_says(
    cluster: None,
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(OTHERS)]
    expected = SAID[page.stem]
    assert [line for line in said if not any(re.fullmatch(one, line) for one in expected)] == []
    assert [one for one in expected if not any(re.fullmatch(one, line) for line in said)] == []
