r"""The regular expressions of constraints: those of RE2, whose time is bounded whatever the pattern is.

Python's own engine tries one way after another: `(a+)+$` takes years for forty letters, and the process that
looks is the store of everybody. RE2 looks at each character once, at most in so many steps as its program
has. So a value may have STEPS divided by the program's size characters: about 30 ms, at the 8 ns that were
measured for a step.

What RE2 has not: references back (`\1`), looking ahead and behind, and repetitions above 1,000 of more than
one character. `\d`, `\w` and `\s` mean ASCII, `$` the very end. Source:
https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

LONGEST_PATTERN = 1_000  # characters
LARGEST_PROGRAM = 2_000  # of RE2's instructions
STEPS = 4_000_000
HINT = "the syntax is RE2's: no references back, no looking ahead or behind"


@lru_cache(256)
def compiled(pattern: str) -> Any:
    """The expression. Raises ValueError that says why it is none, or is too large."""
    import re2

    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"it has {len(pattern):,} characters, at most {LONGEST_PATTERN} are allowed")
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options=options)
    except (re2.error, UnicodeError) as error:
        what = error.args[0]
        said = what.decode(errors="replace") if isinstance(what, bytes) else str(error)
        raise ValueError(f"{said}; {HINT}") from None
    if found.programsize > LARGEST_PROGRAM:
        raise ValueError("it is too large: repeat less, or name fewer classes of Unicode")
    return found


def longest(pattern: str) -> int:
    """How many characters a value may have that the pattern is searched for in."""
    return int(STEPS / compiled(pattern).programsize)


def is_in(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text."""
    try:
        return compiled(pattern).search(text) is not None
    except UnicodeError:  # half a character: no text that a pattern can mean
        return False
