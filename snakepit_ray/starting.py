"""Knows how pools begin and end: start, connect, several at once, a whole script, and the end of this
process.

Rules: a pool that does not come up leaves nothing behind; a broken one fails alone; what this process started
ends with it, politely at exit, and by its workers' own watch however else it ends."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from snakepit_ray.actors import ray_port
from snakepit_ray.actors.link import link_to
from snakepit_ray.config import PoolConfig, checks, read_toml
from snakepit_ray.errors import ConfigError, PoolNotFound, SnakepitError
from snakepit_ray.pool import Pool
from snakepit_ray.runtimes import resolve_runtime

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import PoolSettings

ACTOR_SECONDS = 60.0  # for Ray to place and start an actor, beside the interpreter's own startup_timeout
STEP_SECONDS = 0.2

Progress = Callable[[str, int, int, int], None]  # (pool, ready, failed, wanted)

_started: dict[str, Pool] = {}
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
            pool.shutdown()


def start(
    config: PoolConfig | Mapping[str, Any] | None = None,
    *,
    detached: bool = False,
    on_progress: Progress | None = None,
    **settings: Unpack[PoolSettings],
) -> Pool:
    """Starts a pool and returns when it is ready: every worker, or start-up over with at least one.

    `config` (a PoolConfig or a mapping of its keys) and keywords over it. Calls ray.init() if nobody has. A
    `detached` pool outlives this driver and ends with `shutdown` or `snakepit-ray down`. Raises ConfigError,
    PoolExists, WorkerStartError (with the interpreter's own words), ProtocolMismatch."""
    ray_port.check_ray_version()
    built = _build(config, settings)
    ray_port.ensure_ray()
    built = _settled(built)
    router = ray_port.spawn_router(built, detached)
    try:
        _bring_up(built, router, on_progress)
        snapshot = ray_port.get(router.snapshot.remote(), ACTOR_SECONDS, built.name)
    except BaseException:
        _take_down(router)
        raise
    pool = Pool(link_to(built, router, snapshot), owner=True)
    if not detached:
        with _lock:
            _started[built.name] = pool
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
    sized = config.with_size(ray_port.cluster_cpus())
    here = {"cwd": str(Path(sized.cwd or ".").resolve())}
    if sized.interpreter is None:
        here["interpreter"] = resolve_runtime(sized.runtime).executable(sized)
    return sized.merge(**here)


def _bring_up(config: PoolConfig, router: Any, on_progress: Progress | None) -> None:
    size = config.size or 1
    batches = -(-size // config.startup_batch_size)
    timeout = ACTOR_SECONDS + batches * (config.startup_timeout + config.startup_batch_delay)
    ray_port.get(router.start.remote(), ACTOR_SECONDS, config.name)
    ready = router.await_ready.remote(timeout, False)
    deadline = time.monotonic() + timeout + ACTOR_SECONDS
    tell = _changes(config.name, on_progress)
    while on_progress is not None and not ray_port.done(ready, STEP_SECONDS):
        tell(ray_port.get(router.progress.remote(), ACTOR_SECONDS, config.name))
        if time.monotonic() > deadline:
            break
    tell(ray_port.get(ready, max(1.0, deadline - time.monotonic()), config.name))


def _changes(name: str, on_progress: Progress | None) -> Callable[[tuple[int, int, int]], None]:
    """Calls `on_progress` with what is new, and not twice with the same."""
    last: list[tuple[int, int, int]] = []

    def tell(progress: tuple[int, int, int]) -> None:
        if on_progress is not None and last != [progress]:
            last[:] = [progress]
            on_progress(name, *progress)

    return tell


def _take_down(router: Any) -> None:
    ray_port.quietly(router.shutdown.remote(), ACTOR_SECONDS)
    ray_port.end(router)


def connect(name: str = "default") -> Pool:
    """Joins a running pool of this cluster. Raises PoolNotFound, naming the pools that run."""
    checks.checked("connect", {"name": name}, {"name": checks.name})
    ray_port.check_ray_version()
    if not ray_port.is_connected():
        try:
            ray_port.ensure_ray(address="auto")
        except ConnectionError as error:
            raise PoolNotFound(
                f"there is no pool named {name!r}: no Ray cluster runs here ({error})"
            ) from error
    router = ray_port.find_router(name)
    config, _ = ray_port.get(router.describe.remote(), ACTOR_SECONDS, name)
    snapshot = ray_port.get(router.snapshot.remote(), ACTOR_SECONDS, name)
    return Pool(link_to(config, router, snapshot))


def start_all(
    source: str | Path | Iterable[PoolConfig] = "snakepit.toml",
    *,
    detached: bool = False,
    on_progress: Progress | None = None,
) -> Pools:
    """Starts several pools side by side, from a TOML file or from configurations; a broken one fails alone.

    The errors are in `.failed` of what is returned. Raises ConfigError when the file itself is wrong.
    """
    pools = Pools()
    if isinstance(source, str | Path):
        read = read_toml(source)
        configs = [config for config in read.values() if isinstance(config, PoolConfig)]
        pools.failed.update({name: bad for name, bad in read.items() if not isinstance(bad, PoolConfig)})
    else:
        configs = list(source)
    ray_port.check_ray_version()
    ray_port.ensure_ray()
    with ThreadPoolExecutor(max_workers=max(1, len(configs))) as threads:
        futures = {
            config.name: threads.submit(start, config, detached=detached, on_progress=on_progress)
            for config in configs
        }
    for name, future in futures.items():
        error = future.exception()
        if error is None:
            pools[name] = future.result()
        elif isinstance(error, Exception):
            pools.failed[name] = error
        else:
            raise error
    return pools


def shutdown(name: str | None = None) -> None:
    """Ends the pool of that name, or every pool that this process started. Raises PoolNotFound for an unknown
    name."""
    if name is None:
        with _lock:
            pools = list(_started.values())
            _started.clear()
        failed = [error for error in map(_ended, pools) if error is not None]
        if failed:
            raise failed[0]
        return
    with _lock:
        known = _started.pop(name, None)
    (known or connect(name)).shutdown()


def _ended(pool: Pool) -> SnakepitError | None:
    """Ends one of several pools: what goes wrong with it keeps none of the others running."""
    try:
        pool.shutdown()
    except SnakepitError as error:
        return error
    return None


def get_stats() -> dict[str, int]:
    """The sum of `get_stats()` of all pools that run in this cluster."""
    total: dict[str, int] = {}
    for name in ray_port.pool_names():
        for key, value in connect(name).get_stats().items():
            total[key] = total.get(key, 0) + value
    return total


def run_as_script(fn: Callable[[Pool], Any], **settings: Unpack[PoolSettings]) -> NoReturn:
    """Pool up, all workers ready, `fn(pool)`, everything down; then ends this process: status 0, or 1 on an
    exception."""
    status = 1
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
        ray_port.disconnect()
    sys.exit(status)


def _at_exit() -> None:
    """Runs before Ray's own exit hook (hooks run last in, first out, and Ray's is registered by its
    import)."""
    if _started and ray_port.is_connected():
        try:
            shutdown()
        except SnakepitError as error:
            print(f"snakepit_ray: a pool did not end politely: {error}", file=sys.stderr)  # noqa: T201


atexit.register(_at_exit)
