"""What a type checker says of a user's file: the package ships its types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USER = """
import snakepit_ray as snakepit

pool = snakepit.start(size=4, queue_timeout="10s", affinity="strict_queue")
reveal_type(pool)                                     # snakepit_ray.client.pool.Pool
reveal_type(snakepit.connect("a"))                    # snakepit_ray.client.pool.Pool
reveal_type(pool.execute)                             # snakepit_ray.client.forms.Call
reveal_type(pool.execute_batch("add", [{"a": 1}]))                   # list[Any]
reveal_type(pool.submit("add", {"a": 1}, timeout=1.5))               # Future[Any]
reveal_type(pool.stats().requests)                    # "int"
reveal_type(snakepit.errors.ConfigError.unknown)      # def
pool.execute("add", {"a": 1}, timeout="5s", session="s", info=True)
pool.execute_in_session("s", "add", {"a": 1}, retries=2)
pool.session("s").execute.remote("add", idempotent=True)
try:
    pool.execute("add", {"a": 1}, timout=5)           # error: Unexpected keyword argument "timout"
except snakepit.WorkerCrashed as error:
    reveal_type(error.may_have_started)               # "bool"
pool.execute("add", {"a": 1}, timeout=[1])            # error: Argument "timeout"
pool.execute_in_session("s", "add", {}, session="t")                 # error: session
snakepit.start(sise=4)                                # error: Unexpected keyword argument "sise"
snakepit.start(affinity="sometimes")                  # error: Argument "affinity"
snakepit.strat()                                      # error: Module has no attribute "strat"
"""


# Ray's own source takes mypy a minute to read, and none of it is in what is looked at here.
CONFIG = """
[mypy]
strict = true
[mypy-ray.*,numpy.*,pyarrow.*,grpc.*,psutil.*,google.*]
follow_imports = skip
"""


@pytest.mark.timeout(300)
def test_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    words = ["-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "user"), "user.py"]
    ran = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    said: dict[int, str] = {}
    for number, level, text in re.findall(r"^user\.py:(\d+): (\w+): (.*)$", ran.stdout, re.MULTILINE):
        said[int(number)] = said.get(int(number), "") + f"{level}: {text}\n"
    for number, line in enumerate(USER.splitlines(), 1):
        expected = line.partition("# ")[2]
        found = said.pop(number, "")
        if expected.startswith("error: "):
            assert "error: " in found and expected.removeprefix("error: ") in found, (line, found)
        elif expected:
            assert "note: Revealed type is" in found and expected in found, (line, found)
        else:
            assert found == "", (line, found)
    assert said == {}, ran.stdout + ran.stderr
