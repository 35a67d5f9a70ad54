"""The keywords of calls and of `start` as types, for editors and type checkers.

Rules: nothing reads them at run time, and their names are those of CallOptions and PoolConfig (a test
compares them). The values are what may be given, which is more than what is kept: "10s" becomes 10.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict

from snakepit_ray.config.options import Affinity
from snakepit_ray.config.pool_config import CircuitBreakerConfig

Seconds: TypeAlias = float | str  # 1.5, "500ms", "10s", "1h"
Bytes: TypeAlias = int | str  # 1024, "2GiB"
Path: TypeAlias = str | PathLike[str]
AffinityName: TypeAlias = Affinity | Literal["hint", "strict_queue", "strict_fail_fast"]
ToolPlace: TypeAlias = Literal["here", "worker", "task"]


class SessionCallSettings(TypedDict, total=False):
    """Options of a call whose session is named already; see CallOptions."""

    timeout: Seconds | None
    affinity: AffinityName | None
    rebind: bool
    idempotent: bool | None
    retries: int | None
    info: bool


class CallSettings(SessionCallSettings, total=False):
    """Options of a call; see CallOptions."""

    session: str | None


class PoolSettings(TypedDict, total=False):
    """Settings of a pool; see PoolConfig."""

    name: str
    runtime: Any
    interpreter: Path | None
    adapter: Path
    adapter_args: Mapping[str, Any]
    env: Mapping[str, str]
    cwd: Path | None
    unserializable: Literal["error", "marker"]

    size: int | None
    max_workers: int
    profile: Literal["process", "thread"]
    threads_per_worker: int
    thread_limits: int | None
    startup_timeout: Seconds
    startup_batch_size: int
    startup_batch_delay: Seconds

    max_queue_size: int | None
    queue_timeout: Seconds
    request_timeout: Seconds
    cancel_grace: Seconds
    retries: int
    retry_backoff: Seconds
    circuit_breaker: CircuitBreakerConfig | Mapping[str, Any] | None

    worker_ttl: Seconds | None
    worker_max_requests: int | None
    worker_max_memory: Bytes | None
    ttl_jitter: float
    recycle_overlap: bool
    fork_starts: Literal["auto", "off"]
    health_check_interval: Seconds
    heartbeat_timeout: Seconds
    shutdown_grace: Seconds

    affinity: AffinityName
    session_ttl: Seconds
    max_sessions: int
    session_store: str
    session_sweep_interval: Seconds

    num_cpus: float
    num_gpus: float
    resources: Mapping[str, float]
    placement: Literal["spread", "pack"]
    labels: Mapping[str, str]

    lane: Literal["auto", "off"]
    wire: Literal["auto", "grpc", "frames"]
    binary_threshold: Bytes
    max_message_size: Bytes
    shared_memory: Bytes | None
