"""What an installation of the bridge would change in an environment, and what that would break: by uv or by
the environment's own pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from snakepit_ray.cli.interpreters import Distribution, Interpreter
from snakepit_ray.errors import ConfigError
from snakepit_ray.runtimes.python import bridge_directory

BRIDGE = "snakepit-bridge"
PLAN_SECONDS = 300.0
PIP_PLANS_SINCE = (22, 2)
UV_LINE = re.compile(r"^ ([-+~]) ([^=\s]+)==(\S+)")


class Change(NamedTuple):
    """A distribution that an installation brings; `old` is "" where it is not there yet."""

    name: str
    old: str
    new: str


class Installer(Protocol):
    """uv or pip."""

    def plan(self, pins: str | None) -> list[Change] | str:
        """What would change, with the versions of the file `pins` kept; the reason where that cannot be."""

    def install(self, pins: str) -> list[str]:
        """The command that does it."""


def installer_for(target: Interpreter, uv: str | None) -> Installer:
    """uv where it is, else the pip of `target`. Raises ConfigError where neither can do it."""
    if uv is not None:
        return Uv(target, uv)
    pip = versions(target).get("pip")
    if pip is None:
        raise ConfigError(f"{target.path} has no pip, and there is no uv; pip install uv")
    if tuple(map(int, re.findall(r"\d+", pip)[:2])) < PIP_PLANS_SINCE:
        raise ConfigError(
            f"{target.path} has pip {pip}, which cannot say what it would change; pip install uv, or: "
            f"{target.path} -m pip install --upgrade pip"
        )
    return Pip(target)


class Uv:
    """Installs by uv."""

    def __init__(self, target: Interpreter, uv: str) -> None:
        self._target = target
        self._command = [uv, "pip", "install", "--python", target.path]

    def plan(self, pins: str | None) -> list[Change] | str:
        ran = _run([*self._command, "--dry-run", *_constraints(pins), bridge_directory()])
        if ran.returncode != 0:
            return ran.stderr.strip()
        lines = filter(None, map(UV_LINE.match, ran.stderr.splitlines()))
        brought = [(line[2], line[3]) for line in lines if line[1] != "-"]
        return _changes(self._target, brought)

    def install(self, pins: str) -> list[str]:
        return [*self._command, *_constraints(pins), bridge_directory()]


class Pip:
    """Installs by the target's own pip."""

    def __init__(self, target: Interpreter) -> None:
        self._target = target
        self._command = [target.path, "-m", "pip", "install", "--disable-pip-version-check"]

    def plan(self, pins: str | None) -> list[Change] | str:
        report = ["--dry-run", "--quiet", "--report", "-"]
        ran = _run([*self._command, *report, *_constraints(pins), bridge_directory()])
        if ran.returncode != 0:
            return ran.stderr.strip()
        found = (item["metadata"] for item in json.loads(ran.stdout)["install"])
        return _changes(self._target, [(facts["name"], facts["version"]) for facts in found])

    def install(self, pins: str) -> list[str]:
        return [*self._command, *_constraints(pins), bridge_directory()]


def versions(target: Interpreter) -> dict[str, str]:
    """What is installed there beside the bridge, by canonical names."""
    found = {canonical(one.name): one.version for one in target.installed}
    return {name: version for name, version in found.items() if name != BRIDGE}


def broken_by(changes: Iterable[Change], target: Interpreter) -> list[str]:
    """What is installed there and does not go together with what `changes` brings, each in words."""
    new = {change.name: change for change in changes if change.old}
    return [
        f"{one.name} {one.version} needs {requirement}"
        for one in target.installed
        if canonical(one.name) not in (*new, BRIDGE)
        for requirement in _broken(one, new, target)
    ]


def _broken(one: Distribution, new: dict[str, Change], target: Interpreter) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    version = ".".join(map(str, target.version))
    there = {"python_version": version.rpartition(".")[0], "python_full_version": version, "extra": ""}
    for text in one.requires:
        try:
            needed = Requirement(text)
        except InvalidRequirement:  # of a time before there was a grammar: it said nothing to anybody
            continue
        change = new.get(canonical(needed.name))
        if change is None or (needed.marker and not needed.marker.evaluate(there)):
            continue
        if needed.specifier.contains(change.old, True) and not needed.specifier.contains(change.new, True):
            yield f"{needed.name}{needed.specifier}"


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _changes(target: Interpreter, brought: Iterable[tuple[str, str]]) -> list[Change]:
    have = versions(target)
    changes = [Change(canonical(name), have.get(canonical(name), ""), new) for name, new in brought]
    return [change for change in changes if change.old != change.new]


def _constraints(pins: str | None) -> list[str]:
    return [] if pins is None else ["--constraint", pins]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PLAN_SECONDS, check=False, cwd=os.sep
    )
