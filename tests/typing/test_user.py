"""What type checkers say of a user's file: the package ships its types.

Both checkers report the same lines, each by its own rule. What they find is compared with the comments in
user.py, and they find nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = Path(__file__).with_name("user.py")
MARK = re.compile(r"# error: (?P<mypy>[\w-]+) (?P<pyright>\w+)$")

# Ray's own source takes mypy a minute to read, and none of it is in what is looked at here.
MYPY = """
[mypy]
strict = true
[mypy-ray.*,numpy.*,pyarrow.*,grpc.*,psutil.*,google.*]
follow_imports = skip
"""
PYRIGHT = {"typeCheckingMode": "standard", "pythonVersion": "3.10"}


def expected(checker: str) -> dict[int, str]:
    """The rules that the comments of the file name, by line."""
    lines = enumerate(USER.read_text().splitlines(), 1)
    return {number: mark[checker] for number, line in lines if (mark := MARK.search(line))}


def check(place: Path, *words: str) -> str:
    """What a checker prints of the file, in a directory of its own. It needs no network, so it gets none."""
    shutil.copy(USER, place / "user.py")
    env = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "https_proxy": "http://127.0.0.1:9"}
    ran = subprocess.run(
        [sys.executable, "-m", *words, "user.py"],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


def test_the_file_has_errors_of_each_kind() -> None:
    for checker, rules in (
        ("mypy", {"call-arg", "arg-type", "attr-defined", "misc"}),
        ("pyright", {"reportCallIssue", "reportArgumentType", "reportAttributeAccessIssue"}),
    ):
        assert set(expected(checker).values()) == rules


@pytest.mark.timeout(300)
def test_mypy(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(MYPY)
    said = check(tmp_path, "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "user"))
    found = re.findall(r"^user\.py:(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert {int(line): rule for line, rule in found} == expected("mypy"), said


@pytest.mark.timeout(300)
def test_pyright(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    said = check(tmp_path, "pyright", "--outputjson", "--pythonpath", sys.executable)
    diagnostics = json.loads(said)["generalDiagnostics"]
    found = {one["range"]["start"]["line"] + 1: one["rule"] for one in diagnostics}
    assert found == expected("pyright"), said
