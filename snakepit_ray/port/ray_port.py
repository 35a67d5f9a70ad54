"""How we use Ray to make, find and end actors, and what its exceptions mean to a request.

Rules:
- Actors bound their own concurrency: max_concurrency is out of the way.
- An exception of Ray becomes one of ours here and in `control`, nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import ray
from ray import exceptions as ray_errors
from ray._private import state as ray_state

from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.errors import (
    ConfigError,
    DeadlineExceeded,
    PoolClosed,
    PoolNotFound,
    RequestCancelled,
    SnakepitError,
    WorkerCrashed,
)
from snakepit_ray.port.naming import (
    NAMESPACE,
    ROUTER_PREFIX,
    WorkerName,
    router_name,
    worker_name,
)

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])
RAY_MINIMUM = (2, 60)
UNBOUNDED = 1_000_000
# With tracing on (`ray.init(_tracing_startup_hook=...)`) Ray passes this keyword to every method of an actor
# and takes it away again in front of plain methods only (ray-project/ray#63267): our generators accept it.
TRACE_KEYWORD = "_ray_trace_ctx"

ActorDied = ray_errors.ActorDiedError
ActorUnavailable = ray_errors.ActorUnavailableError
GetTimeout = ray_errors.GetTimeoutError
RayError = ray_errors.RayError


def check_ray_version() -> None:
    """Raises ConfigError when Ray is older than we know how to work with."""
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < RAY_MINIMUM:
        raise ConfigError(
            f"snakepit_ray needs ray >= {RAY_MINIMUM[0]}.{RAY_MINIMUM[1]}, got {ray.__version__}"
        )


def ensure_ray(**init_args: Any) -> bool:
    """Connects to Ray if nobody has; whether it was us."""
    if ray.is_initialized():
        return False
    ray.init(**init_args)
    return True


def unowned(method: Any, *args: Any) -> Any:
    """Calls an actor's method on nobody's behalf. What the coroutine of a request calls is that request's
    child: Ray cancels it with the request, also where it has nothing to do with it."""
    return contextvars.Context().run(method.remote, *args)


def unowned_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of the actor's own: what it calls is no child of the request in whose turn it was begun."""
    return contextvars.Context().run(asyncio.ensure_future, coroutine)


async def owned(ref: Any) -> Any:
    """What a request's child comes to. Ray cancels the children first: a child's cancellation is the
    request's own, which is about to arrive, and no error of the child's."""
    try:
        return await ref
    except ray_errors.TaskCancelledError:
        raise asyncio.CancelledError from None


def survives_restarts(method: Method) -> Method:
    """For a method whose calls Ray is to send again to the actor when that was restarted."""
    return cast(Method, ray.method(max_task_retries=-1)(method))


def stream(actor: Any, ahead: int, blob: bytes, *refs: Any) -> Any:
    """The generator of a worker's `execute_stream`, which is suspended while `ahead` objects are not taken. A
    resubmitted generator would replay its stream from the start: no retries."""
    options = {"num_returns": "streaming", "_generator_backpressure_num_objects": ahead}
    return actor.execute_stream.options(max_task_retries=0, **options).remote(blob, *refs)


def end_stream(generator: Any, actor: Any, request_id: str) -> None:
    """Stops a stream's producer. A dropped generator would go on without bound, and a cancel that arrives
    before the task begins is lost: so the worker is told, too."""
    if ray.is_initialized():
        with contextlib.suppress(Exception):  # an actor or a cluster that is gone produces nothing
            unowned(actor.close_stream, request_id)
            ray.cancel(generator)


def hold_lease(router: Any, caller_id: str) -> Any:
    """What this process holds as long as it lives; the router sees its end (0.02 s after a SIGKILL)."""
    options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 1}
    return router.caller.options(**options).remote(caller_id)


def find_router(pool: str) -> Any:
    """The router of a running pool. Raises PoolNotFound naming the pools that run."""
    try:
        return ray.get_actor(router_name(pool), NAMESPACE)
    except ValueError as error:
        names = pool_names()
        there_are = f"running: {', '.join(names)}" if names else "no pool is running"
        raise PoolNotFound(f"there is no pool named {pool!r} in this cluster; {there_are}") from error


def find_own_router(pool: str, router_id: str) -> Any:
    """The router of that pool if it is the one of that id. Raises PoolNotFound when another one has the name
    now, or none."""
    router = find_router(pool)
    if id_of(router) != router_id:
        raise PoolNotFound(f"the router {router_id} of pool {pool!r} is gone; another pool has its name now")
    return router


def pool_names() -> list[str]:
    """Names of the pools that run in this cluster."""
    return sorted(
        name.removeprefix(ROUTER_PREFIX) for name in _actor_names() if name.startswith(ROUTER_PREFIX)
    )


