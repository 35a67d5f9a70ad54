"""Starts the Python bridge: `EXECUTABLE main.py --ready-fd N`, as bridge/README.md says.

Rule: every Python from 2.7 on can read this file, because one that is too old is to say so on the ready line
and not by a SyntaxError.
"""

import os
import sys

OLDEST = (3, 9)


def refuse(argv):
    """Says on the ready descriptor that this Python is too old, and ends it with status 3."""
    import json

    version = ".".join(map(str, sys.version_info[:3]))
    error = {
        "stage": "interpreter",
        "type": "PythonTooOld",
        "message": "Python %s at %s: the bridge needs %s or later; name another interpreter="
        % (version, sys.executable, ".".join(map(str, OLDEST))),
        "traceback": "",
    }
    line = json.dumps({"snakepit": 2, "error": error}) + "\n"
    if "--ready-fd" not in argv[:-1]:
        sys.exit(error["message"])
    sys.stdin.readline()  # the configuration: a host must not meet a closed pipe while it writes
    os.write(int(argv[argv.index("--ready-fd") + 1]), line.encode("utf-8"))
    sys.exit(3)


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        refuse(sys.argv)
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:  # PYTHONSAFEPATH or -I: Python has not put it there
        sys.path.insert(0, here)

    from snakepit_bridge.server.deferred import uncollected

    with uncollected():
        from snakepit_bridge.main.bridge import main

    main()
