"""Pools on interpreters that cannot run the bridge: what the caller of `start` reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import snakepit_ray as snakepit
from tests.bridge.test_unfit import NEEDS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_an_interpreter_that_was_not_set_up(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    with pytest.raises(snakepit.WorkerStartError) as failed:
        snakepit.start(name="unfit", size=1, interpreter=bare)
    assert f"at {bare} lacks {' and '.join(NEEDS)}; run: snakepit-ray setup {bare}" in str(failed.value)
    assert "Traceback" not in str(failed.value)
