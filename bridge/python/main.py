"""Starts the Python bridge: `EXECUTABLE main.py --ready-fd N`, as bridge/README.md says."""

from snakepit_bridge.deferred import uncollected

with uncollected():
    from snakepit_bridge.main import main

if __name__ == "__main__":
    main()
