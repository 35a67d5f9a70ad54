"""How the wait of a request ends: it starts, it moves, its time is up, or the worker stops."""

from __future__ import annotations

from typing import NamedTuple


class Start(NamedTuple):
    """The slot is held: run."""


class Move(NamedTuple):
    """Take the request to `target` (a worker id); if it is refused there, `come_back` puts it in its old
    place."""

    target: str
    chained: bool = False


class Expired(NamedTuple):
    """It waited as long as it may."""

    waited: float


class Hopeless(NamedTuple):
    """Its chain of calls may not wait here: all slots are held by older chains that wait themselves."""


class Closed(NamedTuple):
    """The worker has stopped."""


Verdict = Start | Move | Expired | Hopeless | Closed
START = Start()
HOPELESS = Hopeless()
CLOSED = Closed()
