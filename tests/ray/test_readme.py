"""The README's example runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

pytestmark = pytest.mark.ray

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_60_second_example_does_what_it_says(cluster: None, tmp_path: Path) -> None:
    marked = README.read_text().partition("<!-- example: begin -->")[2].partition("<!-- example: end -->")[0]
    (code,) = re.findall(r"```python\n(.*?)```", marked, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    said = [line for line in lines if not line.startswith(("[", "\x1b"))]
    assert said[:2] == ["{'items': 2}", "12.5"]
    assert "prise" in said[2]
    assert said[4:6] == ["4.5", "8.0"]
    assert "100" in said
    assert said[-1].startswith("PoolStats(workers=2, available=2, busy=0, waiting=0, requests=106")
