"""Knows how one supervisor is reached through Ray: requests in, envelopes out, waiters taken over from other
workers.

Rules: a plain class (`ray_port.spawn_worker` wraps it); it moves bytes and decodes no value; a request is
delegated at most once; a delegated request that finds no free slot is refused at once, so that it keeps its
place where it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from functools import partial
from typing import Any

import ray

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.host_calls import HostCalls
from snakepit_ray.actors.membership import Membership
from snakepit_ray.actors.messages import Claimed, Delegated, MoveOrder, Refused, WorkerFacts
from snakepit_ray.codec import decoded_count, keep_encoded
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import SessionWorkerLost, SnakepitError, WorkerCrashed
from snakepit_ray.requests import fill_refs, outcome
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.supervisor import Done, InterpreterSpec, Relayed, Supervisor, WorkerState

LARGE_REFS_BYTES = 1_000_000
log = logging.getLogger("snakepit_ray.worker")


class WorkerActor:
    """One worker of a pool. Its router starts and stops it; handles and other workers call `execute`."""

    def __init__(self, config: PoolConfig, worker_id: str) -> None:
        keep_encoded(True)
        self.config = config
        self.worker_id = worker_id
        self.node_id = ray_port.node_id()
        self.started_at = time.time()
        self.peers: dict[str, Any] = {}
        incarnation = time.time_ns() // 1_000_000
        host = HostCalls(worker_id, config.name, self.node_id, lambda: self.epoch)
        self.supervisor = Supervisor(
            lambda: interpreter_spec(config, worker_id),
            worker_id=worker_id,
            pool=config.name,
            capacity=config.capacity,
            queue_limit=None,  # known when the router says how many share the pool's limit
            incarnation=incarnation,
            retry_backoff=config.retry_backoff,
            on_host_call=host.serve,
            forward=self._forward,
        )
        self.supervisor.delegate = self._delegate
        self.supervisor.overflow = self._overflow
        self.membership = Membership(self.supervisor, config, worker_id, self.facts, self.peers)
        self._running = asyncio.ensure_future(self.membership.run())

    # ---- control: called by the router --------------------------------------------------------------------

    async def start(self, queue_limit: int | None) -> WorkerFacts:
        """Starts the interpreter. Raises WorkerStartError, ProtocolMismatch."""
        self.set_queue_limit(queue_limit)
        await self.supervisor.start()
        return self.facts()

    def set_queue_limit(self, limit: int | None) -> None:
        """This worker's share of max_queue_size."""
        self.supervisor.admission.queue.limit = limit

    async def move(self, order: MoveOrder) -> int:
        """Sends waiting requests to another worker; how many went."""
        return self.membership.obey(order)

    async def drain(self, timeout: float) -> bool:
        """Takes no new work of its own, hands its waiters on, and waits for what runs. Whether it got
        empty."""
        self.supervisor.state = WorkerState.DRAINING
        deadline = time.monotonic() + timeout
        while self.supervisor.running or self.supervisor.waiting:
            if time.monotonic() > deadline:
                return False
            await self.membership.hand_over()
            await asyncio.sleep(0.02)
        return True

    async def stop(self) -> None:
        """Ends the interpreter. The router ends the actor after it."""
        self.membership.stop()
        await self.supervisor.stop()

    def facts(self) -> WorkerFacts:
        """What `pool.workers()` shows of this worker."""
        supervisor, counters = self.supervisor, self.supervisor.counters
        interpreter = supervisor.interpreter
        return WorkerFacts(
            worker_id=self.worker_id,
            node_id=self.node_id,
            pid=interpreter.child.pid if interpreter is not None and interpreter.child.alive else 0,
            actor_pid=os.getpid(),
            epoch=self.epoch,
            state=supervisor.state.value,
            capacity=self.config.capacity,
            running=supervisor.running,
            waiting=supervisor.waiting,
            requests=counters.requests,
            errors=counters.errors,
            queue_timeouts=counters.queue_timeouts,
            saturated=counters.saturated,
            restarts=supervisor.keeper.restarts,
            delegated=counters.delegated,
            rss_bytes=_rss(interpreter.child.pid) if interpreter is not None else 0,
            started_at=interpreter.started_at if interpreter is not None else self.started_at,
        )

    async def get_facts(self) -> WorkerFacts:
        """`facts`, through Ray."""
        return self.facts()

    async def probe(self) -> dict[str, Any]:
        """What tests and `doctor` look at: did this process decode a value, what did it import, health of the
        child."""
        interpreter = self.supervisor.interpreter
        return {
            "decoded": decoded_count(),
            "numpy_imported": "numpy" in sys.modules,
            "healthy": interpreter is not None and await interpreter.client.healthy(2.0),
            "stderr_tail": interpreter.child.stderr.tail if interpreter is not None else "",
            "reports": self.membership.reports,
        }

    @property
    def epoch(self) -> tuple[int, int]:
        """(incarnation, number) of the interpreter that serves now."""
        return self.supervisor.epoch.incarnation, self.supervisor.epoch.number

    # ---- data ---------------------------------------------------------------------------------------------

    async def execute(self, blob: bytes, *values: Any) -> Any:
        """Runs one serialized Request; `values` are what Ray resolved for its refs.

        Returns an Envelope, which unpickles as the value where it is read, or Refused to a worker that
        delegates."""
        request = pb.Request.FromString(blob)
        if values:
            await _fill_refs(request, values)
        options = request.options
        if options.hops:
            return await self._execute_delegated(request)
        relayed = await self._elsewhere(request)
        if relayed is not None:
            self.supervisor.counters.requests += 1  # counted once, where it first arrived
            self.supervisor.counters.errors += isinstance(relayed.value, SnakepitError)
            return relayed.unwrap()
        return await self._execute_here(request, movable=not values)

    async def _execute_here(self, request: pb.Request, *, movable: bool) -> Any:
        options = request.options
        pinned = bool(request.session and options.affinity)
        on_slot = partial(self.membership.enter, request.session, options.rebind) if pinned else None
        done = await self.supervisor.execute(request, may_move=movable and not pinned, on_slot=on_slot)
        if isinstance(done, Relayed):
            return done.value
        return outcome(done.reply, request, self._info(request, done) if options.info else None)

    async def _execute_delegated(self, request: pb.Request) -> Refused | Delegated:
        """Runs another worker's request. Its error travels as a value: Ray would wrap it twice, and its
        sender is to know that the slot is free again."""
        options = request.options
        if not options.may_wait:
            accepted = bool(self.supervisor.admission.free)
            self.membership.delegate_arrived(accepted, options.chained)
            if not accepted:
                return Refused(self.worker_id)
        try:
            answer = await self._execute_here(request, movable=False)
        except SnakepitError as error:
            answer = error
        free = self.supervisor.admission.free > 0
        self.membership.delegate_ended(free and options.more)
        return Delegated(answer, free)

    def _info(self, request: pb.Request, done: Done) -> tuple[Any, ...]:
        return (
            self.worker_id,
            self.epoch,
            done.pid,
            self.node_id,
            request.id,
            done.waited,
            done.reply.ran_us / 1e6,
            done.attempt,
            bool(request.options.hops),
        )

    async def _elsewhere(self, request: pb.Request) -> Relayed | None:
        """Sends a session's request to its owner, and a leaver's to whoever stays; None when it runs here."""
        strict = bool(request.options.affinity)
        if request.session:
            claimed = await self.membership.claim(request.session, strict, request.options.rebind)
            if claimed is not None:
                return await self._to_owner(request, claimed, strict)
        if self.supervisor.state is WorkerState.DRAINING and not (request.session and strict):
            return await self._overflow(request)
        return None

    async def _to_owner(self, request: pb.Request, claimed: Claimed, strict: bool) -> Relayed | None:
        if claimed.actor is None:
            raise SessionWorkerLost.of(request.session, f"worker {claimed.owner} is gone", None, self.epoch)
        self.peers[claimed.owner] = claimed.actor
        # A hint that finds its worker busy is refused there and runs here.
        return await self._delegate(claimed.owner, _one_hop_more(request, may_wait=strict), chained=True)

    async def _overflow(self, request: pb.Request) -> Relayed | None:
        """A full queue, or a leaver's: offers the request to a worker with room."""
        order = await self.membership.room()
        if order is None:
            return None
        self.peers[order.target] = order.actor
        return await self._delegate(order.target, _one_hop_more(request, may_wait=True), chained=True)

    async def _delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        """Has another worker run `request`; None when that has no free slot (it did not start there), or died
        with it and the request may run twice. Raises WorkerCrashed when it died and may not."""
        actor = self.peers.get(target)
        if actor is None:
            return None
        request.options.chained = chained
        request.options.more = bool(self.supervisor.admission.queue.movable)
        ref = actor.execute.remote(request.SerializeToString())
        try:
            value = await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        except (ray_port.ActorDied, ray_port.ActorUnavailable) as error:
            if request.options.idempotent:
                return None
            raise WorkerCrashed(
                f"worker {target} died while it had a request that was moved to it ({type(error).__name__}), "
                "which may or may not have run; retry it if it is idempotent",
                worker_id=target,
                may_have_started=True,
            ) from error
        if isinstance(value, Refused):
            if not chained:
                self.membership.refused(target)
            return None
        return Relayed(value.value, value.free)

    def _forward(self, stream: str, line: str) -> None:
        # The Ray worker's own streams reach the driver, prefixed, where Ray is told to do so.
        target = sys.stdout if stream == "stdout" else sys.stderr
        with contextlib.suppress(OSError, ValueError):
            target.write(f"[{self.worker_id} {stream}] {line}\n")


