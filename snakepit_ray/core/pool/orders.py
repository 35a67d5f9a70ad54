"""What a pool's roster orders, and the limits that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Do(str, Enum):
    """What the router is to do."""

    SURVEY = "survey"  # look at the cluster, and answer with `surveyed`
    ENTER = "enter"  # this worker is on the roster now
    SPAWN = "spawn"  # create its actor: `created`, `refused`
    WATCH = "watch"  # until its actor dies: `died`, `gone`
    START = "start"  # its interpreter: `started`, `interrupted`, `could_not_start`
    SERVE = "serve"  # requests may be routed to it
    UNSERVE = "unserve"  # they may not any more
    LOST = "lost"  # say that its actor died
    SHARE = "share"  # tell it its share of the queue limit
    GIVE_UP = "give_up"  # nobody waits for it any more: its row says why
    LEAVE = "leave"  # let it finish what it has, and end it: `left`
    END = "end"  # end its actor
    FORGET = "forget"  # this worker is on the roster no more
    REMEMBER = "remember"  # the size or the next number changed: what a restart would forget
    PUBLISH = "publish"  # handles, and whoever waits for the start, have something to learn


class Order(NamedTuple):
    """One thing to do, about one worker or ("") the pool."""

    do: Do
    worker_id: str = ""


@dataclass(frozen=True)
class RosterLimits:
    """Of one pool. `asked`: what a worker asks Ray for, in words. `batch`, `delay`: of starts. `arrival`:
    seconds for Ray to place and start an actor; `startup`: for an interpreter to start."""

    pool: str
    asked: str
    batch: int
    delay: float
    arrival: float
    startup: float
