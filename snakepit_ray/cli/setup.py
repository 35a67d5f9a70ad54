"""The command `setup`: installs the bridge into an interpreter of the user's, with uv where it is, else with
that interpreter's pip.

Rules: what an environment has keeps its version wherever that is possible. A change is shown and asked for.
One that breaks what is installed there is refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from snakepit_ray.cli import installing
from snakepit_ray.cli.installing import Change, Installer
from snakepit_ray.cli.interpreters import OLDEST, Interpreter, ask
from snakepit_ray.errors import ConfigError


def run(interpreter: str, yes: bool = False) -> int:
    """Installs snakepit-bridge and what it needs into `interpreter`; says what it does. `yes`: without asking
    before what is installed changes. Raises ConfigError."""
    target = _target(interpreter)
    installer = installing.installer_for(target, find_uv())
    with tempfile.TemporaryDirectory(prefix="snakepit-setup-") as directory:
        pins = _agree(target, installer, os.path.join(directory, "constraints.txt"), yes)
        if pins is None:
            return 1
        command = installer.install(pins)
        print("running: " + " ".join(command), flush=True)
        if subprocess.run(command, check=False).returncode != 0:
            raise ConfigError(f"the bridge could not be installed into {target.path}")
    after = ask(target.path)
    if after is None or after.unfit:
        why = after.unfit if after else "it does not run any more"
        raise ConfigError(f"the bridge is installed in {target.path} and does not import there: {why}")
    print(f"{target.path}: the bridge imports there")
    return 0


def _target(interpreter: str) -> Interpreter:
    found = shutil.which(interpreter)
    if found is None:
        raise ConfigError(f"{interpreter!r} is not an executable file")
    target = ask(os.path.abspath(found), installed=True)
    if target is None:
        raise ConfigError(f"{found} does not run as a Python; name the path of one from {_text(OLDEST)}")
    if target.is_too_old:
        raise ConfigError(f"{target}: {target.unfit}")
    return target


def _agree(target: Interpreter, installer: Installer, pins: str, yes: bool) -> str | None:
    """The file of versions to install with; None where the user does not agree to what would change."""
    kept = installing.versions(target)
    _write(pins, kept)
    changes = installer.plan(pins)
    if isinstance(changes, str):  # not without a change: which?
        changes = installer.plan(None)
    if isinstance(changes, str):
        raise ConfigError(f"the bridge could not be installed into {target.path}: {changes}")
    broken = installing.broken_by(changes, target)
    if broken:
        raise ConfigError(
            f"the bridge was not installed into {target.path}: it would change {_list(changes)}, and "
            f"{'; '.join(broken)}; give the pool an environment of its own"
        )
    print(f"{target} gets: {', '.join(f'{c.name} {c.new}' for c in changes if not c.old) or 'nothing new'}")
    replaced = [change for change in changes if change.old]
    if replaced and not _yes(f"what is installed there changes: {_list(replaced)}", yes):
        print(f"nothing was changed in {target.path}; --yes does it", file=sys.stderr)
        return None
    _write(pins, kept | {change.name: change.new for change in changes if change.name != installing.BRIDGE})
    return pins


def _yes(question: str, yes: bool) -> bool:
    print(question, flush=True)
    if yes or not sys.stdin.isatty():
        return yes
    try:
        return input("go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _write(path: str, versions: Mapping[str, str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _list(changes: list[Change]) -> str:
    return ", ".join(f"{change.name} {change.old} to {change.new}" for change in changes if change.old)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def find_uv() -> str | None:
    """uv on PATH, else beside the Python that runs this."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