def _one_hop_more(request: pb.Request, *, may_wait: bool) -> pb.Request:
    sent = pb.Request()
    sent.CopyFrom(request)
    sent.options.hops += 1
    sent.options.may_wait = may_wait
    return sent


async def _fill_refs(request: pb.Request, values: tuple[Any, ...]) -> None:
    if sum(sys.getsizeof(value) for value in values) < LARGE_REFS_BYTES:
        fill_refs(request, values)
    else:  # encoding a large value takes a while: not on the loop
        await asyncio.to_thread(fill_refs, request, values)


def _rss(pid: int) -> int:
    """Resident bytes of one process, 0 when it is gone (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def interpreter_spec(config: PoolConfig, worker_id: str) -> InterpreterSpec:
    """What the pool's configuration means for one interpreter."""
    runtime = resolve_runtime(config.runtime)
    cwd = config.cwd or os.getcwd()
    return InterpreterSpec(
        worker_id=worker_id,
        executable=runtime.executable(config),
        script=runtime.script(config),
        args=tuple(runtime.args(config)),
        user_env={**dict(runtime.env(config)), **dict(config.env)},
        cwd=cwd,
        thread_limits=config.effective_thread_limits,
        startup_timeout=config.startup_timeout,
        shutdown_grace=config.shutdown_grace,
        max_message_size=config.max_message_size,
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
