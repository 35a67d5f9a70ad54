"""A planned end loses nothing that the end of a plain program keeps."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb


@pytest.mark.parametrize("how", ["signal", "shutdown"])
def test_what_is_open_is_flushed_and_helpers_clean_up(bridge, tmp_path: Path, how: str) -> None:
    one = bridge("leaving:Leaving", adapter_args={"path": str(tmp_path)}).start()
    name = one.attach().run("leave")
    assert os.path.exists(f"/dev/shm/{name}") and not (tmp_path / "last").exists()
    if how == "signal":
        one.process.terminate()
    else:
        request = pb.ShutdownRequest(grace_ms=100).SerializeToString()
        one.unary("/snakepit.v1.Interpreter/Shutdown", request)
    assert one.wait() == 0
    assert (tmp_path / "text").read_text() == "buffered"
    assert gzip.decompress((tmp_path / "zipped").read_bytes()) == b"buffered"
    assert (tmp_path / "late").read_text() == "written", "a pool of threads finished what it was given"
    assert (tmp_path / "last").read_text() == "deleted", "the adapter was destroyed"
    assert (tmp_path / "helper").read_text() == "cleaned", "a helper was asked before it was made to end"
    assert not os.path.exists(f"/dev/shm/{name}"), "the resource tracker removed it"


def test_what_cannot_be_flushed_does_not_hold_up_the_end(bridge, tmp_path: Path) -> None:
    one = bridge("leaving:Leaving", adapter_args={"path": str(tmp_path)}).start()
    one.attach().run("leave_a_full_pipe")
    one.process.terminate()
    assert one.wait() == 0
