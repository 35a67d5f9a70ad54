"""How pools begin and end: start, connect, several at once, a whole script, and the end of this process.

Rules:
- A pool that does not come up leaves nothing behind. Neither does a start that is cut, at whatever moment: by
  an exception here the pool is taken down, and where this process is killed the router ends it
  (`router.beginning`).
- A broken pool fails alone.
- What this process started ends with it: politely at exit, and by its workers' own watch however else it
  ends. A process that was forked from this one started nothing.
- A start has no limit of its own: each worker has its startup_timeout from the moment its turn comes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from snakepit_ray.client.directory import directory_of
from snakepit_ray.client.pool import Pool
from snakepit_ray.config import PoolConfig, checks, read_toml
from snakepit_ray.errors import ConfigError, PoolClosed, PoolNotFound, SnakepitError
from snakepit_ray.port import cluster, control, leftovers, ray_port
from snakepit_ray.port.messages import StartCounts
from snakepit_ray.router import spawn
from snakepit_ray.runtimes import resolve_runtime

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import PoolSettings

ACTOR_SECONDS = 60.0  # for Ray to place and start the router; startup_timeout where that is longer
STEP_SECONDS = 1.0  # between two questions how far a start is, where nothing happens

ShowStart = Callable[[str, int, int, int], None]  # (pool, ready, failed, wanted)

_started: dict[str, tuple[int, Pool]] = {}  # by name: the process that started it, and its handle
_lock = threading.Lock()


class Pools(dict[str, Pool]):
    """Pools by name; `failed` holds the error of each that did not come up. Leaving a `with` ends them."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[str, Exception] = {}

    def __enter__(self) -> Pools:
        return self

    def __exit__(self, *exc: object) -> None:
        for pool in self.values():
            pool.__exit__(*exc)


def start(
    config: PoolConfig | Mapping[str, Any] | None = None,
    *,
    detached: bool = False,
    on_progress: ShowStart | None = None,
    **settings: Unpack[PoolSettings],
) -> Pool:
    """Starts a pool, and returns when it is ready. Calls ray.init() if nobody has.

    Ready means: every worker is, or each had its chance and at least one is. The pool goes on trying to start
    the others. It ends with this process, however that ends, unless it is detached.

    Args:
        config: a PoolConfig, or a mapping of its keys.
        detached: the pool outlives this process, and ends with `shutdown` or `snakepit-ray down`.
        on_progress: called with (name, ready, failed, wanted) whenever one of these numbers has changed.
        settings: keywords of PoolConfig, over those of `config`.

    Returns: the pool's handle.

    Raises: ConfigError; PoolExists; WorkerStartError with the interpreter's own words, or with what was asked
    for and what the cluster has; ProtocolMismatch.
    """
    return _start(config, settings, detached, on_progress, threading.Event())


def _start(
    config: PoolConfig | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    detached: bool,
    on_progress: ShowStart | None,
    cut: threading.Event,
) -> Pool:
    """`start`, which gives up when `cut` is set."""
    ray_port.check_ray_version()
    built = _build(config, settings)
    ray_port.ensure_ray()
    built = _settled(built)
    cluster.check_room(built)
    router = spawn.spawn_router(built, detached)
    try:
        leftovers.reap(built.name)
        _bring_up(built, router, on_progress, cut)
        pool = Pool(directory_of(built, router, _ask(built, router, "snapshot")), owner=True)
        if not detached:
            with _lock:
                _started[built.name] = os.getpid(), pool
        _ask(built, router, "begun")
    except BaseException:
        _take_down(built.name, router)
        raise
    return pool


def _build(config: PoolConfig | Mapping[str, Any] | None, settings: Mapping[str, Any]) -> PoolConfig:
    if isinstance(config, PoolConfig):
        return config.merge(**settings)
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(
            f"config: got {checks.shown(config)}, expected a PoolConfig or a mapping of its keys; "
            "a pool's name is the keyword name="
        )
    return PoolConfig.build(**{**dict(config or {}), **settings})


def _settled(config: PoolConfig) -> PoolConfig:
    """What depends on where we are, decided once, here: the size, the interpreter, the working directory."""
    sized = config.with_size(cluster.cluster_cpus())
    here = {"cwd": str(Path(sized.cwd or ".").resolve())}
    if sized.interpreter is None:
        here["interpreter"] = resolve_runtime(sized.runtime).executable(sized)
    return sized.merge(**here)


def _bring_up(config: PoolConfig, router: Any, on_progress: ShowStart | None, cut: threading.Event) -> None:
    """Has the workers started. Returns when the start is over and raises when it is hopeless, by the router's
    word, or when it is `cut`."""
    _ask(config, router, "start")
    seen: StartCounts | None = None
    over = False
    while not over:
        before = seen
        seen, over = _ask(config, router, "starting", before, STEP_SECONDS)
        if on_progress is not None and seen != before:
            on_progress(config.name, *seen)
        if cut.is_set():
            raise PoolClosed.named(config.name, "its start was cut")


