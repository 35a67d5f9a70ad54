"""The messages of the wire, and what every server needs, imported cheaply (deferred.py).

- Imported before any user's code, by each server.
"""

from __future__ import annotations

from snakepit_bridge.server.deferred import putting_off

PUT_OFF = ("asyncio", "grpc.aio", "google.protobuf.internal.python_message", "calendar", "pkgutil", "socket")

with putting_off(*PUT_OFF):
    import google.protobuf  # noqa: F401 - the messages need it: here, where it gets its stand-ins

    from snakepit_bridge._pb import interpreter_pb2 as pb
    from snakepit_bridge.server import dispatcher as _  # noqa: F401 - the same of all that commands need

__all__ = ["PUT_OFF", "pb"]
