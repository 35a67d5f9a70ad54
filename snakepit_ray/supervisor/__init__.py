"""One worker without Ray: an interpreter, its slots and its queue."""

from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.supervisor.accounts import Counters
from snakepit_ray.supervisor.dispatch import OnSlot
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.outcomes import Answer, Done, Relayed
from snakepit_ray.supervisor.policy import CarePolicy, WorkerPolicy
from snakepit_ray.supervisor.ports import OtherWorkers, PoolSide, Ports, Record
from snakepit_ray.supervisor.streams import Stream
from snakepit_ray.supervisor.supervisor import Load, Supervisor

__all__ = [
    "Answer",
    "CarePolicy",
    "Counters",
    "Done",
    "Interpreter",
    "InterpreterSpec",
    "Load",
    "OnSlot",
    "OtherWorkers",
    "PoolSide",
    "Ports",
    "Record",
    "Relayed",
    "Stream",
    "Supervisor",
    "WorkerPolicy",
    "WorkerState",
]
