"""One worker without Ray: an interpreter, its slots and its queue."""

from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.outcomes import Counters, Done, Relayed, WorkerState
from snakepit_ray.supervisor.supervisor import Supervisor

__all__ = ["Counters", "Done", "Interpreter", "InterpreterSpec", "Relayed", "Supervisor", "WorkerState"]