def _ask(config: PoolConfig, router: Any, method: str, *args: Any) -> Any:
    """Asks a router whose machine may be busy with its own workers' starts: it answers late, then."""
    batches = -(-(config.size or 1) // config.startup_batch_size)
    patience = max(ACTOR_SECONDS, config.startup_timeout) * batches
    return control.ask(router, config.name, patience, method, *args)


def _take_down(name: str, router: Any) -> None:
    """Ends a pool, in a thread of its own: a second Ctrl-C does not cut it."""
    ending = threading.Thread(target=_end, args=(name, router), name=f"snakepit-end-{name}")
    ending.start()
    ending.join()


def _end(name: str, router: Any) -> None:
    control.end(router, name)
    with _lock:
        _started.pop(name, None)


def connect(name: str = "default") -> Pool:
    """Joins a running pool of this cluster.

    Args:
        name: the pool's.

    Returns: a handle. Leaving its `with` block does not end the pool.

    Raises: PoolNotFound, which names the pools that run; PoolClosed for one that is ending.
    """
    checks.checked("connect", {"name": name}, {"name": checks.name})
    ray_port.check_ray_version()
    _join(name)
    router = ray_port.find_router(name)
    config, _ = control.ask(router, name, ACTOR_SECONDS, "describe")
    snapshot = control.ask(router, name, ACTOR_SECONDS, "snapshot")
    return Pool(directory_of(config, router, snapshot))


def _join(name: str) -> None:
    """Enters the cluster that is there. Raises PoolNotFound for the pool `name` when there is none."""
    if not ray_port.is_connected():
        try:
            ray_port.ensure_ray(address="auto")
        except ConnectionError as error:
            raise PoolNotFound(
                f"there is no pool named {name!r}: no Ray cluster runs here ({error})"
            ) from error


def start_all(
    source: str | Path | Iterable[PoolConfig] = "snakepit.toml",
    *,
    detached: bool = False,
    on_progress: ShowStart | None = None,
) -> Pools:
    """Starts several pools side by side. A broken one fails alone.

    An exception in this thread, such as Ctrl-C, ends all of them.

    Args:
        source: the path of a TOML file, or configurations.
        detached: as in `start`.
        on_progress: as in `start`; called from a thread of each pool.

    Returns: the pools by name; `.failed` has the error of each that did not come up.

    Raises: ConfigError when the file itself is wrong, or when two configurations have one name.
    """
    pools = Pools()
    if isinstance(source, str | Path):
        read = read_toml(source)
        configs = [config for config in read.values() if isinstance(config, PoolConfig)]
        pools.failed.update({name: bad for name, bad in read.items() if not isinstance(bad, PoolConfig)})
    else:
        configs = list(source)
    _check_names(configs)
    ray_port.check_ray_version()
    ray_port.ensure_ray()
    cut = threading.Event()
    futures: dict[str, Future[Pool]] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(configs))) as threads:
        try:
            for config in configs:
                futures[config.name] = threads.submit(_start, config, {}, detached, on_progress, cut)
            _sort(futures, pools)
        except BaseException:
            cut.set()
            threads.shutdown(wait=True)
            _undo(futures)
            raise
    return pools


def _check_names(configs: list[PoolConfig]) -> None:
    twice = [name for name, count in Counter(config.name for config in configs).items() if count > 1]
    if twice:
        raise ConfigError(
            f"start_all: {', '.join(map(repr, twice))}: two pools of one name; give each its own", key="name"
        )


def _sort(futures: Mapping[str, Future[Pool]], pools: Pools) -> None:
    """Waits for the pools; what came up goes into `pools`, what failed into its `failed`."""
    for name, future in futures.items():
        error = future.exception()
        if error is None:
            pools[name] = future.result()
        elif isinstance(error, Exception):
            pools.failed[name] = error
        else:
            raise error


def _undo(futures: Mapping[str, Future[Pool]]) -> None:
    """Ends those that had come up."""
    for future in futures.values():
        if not future.cancelled() and future.exception() is None:
            future.result().shutdown()


def shutdown(name: str | None = None) -> None:
    """Ends a pool, also one that another process started.

    Args:
        name: the pool's; None: every pool that this process started.

    Raises: PoolNotFound for an unknown name.
    """
    if name is not None:
        _shut_down(name)
        return
    with _lock:
        own = [pool for pid, pool in _started.values() if pid == os.getpid()]
        _started.clear()
    failed = [error for error in map(_ended, own) if error is not None]
    if failed:
        raise failed[0]


def _shut_down(name: str) -> None:
    """Also one that another process started, that is starting or ending, or of which only workers are
    left."""
    with _lock:
        _started.pop(name, None)
    _join(name)
    try:
        router = ray_port.find_router(name)
    except PoolNotFound:
        if leftovers.reap(name):
            return
        raise
    _end(name, router)


def _ended(pool: Pool) -> SnakepitError | None:
    """Ends one of several pools: what goes wrong with it keeps none of the others running."""
    try:
        pool.shutdown()
    except SnakepitError as error:
        return error
    return None


def get_stats() -> dict[str, int]:
    """The sums of `Pool.get_stats()` over all pools that run in this cluster."""
    total: dict[str, int] = {}
    for name in ray_port.pool_names():
        for key, value in connect(name).get_stats().items():
            total[key] = total.get(key, 0) + value
    return total


def run_as_script(fn: Callable[[Pool], Any], **settings: Unpack[PoolSettings]) -> NoReturn:
    """Pool up, all workers ready, `fn(pool)`, everything down; then ends this process.

    Args:
        fn: called with the pool.
        settings: keywords of PoolConfig.

    Raises: SystemExit, with the status 0, or with 1 where anything has raised; the traceback is on stderr.
    """
    status, pid = 1, os.getpid()
    try:
        with start(**settings) as pool:
            pool.await_ready()
            fn(pool)
            status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - the status says that it failed, stderr says how
        traceback.print_exc()
    finally:
        if os.getpid() == pid:  # what `fn` forked has no connection of its own to leave
            ray_port.disconnect()
    sys.exit(status)


def _at_exit() -> None:
    """Runs before Ray's own exit hook (hooks run last in, first out, and Ray's is registered by its
    import)."""
    if any(pid == os.getpid() for pid, _ in _started.values()) and ray_port.is_connected():
        try:
            shutdown()
        except SnakepitError as error:
            print(f"snakepit_ray: a pool did not end politely: {error}", file=sys.stderr)  # noqa: T201


atexit.register(_at_exit)
