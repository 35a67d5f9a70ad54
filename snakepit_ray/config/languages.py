"""The languages of interpreters, one table: their programs, the files of their adapters, their command lines.

Rules:
- A language is named here and nowhere else. What checks settings, finds interpreters or builds a command line
  asks this table.
- A command line is a pure function of (executable, script, arguments). The host puts `--ready-fd N` behind it
  (bridge/README.md section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Argv = Callable[[str, str, Sequence[str]], tuple[str, ...]]


def script_argv(executable: str, script: str, args: Sequence[str]) -> tuple[str, ...]:
    """`EXECUTABLE SCRIPT ARGS`: an interpreter that runs a bridge. Without a script, `EXECUTABLE ARGS`: a
    program that is its own bridge, as compiled languages have it."""
    return (executable, *([script] if script else ()), *args)


def flagged_argv(*flags: str) -> Argv:
    """`EXECUTABLE FLAGS SCRIPT ARGS`: for an interpreter whose own flags stand before the script."""

    def build(executable: str, script: str, args: Sequence[str]) -> tuple[str, ...]:
        return (executable, *flags, *([script] if script else ()), *args)

    return build


@dataclass(frozen=True, slots=True)
class Language:
    """A language. `program`: its executable on PATH; `suffixes`: of adapter files, in lower case; `adapter`:
    what a pool loads unless it names something else; `has_bridge`: whether this version brings one."""

    name: str
    program: str
    suffixes: tuple[str, ...]
    adapter: str = "showcase"
    argv: Argv = script_argv
    has_bridge: bool = False


PYTHON = Language("python", "python3", (".py",), has_bridge=True)
TABLE = (
    PYTHON,
    Language("node", "node", (".js", ".mjs", ".cjs")),
    Language("ruby", "ruby", (".rb",)),
    # Without --vanilla a user's .Rprofile and saved workspace would be part of every interpreter.
    Language("r", "Rscript", (".r",), argv=flagged_argv("--vanilla")),
    Language("go", "go", ()),  # an adapter is a program of its own
)
WITH_BRIDGE = tuple(language.name for language in TABLE if language.has_bridge)
LATER = tuple(language.name for language in TABLE if not language.has_bridge)
SUFFIXES = tuple(suffix for language in TABLE for suffix in language.suffixes)
