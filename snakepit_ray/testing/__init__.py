"""What tests start with: a fake pool for unit tests, a bridge that misbehaves on command, adapters that write
down what they ran.

- `FakePool` is loaded when it is first asked for. The rest here is only paths.
- Storms are in `snakepit_ray.testing.storm`. The two files run in the interpreter's Python (3.9 or later),
  not in this one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_ray.testing.fake import FakeChunkRefs, FakePool, FakeRef, RecordedCall

_HERE = os.path.dirname(os.path.abspath(__file__))
_FAKES = ("FakeChunkRefs", "FakePool", "FakeRef", "RecordedCall")

MISBEHAVING_BRIDGE = os.path.join(_HERE, "misbehave.py")
ADAPTERS = os.path.join(_HERE, "adapters.py")
WITNESS = f"{ADAPTERS}:Witness"
MISBEHAVING = f"{ADAPTERS}:Misbehaving"

__all__ = [
    "ADAPTERS",
    "MISBEHAVING",
    "MISBEHAVING_BRIDGE",
    "WITNESS",
    "FakeChunkRefs",
    "FakePool",
    "FakeRef",
    "RecordedCall",
]


def _load(name: str) -> Any:
    if name not in _FAKES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from snakepit_ray.testing import fake

    return getattr(fake, name)


if not TYPE_CHECKING:  # a checker that saw it would take every name for one that is there
    __getattr__ = _load
