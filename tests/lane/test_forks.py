"""What a fork does to the connections of a process, those that have ended among them."""

from __future__ import annotations

import os
import socket
import threading

from snakepit_ray.client.links import ThreadLink
from snakepit_ray.wire import lane


def test_a_link_that_has_ended_closes_nothing_of_anybody_else_in_a_child() -> None:
    """The numbers of its descriptors belong to other files by then."""
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    link = ThreadLink(mine, bytes(lane.SECRET_BYTES), "test")
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "snakepit-lane-test"]
    theirs.close()
    reader.join(10)
    assert link.closed and not reader.is_alive()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(16)]  # the lowest numbers that are free
    try:
        link.abandon()  # what the hook of a fork does in the child
        assert [os.fstat(descriptor).st_mode for descriptor in others]
    finally:
        for descriptor in others:
            os.close(descriptor)
