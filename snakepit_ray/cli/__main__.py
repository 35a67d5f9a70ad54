"""`python -m snakepit_ray.cli`: the command line where its script is not on PATH."""

from __future__ import annotations

import sys

from snakepit_ray.cli import main

sys.exit(main())
