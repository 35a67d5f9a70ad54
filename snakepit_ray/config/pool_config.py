"""Every setting of a pool: its name, its default, what it may be.

Rules:
- Frozen, picklable, validated when built.
- One ConfigError says all that is wrong.
- Nothing here reads a file, the environment or the cluster (`with_size` is told the number of CPUs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from snakepit_ray.config import checks
from snakepit_ray.config.checks import FrozenMap, byte_size, flag, number, one_of, optional, seconds, whole
from snakepit_ray.config.languages import PYTHON
from snakepit_ray.config.options import Affinity, check_affinity
from snakepit_ray.errors import ConfigError

MIB = 1024 * 1024
STREAM_TIMEOUT = 300.0
RESERVED = (
    "environment",
    "free_threaded",
    "thread_safety_checks",
    "min_size",
    "max_size",
    "lease",
)


def _key(default: Any, check: checks.Check) -> Any:
    return field(default=default, metadata={"check": check})


def _map_key(check: checks.Check) -> Any:
    return field(default_factory=FrozenMap, metadata={"check": check})


def _build(cls: Any, what: str, settings: Mapping[str, Any]) -> Any:
    """`cls` from settings, with unknown names refused before the values are looked at."""
    known = [f.name for f in fields(cls)]
    reserved = [key for key in settings if key in RESERVED]
    if reserved:
        raise ConfigError(
            f"{what} {', '.join(map(repr, reserved))}: this version does not have it yet; leave it out",
            key=reserved[0],
        )
    unknown = [str(key) for key in settings if key not in known]
    if unknown:
        raise ConfigError.unknown(what, unknown, known)
    return cls(**settings)


def _keep_checked(self: Any, what: str) -> None:
    table = {f.name: f.metadata["check"] for f in fields(self)}
    kept = checks.checked(what, {key: getattr(self, key) for key in table}, table)
    for key, value in kept.items():
        object.__setattr__(self, key, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    """After `failures` failed requests within `window` seconds the pool refuses requests for `reset`
    seconds."""

    failures: int = _key(5, whole(1))
    window: float = _key(60.0, seconds(zero=False))
    reset: float = _key(30.0, seconds(zero=False))

    def __post_init__(self) -> None:
        _keep_checked(self, "circuit_breaker")


def _circuit_breaker(value: Any) -> CircuitBreakerConfig:
    if isinstance(value, CircuitBreakerConfig):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("a mapping with failures, window, reset")
    try:
        built: CircuitBreakerConfig = _build(CircuitBreakerConfig, "circuit_breaker key", value)
    except ConfigError as error:
        raise ValueError(f"failures, window, reset ({error})") from error
    return built


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """The settings of one pool. Built with keywords (`PoolConfig.build(size=4)`) or from TOML (`load_toml`).

    Times are seconds, or text such as "500ms", "10s", "1h". Sizes are bytes, or text such as "2GiB". None
    means what its line says.

    What is run:
        name: one pool's in the whole cluster: 1 to 64 letters, digits, `_`, `-` or `.`
        runtime: the language, "module:Runtime", or a `Runtime` of your own
        interpreter: path of the executable; None: SNAKEPIT_PYTHON, else `.venv` of the directory, else the
            Python that starts the pool
        adapter: your commands: `file.py:Class` or `module:Class`
        adapter_args: keywords for the adapter, as JSON
        env: variables for the interpreter, over an allow-list of the worker's own
        cwd: the interpreter's working directory; None: that of the process that starts the pool
        unserializable: a result that cannot be carried is an error; "marker": a marker in its place

    How many:
        size: workers; None: twice the cluster's CPUs, at least 1, at most `max_workers`
        max_workers: a larger size is refused, because it is most likely a slip
        profile: "process": an interpreter runs one command at a time; "thread": several, in threads
        threads_per_worker: commands at a time with "thread"
        thread_limits: `OMP_NUM_THREADS` and its like; None: the commands at a time
        startup_timeout: for one interpreter, from its turn
        startup_batch_size: workers of a node that start at once
        startup_batch_delay: between two turns of starts

    Waiting, deadlines, retries:
        max_queue_size: requests that may wait in the pool; None: as many as come
        queue_timeout: longest wait for a slot
        request_timeout: waiting and running together, where neither call nor command says otherwise
        cancel_grace: for a command that was told to stop, before its interpreter is replaced
        retries: of idempotent calls after a crash
        retry_backoff: longest pause before the first retry; it doubles with each
        circuit_breaker: refuse calls while the pool fails: `{"failures": 5, "window": 60, "reset": 30}`;
            None: never

    Health and recycling:
        worker_ttl: age at which an interpreter is replaced; None: at no age
        worker_max_requests: requests, items of batches included, after which it is replaced; None: after none
        worker_max_memory: memory, with its children, at which it is replaced, from 1 MiB; None: at no size
        ttl_jitter: share of `worker_ttl` by which ages are spread, up and down
        recycle_overlap: the next interpreter is ready before the old one stops
        fork_starts: how an interpreter that replaces another starts: "auto": by a fork of a process that has
            imported your adapter, where that is safe; "off": it is executed
        health_check_interval: between two health checks
        heartbeat_timeout: silence after which an interpreter is replaced
        shutdown_grace: between SIGTERM and SIGKILL

    Sessions:
        affinity: when a session's worker is busy: "hint" runs elsewhere, "strict_queue" waits for it
        session_ttl: a session that is not used for so long has no worker any more; so long the store keeps
            one whose maker says no ttl
        max_sessions: sessions with a worker, and sessions in the store that this pool has made
        session_store: where the store of sessions, one for the whole cluster, keeps them: "sqlite": on the
            head's disk; "sqlite:/path/of/a/file": there; "memory": nowhere else
        session_sweep_interval: between two searches for sessions that have expired

    Ray's scheduling of each worker:
        num_cpus: CPUs that a worker asks for
        num_gpus: GPUs: a share of one (0 to 1), or a whole number
        resources: other resources
        placement: "spread": over the nodes; "pack": onto few
        labels: labels that the node must have

    The wire:
        lane: "auto": calls that wait for their value, and streams, go to workers of the caller's node over a
            private unix socket, in place of Ray; "off": all calls go by Ray
        wire: how requests reach the interpreter: "auto": as frames over a socket of their own, beside gRPC,
            where its bridge can; "grpc": over gRPC; "frames": without any gRPC in it
        binary_threshold: bytes of data above which it travels out of band
        max_message_size: bytes of a message in band
        shared_memory: bytes for large data, each way and interpreter; None: half of the machine's memory

    Raises: ConfigError that names every key that is wrong, what was got and what was expected.
    """

    # what is run
    name: str = _key("default", checks.name)
    runtime: Any = _key(PYTHON.name, checks.runtime)  # noqa: RUF009 - it is field()
    interpreter: str | None = _key(None, optional(checks.path))
    adapter: str = _key(PYTHON.adapter, checks.path)
    adapter_args: Mapping[str, Any] = _map_key(checks.json_map)
    env: Mapping[str, str] = _map_key(checks.map_of(checks.environment_value, "strings"))
    cwd: str | None = _key(None, optional(checks.path))
    unserializable: str = _key("error", one_of("error", "marker"))

    # how many
    size: int | None = _key(None, optional(whole(1)))
    max_workers: int = _key(1000, whole(1))
    profile: str = _key("process", one_of("process", "thread"))
    threads_per_worker: int = _key(10, whole(1, 1000))
    thread_limits: int | None = _key(None, optional(whole(1)))
    startup_timeout: float = _key(30.0, seconds(zero=False))
    startup_batch_size: int = _key(8, whole(1))
    startup_batch_delay: float = _key(0.0, seconds(zero=True))

    # waiting, deadlines, retries
    max_queue_size: int | None = _key(1000, optional(whole(0)))
    queue_timeout: float = _key(5.0, seconds(zero=True, most=checks.MAX_BUDGET))
    request_timeout: float = _key(60.0, seconds(zero=False, most=checks.MAX_BUDGET))
    cancel_grace: float = _key(2.0, seconds(zero=True))
    retries: int = _key(3, whole(0, 1000))
    retry_backoff: float = _key(0.1, seconds(zero=True))
    circuit_breaker: CircuitBreakerConfig | None = _key(None, optional(_circuit_breaker))  # noqa: RUF009 - it is field()

    # health and recycling
    worker_ttl: float | None = _key(None, optional(seconds(zero=False)))
    worker_max_requests: int | None = _key(None, optional(whole(1)))
    worker_max_memory: int | None = _key(None, optional(byte_size(MIB)))
    ttl_jitter: float = _key(0.1, number(0, 1))
    recycle_overlap: bool = _key(True, flag)
    fork_starts: str = _key("auto", one_of("auto", "off"))
    health_check_interval: float = _key(5.0, seconds(zero=False))
    heartbeat_timeout: float = _key(10.0, seconds(zero=False))
    shutdown_grace: float = _key(2.0, seconds(zero=True))

    # sessions
    affinity: Affinity = _key(Affinity.HINT, check_affinity)  # noqa: RUF009 - it is field()
    session_ttl: float = _key(3600.0, seconds(zero=False))
    max_sessions: int = _key(10_000, whole(1))
    session_store: str = _key("sqlite", checks.session_store)
    session_sweep_interval: float = _key(60.0, seconds(zero=False))

    # Ray's scheduling of each worker
    num_cpus: float = _key(0, number(0))
    num_gpus: float = _key(0, checks.gpus)
    resources: Mapping[str, float] = _map_key(checks.map_of(number(0), "numbers"))
    placement: str = _key("spread", one_of("spread", "pack"))
    labels: Mapping[str, str] = _map_key(checks.map_of(checks.environment_value, "strings"))

    # the wire
    lane: str = _key("auto", one_of("auto", "off"))
    wire: str = _key("auto", one_of("auto", "grpc", "frames"))
    binary_threshold: int = _key(10_240, byte_size())
    max_message_size: int = _key(100 * MIB, byte_size(1024))
    shared_memory: int | None = _key(None, optional(byte_size()))

    def __post_init__(self) -> None:
        _keep_checked(self, f"pool {self.name!r}")
        if self.size is not None and self.size > self.max_workers:
            raise ConfigError(
                f"pool {self.name!r}: size: got {self.size}, expected at most "
                f"max_workers={self.max_workers}; "
                "raise max_workers if you mean it",
                key="size",
            )

    @classmethod
    def build(cls, settings: Mapping[str, Any] | None = None, /, **more: Any) -> PoolConfig:
        """A configuration from a mapping of `settings`, from keywords (`more`), or from both: keywords win.

        Raises: ConfigError that names every wrong value, or every unknown or reserved key.
        """
        config: PoolConfig = _build(cls, "pool setting", {**(settings or {}), **more})
        return config

    def merge(self, **settings: Any) -> PoolConfig:
        """A copy with other `settings` over these. Raises: ConfigError."""
        return PoolConfig.build({f.name: getattr(self, f.name) for f in fields(self)}, **settings)

    def with_size(self, cpus: float) -> PoolConfig:
        """A copy with a size. Where none was given: 2 x `cpus` (the cluster's), from 1 to max_workers."""
        if self.size is not None:
            return self
        return replace(self, size=min(max(1, int(2 * cpus)), self.max_workers))

    @property
    def capacity(self) -> int:
        """Commands that one worker runs at once."""
        return self.threads_per_worker if self.profile == "thread" else 1

    @property
    def effective_thread_limits(self) -> int:
        """What OMP_NUM_THREADS and its like are set to."""
        return self.thread_limits or self.capacity

    @property
    def stream_timeout(self) -> float:
        """The default whole budget of a stream: 300 s, or request_timeout where that is longer."""
        return max(STREAM_TIMEOUT, self.request_timeout)

    def queue_share(self, size: int) -> int | None:
        """How many requests may wait at each of `size` workers; None: as many as come."""
        return None if self.max_queue_size is None else math.ceil(self.max_queue_size / size)

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON values; a Runtime object becomes "module:Class". `build` takes it back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {key: dict(value) if isinstance(value, FrozenMap) else value for key, value in values.items()}
        plain["affinity"] = self.affinity.value
        breaker = self.circuit_breaker
        plain["circuit_breaker"] = breaker and {f.name: getattr(breaker, f.name) for f in fields(breaker)}
        if not isinstance(self.runtime, str):
            kind = self.runtime if isinstance(self.runtime, type) else type(self.runtime)
            plain["runtime"] = f"{kind.__module__}:{kind.__qualname__}"
        return plain


POOL_KEYS = tuple(f.name for f in fields(PoolConfig))
