"""Which interpreter of a worker takes requests now. The keeper says so; everybody else reads."""

from __future__ import annotations

from snakepit_ray.core.worker.handshake import Command
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class Serving:
    """The present interpreter. While the next one is starting, `interpreter` is the last one. `epoch` is then
    that of the next."""

    def __init__(self, incarnation: int) -> None:
        self.epoch = pb.Epoch(incarnation=incarnation, number=1)
        self.interpreter: Interpreter | None = None

    def next_epoch(self) -> pb.Epoch:
        """Of the interpreter after this one."""
        return pb.Epoch(incarnation=self.epoch.incarnation, number=self.epoch.number + 1)

    def command(self, name: str) -> Command | None:
        """What the interpreter said of a command; None when it has none of that name or there is no
        interpreter."""
        return self.interpreter.ready.commands.get(name) if self.interpreter is not None else None

    @property
    def commands(self) -> tuple[Command, ...]:
        """All of them, in the interpreter's order."""
        return tuple(self.interpreter.ready.commands.values()) if self.interpreter is not None else ()

    @property
    def timeouts(self) -> tuple[tuple[str, float], ...]:
        """The timeouts that commands declare, in seconds."""
        commands = self.interpreter.ready.commands if self.interpreter is not None else {}
        return tuple((name, one.timeout) for name, one in commands.items() if one.timeout is not None)
