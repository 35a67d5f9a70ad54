"""The files that the modules of this process came from, and whether they are others now."""

from __future__ import annotations

import os
import sys


class Sources:
    """The files of the modules that are loaded, as they are now. `began`: when the first of those that matter
    was imported (time.time_ns): a file that was written since may be another than the one that was read.
    """

    def __init__(self, began: int) -> None:
        paths = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        self._seen = {path: _stamp(path) for path in paths if isinstance(path, str)}
        self._late = next((path for path, (written, *_) in self._seen.items() if written >= began), "")

    def changed(self) -> str:
        """The path of a file that is another one now, "" where there is none."""
        return self._late or next(
            (path for path, stamp in self._seen.items() if _stamp(path) != stamp),
            "",
        )


def _stamp(path: str) -> tuple:
    try:
        facts = os.stat(path)
    except OSError:  # gone, or in an archive
        return (0, 0, 0)
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
