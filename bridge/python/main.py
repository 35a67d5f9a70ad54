"""Starts the Python bridge: `EXECUTABLE main.py --ready-fd N`, as bridge/README.md says."""

import gc

gc.disable()  # imports leave it nothing to collect: looking takes 7 % of a start
try:
    from snakepit_bridge.main import main
finally:
    gc.enable()

if __name__ == "__main__":
    main()
