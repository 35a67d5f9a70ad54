"""Where one incarnation is on this node: the directory of its socket, and its entry in the registry.

Rule: the entry is there before the directory and the process are, and goes after them: whoever is killed at
any moment leaves nothing that a sweep does not know. All of this blocks: it is done in a thread."""

from __future__ import annotations

import os
import shutil

from snakepit_ray.process import registry, sockets


class Place:
    """The directory and the entry of one incarnation. Make it with `Place.make`."""

    def __init__(self, directory: str, registration: registry.Registration) -> None:
        self.directory = directory
        self.socket = os.path.join(directory, "s")
        self.frames = os.path.join(directory, "f")  # as short: a socket's name has a limit (sockets.py)
        self.registration = registration

    @classmethod
    def make(cls, token: str, worker_id: str, pool: str) -> Place:
        """Raises ConfigError when the node directory is not ours alone, OSError with the path when nothing
        can be made there."""
        while True:
            directory = sockets.new_path()
            registration = registry.register(token, worker_id, pool, directory)
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:  # somebody else's, or one that a crash has left: another name
                registration.remove()
            except BaseException:
                registration.remove()
                raise
            else:
                return cls(directory, registration)

    def leave(self, *, stays: bool = False) -> None:
        """Removes the directory and, unless some process of the incarnation `stays`, the entry. Safe to
        repeat."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if not stays:
            self.registration.remove()