def workers_named() -> list[WorkerName]:
    """Every worker actor that there is, of whichever pool and router, those that wait for room included."""
    return [worker for worker in map(worker_name, _actor_names()) if worker is not None]


def running_actors() -> set[str]:
    """Names of the actors that have a process now: they do not wait for room."""
    return {actor["Name"] for actor in ray_state.actors(actor_state_name="ALIVE").values() if actor["Name"]}


def _actor_names() -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]


def find_worker(worker_id: str, router_id: str | None = None) -> Any:
    """The worker actor of that id, by a handle that Ray does not count: the actor is detached. `router_id`:
    of the router that it belongs to, by default the one that its pool has now. Raises ValueError when there
    is none."""
    if router_id is None:
        router_id = id_of(ray.get_actor(router_name(WorkerId.parse(worker_id).pool), NAMESPACE))
    return ray.get_actor(str(WorkerName(router_id, worker_id)), NAMESPACE)


def id_of(actor: Any) -> str:
    """Ray's id of an actor: the same after a restart, and no other actor's."""
    return str(actor._actor_id.hex())


def end(actor: Any) -> None:
    """Ends an actor for good. Safe to repeat."""
    with contextlib.suppress(ValueError, RayError):
        ray.kill(actor, no_restart=True)


def node_id() -> str:
    """The Ray node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def actor_id() -> str:
    """This actor's id: the same after a restart, and no other actor's."""
    return str(ray.get_runtime_context().get_actor_id())


def was_restarted() -> bool:
    """Whether this actor lived before in another process."""
    with warnings.catch_warnings():  # Ray's own code asks for what Ray has deprecated, on the user's console
        warnings.simplefilter("ignore", DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def when_raylet_dies(act: Callable[[], None]) -> None:
    """Calls `act` in the running loop when this node's raylet, the parent of this process, has died. Ray's
    workers look whether process 1 is their parent now, which it never is under another subreaper."""
    try:
        descriptor = os.pidfd_open(os.getppid())
    except (AttributeError, OSError):  # no pidfd on this system: Ray's own look has to do
        return
    loop = asyncio.get_running_loop()

    def died() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        act()

    loop.add_reader(descriptor, died)


def translate(error: BaseException, pool: str, budget: float | None = None) -> SnakepitError | None:
    """Our error for one of Ray's, None when it has no meaning of ours. Errors of ours come as they are, also
    where Ray has wrapped them as the cause of a failed task."""
    cause = getattr(error, "cause", None)
    error = cause if cause is not None else error
    if isinstance(error, SnakepitError):
        return error
    if isinstance(error, ray_errors.TaskCancelledError):
        return RequestCancelled.because(f"the caller cancelled it (pool {pool!r})")
    if isinstance(error, ray_errors.GetTimeoutError):
        return DeadlineExceeded.after(budget or 0.0, "running")
    if isinstance(error, ActorUnavailable):
        return WorkerCrashed(
            f"a worker actor of pool {pool!r} died while it had the request, which may or may not have run: "
            f"{error}; retry it if it is idempotent",
            may_have_started=True,
        )
    if isinstance(error, ray_errors.RayActorError):
        return pool_gone(str(error), pool)
    return None


def pool_gone(text: str, pool: str) -> PoolClosed:
    """For a pool whose router is gone for good, by Ray's text about it."""
    first = (text.splitlines() or ["no reason is known"])[0]
    return PoolClosed(f"pool {pool!r} is gone (shut down, or its driver ended): {first}")


def session_id() -> tuple[str, bytes]:
    """Which connection to a cluster this process has now: another after each `ray.init`, empty without one.

    A driver's own id follows from the number of its job, which is the same in every new cluster; so the name
    of the cluster's session goes with it."""
    worker = ray._private.worker.global_worker
    node = worker.node
    return (node.session_name, worker.worker_id) if worker.connected and node is not None else ("", b"")


def is_connected() -> bool:
    """Whether this process is in a cluster."""
    return bool(ray.is_initialized())


def disconnect() -> None:
    """Leaves the cluster; ends it when this process began it."""
    ray.shutdown()


def get(ref: Any, timeout: float, pool: str) -> Any:
    """The value of a control call. Raises our error for what went wrong."""
    try:
        return ray.get(ref, timeout=timeout)
    except RayError as error:
        ours = translate(error, pool, timeout)
        if ours is None:
            raise
        raise ours from None


def quietly(ref: Any, timeout: float) -> None:
    """Waits for a call whose failure changes nothing: what it asked for is enforced next."""
    with contextlib.suppress(RayError):
        ray.get(ref, timeout=timeout)
