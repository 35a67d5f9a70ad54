"""Names by a pattern, in which `*` stands for any text, also none, and everything else for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def matching(pattern: str) -> Callable[[str], bool]:
    """Whether a name is meant by the pattern. The cost is bounded by the length of the name times that of the
    pattern."""
    if "*" not in pattern:
        return pattern.__eq__
    first, *middle, last = pattern.split("*")

    def matches(name: str) -> bool:
        at, end = len(first), len(name) - len(last)
        if end < at or not name.startswith(first) or not name.endswith(last):
            return False
        for part in middle:
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches


def matching_any(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of the patterns means a name."""
    tests = [matching(pattern) for pattern in patterns]
    return lambda name: any(test(name) for test in tests)
