"""One operating-system process that is somebody else's program: how it starts, what it says, how it ends."""

from snakepit_ray.process.child import Child, Exit
from snakepit_ray.process.launch import Launch, build_launch

__all__ = ["Child", "Exit", "Launch", "build_launch"]
