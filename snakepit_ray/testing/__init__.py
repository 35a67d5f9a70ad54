"""What tests and storms start pools with: a bridge that misbehaves on command, adapters that write down
what they ran.

- Only paths here, so that it loads at once.
- Storms are in `snakepit_ray.testing.storm`. The two files run in the interpreter's Python (3.9 or later),
  not in this one.
"""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))

MISBEHAVING_BRIDGE = os.path.join(_HERE, "misbehave.py")
ADAPTERS = os.path.join(_HERE, "adapters.py")
WITNESS = f"{ADAPTERS}:Witness"
MISBEHAVING = f"{ADAPTERS}:Misbehaving"

__all__ = ["ADAPTERS", "MISBEHAVING", "MISBEHAVING_BRIDGE", "WITNESS"]
