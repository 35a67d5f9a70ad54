"""How much of the worker's code one call passes: what a reader of a trace has to know."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import snakepit_ray
from tests.supervisor.harness import request, run
from tests.supervisor.test_kept_answers import Life

ROOT = os.path.dirname(snakepit_ray.__file__)
# A coroutine counts once more for each time it goes on.
MOST_CALLS = 70
MOST_MODULES = {"grpc": 16, "auto": 17, "frames": 17}  # what is asked, its wire, and of frames the framing


@pytest.mark.parametrize("wire", MOST_MODULES)
def test_a_call_passes_few_functions_and_modules_of_the_worker(tmp_path: Path, wire: str) -> None:
    async def body() -> None:
        async with Life(tmp_path, 1, wire=wire) as life:
            traces = [await traced(life, number) for number in range(30)]
        calls = sorted(sum(trace.values()) for trace in traces)[len(traces) // 2]
        modules = {module for trace in traces[10:] for module, _ in trace}
        assert calls <= MOST_CALLS, traces[-1]
        assert len(modules) <= MOST_MODULES[wire], sorted(modules)

    run(body)


async def traced(life: Life, number: int) -> Counter[tuple[str, str]]:
    """How often each function of the package was entered for one call, by module and name."""
    entered: Counter[tuple[str, str]] = Counter()

    def enters(frame: Any, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOT):
            entered[os.path.relpath(code.co_filename, ROOT), code.co_name] += 1

    blob = request("run", number, tag="traced").SerializeToString()
    sys.setprofile(enters)
    try:
        await life.requests.execute(blob, ())
    finally:
        sys.setprofile(None)
    return entered
