"""The directories of lanes: ours alone, short enough, and swept when their makers are gone."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from snakepit_ray.process import lanes, node, registry, sockets

LATER = lanes.YOUNG_SECONDS + 1


def test_a_directory_is_ours_alone_and_goes_with_its_maker(tmp_path: Path) -> None:
    one = lanes.make(tmp_path)
    assert os.stat(one.directory).st_mode & 0o777 == 0o700
    assert os.path.dirname(one.path) == one.directory
    one.remove()
    one.remove()
    assert not os.path.exists(one.directory)


def test_a_sweep_takes_what_nobody_holds_and_nothing_else(tmp_path: Path) -> None:
    held, dead, elsewhere = lanes.make(tmp_path), lanes.make(tmp_path), tmp_path / "elsewhere"
    Path(dead.path).touch()
    os.close(dead._descriptor)  # as the end of its process does
    elsewhere.mkdir()
    folder = node.make(lanes.FOLDER, tmp_path)
    (folder / f"{lanes.PREFIX}link").symlink_to(elsewhere)
    (folder / "another").mkdir()
    assert lanes.sweep(time.time(), tmp_path) == []  # its maker may be about to lock it
    assert lanes.sweep(time.time() + LATER, tmp_path) == [Path(dead.directory)]
    assert {path.name for path in folder.iterdir()} == {
        Path(held.directory).name,
        f"{lanes.PREFIX}link",
        "another",
    }
    assert elsewhere.is_dir()
    held.remove()


def test_a_sweep_of_the_registry_takes_lanes_along(tmp_path: Path) -> None:
    dead = lanes.make(tmp_path)
    os.close(dead._descriptor)
    old = time.time() - 60
    os.utime(dead.directory, (old, old))
    assert Path(dead.directory) in registry.sweep(base=tmp_path).files
    assert not os.path.exists(dead.directory)


def test_a_long_temporary_directory_gives_way_to_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(sockets, "SHORT", (tempfile.mkdtemp(dir="/tmp", prefix="s-"),))
    one = lanes.make()
    try:
        assert len(one.path) <= sockets.NAME_BYTES
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(one.path)
        assert not lanes.sweep(time.time() + LATER)  # it is looked at there, and held
    finally:
        one.remove()
        os.rmdir(f"{sockets.SHORT[0]}/snakepit-{os.geteuid()}/lanes")
        os.rmdir(f"{sockets.SHORT[0]}/snakepit-{os.geteuid()}")
        os.rmdir(sockets.SHORT[0])
