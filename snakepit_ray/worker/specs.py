"""What a pool's configuration means for one worker and for one interpreter. Pure."""

from __future__ import annotations

import os

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.worker.recycling import Limits
from snakepit_ray.process.usage import machine_memory
from snakepit_ray.runtimes import argv_of, resolve_runtime
from snakepit_ray.supervisor import CarePolicy, InterpreterSpec, WorkerPolicy


def worker_policy(config: PoolConfig) -> WorkerPolicy:
    """How the pool's workers behave. The queue's limit comes later: the router knows how many share the
    pool's."""
    limits = Limits(
        ttl=config.worker_ttl,
        max_requests=config.worker_max_requests,
        max_memory=config.worker_max_memory,
        jitter=config.ttl_jitter,
    )
    return WorkerPolicy(
        capacity=config.capacity,
        retry_backoff=config.retry_backoff,
        cancel_grace=config.cancel_grace,
        overlap=config.recycle_overlap,
        care=CarePolicy(config.health_check_interval, config.heartbeat_timeout, limits),
    )


def interpreter_spec(config: PoolConfig, worker_id: str, marks: int | None = None) -> InterpreterSpec:
    """What the pool's configuration means for one interpreter; `marks`: the descriptor of its worker's."""
    runtime = resolve_runtime(config.runtime)
    cwd = config.cwd or os.getcwd()
    return InterpreterSpec(
        worker_id=worker_id,
        argv=argv_of(runtime, config),
        user_env={**dict(runtime.env(config)), **dict(config.env)},
        cwd=cwd,
        thread_limits=config.effective_thread_limits,
        startup_timeout=config.startup_timeout,
        shutdown_grace=config.shutdown_grace,
        shared_memory=config.shared_memory if config.shared_memory is not None else machine_memory() // 2,
        binary_threshold=config.binary_threshold,
        marks=marks,
        wire=config.wire,
        forks=config.fork_starts == "auto",
        config={
            "adapter": config.adapter,
            "adapter_args": dict(config.adapter_args),
            "capacity": config.capacity,
            "thread_profile": config.profile == "thread",
            "unserializable": config.unserializable,
            "binary_threshold": config.binary_threshold,
            "max_message_size": config.max_message_size,
            "worker_id": worker_id,
            "pool": config.name,
            "cwd": cwd,
            "code_paths": [cwd],
        },
    )
