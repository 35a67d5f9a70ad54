"""The README's Python runs as it stands there, block after block, as in a notebook."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

README = Path(__file__).resolve().parents[2] / "README.md"
ELSEWHERE = "/opt/py39/bin/python"  # in the text; here it is the Python that runs the tests


def test_the_python_of_the_page_does_what_it_says(cluster: None, tmp_path: Path) -> None:
    first, example, arrays, state = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert ELSEWHERE in first
    code = "\n".join((first.replace(ELSEWHERE, sys.executable), example, arrays, state))
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = [line for line in ran.stdout.splitlines() if not line.startswith(("[", "\x1b"))]
    assert said[:3] == ["{'result': 8}", "{'items': 2}", "12.5"]
    assert "prise" in said[3]
    assert said[5:7] == ["4.5", "8.0"]
    assert said[7] == "100"
    assert said[8].startswith("PoolStats(workers=2, available=2, busy=0, waiting=0, requests=106")
    assert said[9:] == ["10000000.0 False", "2 0.5", "0.5"]


def test_the_commands_of_the_page_exist() -> None:
    """Every `snakepit-ray` line is one that the command line takes."""
    from snakepit_ray.cli import parser

    lines = re.findall(r"^    snakepit-ray (.+?)(?:  +#.*)?$", README.read_text(), re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        words = re.sub(r"\[[^]]*\]", "", line).replace("...", "")
        assert parser().parse_args(shlex.split(words)).run, line
