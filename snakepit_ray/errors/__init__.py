"""Every error of snakepit_ray, by whose fault it is and what to do next.

All pickle, and all are caught by type through `ray.get`.

SnakepitError
|-- CallerFault            the call cannot be done as it was made: change it
|   |-- ConfigError          correct the key or value that it names
|   |-- PoolNotFound         start the pool, or correct the name
|   |-- PoolExists           snakepit.connect(name), or another name
|   |-- PoolClosed           start the pool again
|   |-- UnknownCommand       .nearest and .commands say what there is
|   |-- InvalidArguments     compare the command's signature; it was not called
|   |-- EncodingError        convert the value at .path
|   |-- PayloadTooLarge      pass bulk data as arrays, tables or bytes, or raise max_message_size
|   |-- ToolNotFound         register it; .available says what there is
|   |-- DuplicateTool        another name, or delete the old one
|   |-- SessionNotFound      pool.session(id) creates it
|   |-- SessionExpired       create it again, with a longer ttl
|   |-- VariableNotFound     register it, or give a default
|   |-- VariableTypeError    give a value of its type
|   `-- ConstraintViolation  give a value that obeys .rule
|-- NotNow                 nothing was executed or changed: the same call may succeed later
|   |-- PoolSaturated        raise max_queue_size or size, or use pool.map
|   |-- QueueTimeout         raise queue_timeout or size, or send fewer at once
|   |-- WorkerBusy           try again, or affinity="strict_queue"
|   |-- CircuitOpen          wait .retry_after_s; look at what fails
|   |-- SessionQuotaExceeded delete sessions, or raise the limit
|   `-- VersionConflict      read again, then write with that version
|-- Stopped                it ended without a result and may have had effects
|   |-- DeadlineExceeded     raise timeout=, or make it shorter
|   `-- RequestCancelled     send it again if its result is still wanted
|-- WorkerFault            a worker or its interpreter failed (itself: a fault of the bridge, report it)
|   |-- WorkerStartError     the interpreter, the adapter or startup_timeout
|   |-- WorkerCrashed        .exit_code or .signal, .stderr_tail; .may_have_started
|   |-- SessionWorkerLost    build the state again; rebind=True accepts the new worker
|   `-- ProtocolMismatch     install the bridge that belongs to this package
`-- CommandError           the command raised .remote_type; also the builtin of the same name
"""

from snakepit_ray.errors.base import (
    CallerFault,
    NotNow,
    SnakepitError,
    Stopped,
    WorkerFault,
    did_you_mean,
    first_line,
    listed,
    nearest,
)
from snakepit_ray.errors.caller import (
    ConfigError,
    DuplicateTool,
    EncodingError,
    InvalidArguments,
    PayloadTooLarge,
    PoolClosed,
    PoolExists,
    PoolNotFound,
    ToolNotFound,
    UnknownCommand,
)
from snakepit_ray.errors.command import CommandError, command_error, failure_to_error
from snakepit_ray.errors.load import (
    CircuitOpen,
    DeadlineExceeded,
    PoolSaturated,
    QueueTimeout,
    RequestCancelled,
    SessionQuotaExceeded,
    VersionConflict,
    WorkerBusy,
)
from snakepit_ray.errors.session import (
    ConstraintViolation,
    SessionExpired,
    SessionNotFound,
    VariableNotFound,
    VariableTypeError,
)
from snakepit_ray.errors.worker import (
    ProtocolMismatch,
    SessionWorkerLost,
    WorkerCrashed,
    WorkerStartError,
    exit_words,
    signal_name,
)

__all__ = [
    "CallerFault",
    "CircuitOpen",
    "CommandError",
    "ConfigError",
    "ConstraintViolation",
    "DeadlineExceeded",
    "DuplicateTool",
    "EncodingError",
    "InvalidArguments",
    "NotNow",
    "PayloadTooLarge",
    "PoolClosed",
    "PoolExists",
    "PoolNotFound",
    "PoolSaturated",
    "ProtocolMismatch",
    "QueueTimeout",
    "RequestCancelled",
    "SessionExpired",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "SessionWorkerLost",
    "SnakepitError",
    "Stopped",
    "ToolNotFound",
    "UnknownCommand",
    "VariableNotFound",
    "VariableTypeError",
    "VersionConflict",
    "WorkerBusy",
    "WorkerCrashed",
    "WorkerFault",
    "WorkerStartError",
    "command_error",
    "did_you_mean",
    "exit_words",
    "failure_to_error",
    "first_line",
    "listed",
    "nearest",
    "signal_name",
]
