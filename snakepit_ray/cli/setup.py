"""Knows how to install the bridge into an interpreter of the user's, with uv where it is, else with that
one's pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from snakepit_ray.runtimes.python import bridge_directory


def run(interpreter: str) -> int:
    """Installs snakepit-bridge and what it needs into `interpreter`; says what it did."""
    found = shutil.which(interpreter)
    if found is None:
        print(f"snakepit-ray: {interpreter!r} is not an executable file", file=sys.stderr)
        return 1
    python = os.path.abspath(found)
    command = install_command(python, str(bridge_directory()), find_uv())
    print("running: " + " ".join(command), flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        print(f"snakepit-ray: the bridge could not be installed into {python}", file=sys.stderr)
        return 1
    # Not in this directory, where a checkout's own bridge could be what is imported.
    check = subprocess.run([python, "-c", "import snakepit_bridge, grpc"], check=False, cwd=os.sep)
    if check.returncode != 0:
        print(f"snakepit-ray: the bridge is installed in {python} and does not import there", file=sys.stderr)
        return 1
    print(f"{python}: the bridge imports there")
    return 0


def find_uv() -> str | None:
    """uv on PATH, else beside the Python that runs this."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))


def install_command(interpreter: str, package: str, uv: str | None) -> list[str]:
    """The command that installs `package` into `interpreter`."""
    if uv is not None:
        return [uv, "pip", "install", "--python", interpreter, package]
    return [interpreter, "-m", "pip", "install", package]
