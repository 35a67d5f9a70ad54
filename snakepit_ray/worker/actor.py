"""How one supervisor is reached through Ray: requests in, envelopes out, orders of the router obeyed.

Rules:
- A plain class (`spawn.spawn_worker` wraps it).
- It moves bytes and decodes no value.
- What Ray sends again after this actor was restarted runs again only if that does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Ended
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.tools.table import Change, WholeTable
from snakepit_ray.core.work.request_ids import made_by
from snakepit_ray.core.worker.command_info import CommandInfo, info_of
from snakepit_ray.errors import SnakepitError
from snakepit_ray.ledger import Ledger
from snakepit_ray.port import ray_port, sparing
from snakepit_ray.port.listeners import Listeners, Told
from snakepit_ray.port.messages import Delegated, MoveOrder, PoolMemory, WorkerFacts
from snakepit_ray.port.naming import WorkerName
from snakepit_ray.port.tool_messages import ToolAnswer, ToolTurn
from snakepit_ray.process import registry, state_files
from snakepit_ray.process.session_log import SessionLog
from snakepit_ray.supervisor import Counters, Ports, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, decoded_count, keep_encoded
from snakepit_ray.wire.lane import Lane
from snakepit_ray.worker.circuit import Gate
from snakepit_ray.worker.host_calls import worker_methods
from snakepit_ray.worker.lane import LaneServer
from snakepit_ray.worker.memory import About, Memory
from snakepit_ray.worker.other_pools import OtherPools
from snakepit_ray.worker.peer_links import Peer, PeerLinks
from snakepit_ray.worker.peers import Peers
from snakepit_ray.worker.pool_link import PoolLink
from snakepit_ray.worker.requests import Requests
from snakepit_ray.worker.session_pins import Origin
from snakepit_ray.worker.session_state import StateOfSessions
from snakepit_ray.worker.specs import interpreter_spec, worker_policy
from snakepit_ray.worker.tools import Tools

log = logging.getLogger("snakepit_ray.worker")
sparing.spare_libraries(f"{__name__}.WorkerActor")


class WorkerActor:
    """One worker of a pool. Its router starts and stops it; handles and other workers call `execute`."""

    def __init__(self, config: PoolConfig, worker_id: str, router_id: str) -> None:
        keep_encoded(True)
        self.config = config
        self.worker_id = worker_id
        self.node_id = ray_port.node_id()
        self.started_at = time.time()
        name = state_files.name_of(worker_id, ray_port.actor_id())
        self.ledger = Ledger.open(name)
        self.session_log = SessionLog.open(name, config.max_sessions)
        incarnation = self.ledger.next_incarnation(time.time_ns() // 1_000_000)
        memory = Memory(About(worker_id, self.node_id), self.ledger, incarnation)
        self._counters = Counters(self.ledger.counts)
        name = f"{WorkerName(router_id, worker_id)}#{incarnation}"
        self.state = StateOfSessions(config, worker_id, name, self.ledger, self._origin_of, self._binding_of)
        self.tools = Tools(
            config.name,
            lambda request_id: self.supervisor.present(request_id),
            OtherPools(lambda: self.peers.links),
            lambda request_id, waits: self.supervisor.waits_for_pool(request_id, waits),
        )
        more = {**self.state.calls.handlers(), **self.tools.methods}
        host = worker_methods(worker_id, config.name, self.node_id, lambda: self.epoch, more)
        self.supervisor = Supervisor(
            lambda: interpreter_spec(config, worker_id, self.ledger.descriptor),
            worker_id=worker_id,
            pool=config.name,
            policy=worker_policy(config),
            incarnation=incarnation,
            on_host_call=host.serve,
            forward=self._forward,
            ports=partial(self._ports, router_id, memory),
            counters=self._counters,
        )
        if self.ledger.found:
            self._counters.restarts += 1
        else:
            self.ledger.counts[-1] = incarnation
        self._memory_used = 0
        self.gate = Gate(config, worker_id, self.pool_link)
        self.requests = Requests(config, memory, self.supervisor, self.pool_link, self.peers, self.gate)
        self._lane_server = LaneServer(
            self.requests,
            config.name,
            config.binary_threshold,
            self._came_by_lane,
            partial(ray_port.translate, pool=config.name),
        )
        self._lane = self._open_lane()
        self.listeners = Listeners()
        self._forever = asyncio.Event()
        self._running = asyncio.ensure_future(self._run())

    def _ports(self, router_id: str, memory: Memory, supervisor: Supervisor) -> Ports:
        """The worker's link to its pool, and the other workers, which it learns from the router."""
        known: dict[str, Peer] = {}
        self.pool_link = PoolLink(
            supervisor,
            self.config,
            self.worker_id,
            router_id,
            self.facts,
            known,
            self._gone,
            self.session_log,
            self.ledger.notes,
            self.tools.whole,
            self.state.fence,
        )
        links = PeerLinks(self.node_id)
        self.peers = Peers(self.config.name, memory, supervisor, self.pool_link, known, links)
        return Ports(self.peers, self.pool_link, memory)

    def _origin_of(self, request_id: str) -> Origin | None:
        attempt = self.supervisor.attempt_of(request_id)
        if attempt is None:
            return None
        return Origin(attempt.number, bool(attempt.request.options.affinity), attempt.entered)

    def _binding_of(self, session: str) -> Awaitable[int | None]:
        return self.pool_link.sessions.binding(session)

    def _open_lane(self) -> Lane | None:
        """A worker that can have no lane is reached by Ray alone."""
        if self.config.lane == "off":
            return None
        try:
            return self._lane_server.open(self.node_id)
        except (OSError, SnakepitError) as error:
            log.warning("worker %s has no lane, its callers use Ray: %s", self.worker_id, error)
            return None

    def _came_by_lane(self, count: int) -> None:
        self._counters.by_lane += count

    async def _run(self) -> None:
        await ray_port.unowned_task(self._lane_server.serve())
        ray_port.when_raylet_dies(self._raylet_died)
        # Whatever an earlier worker of this node left behind goes before anything new starts.
        await asyncio.to_thread(registry.sweep)
        if self.ledger.found:  # restarted: what Ray sends again waits already, and the router may be away
            self._restarted = asyncio.ensure_future(self.supervisor.try_to_start())
        await self.pool_link.run()

    def _raylet_died(self) -> None:
        """This node is no node any more: nobody could reach or end what runs here."""
        self._forget()
        self.supervisor.kill_now()
        os._exit(1)

    async def _gone(self) -> None:
        """The router is gone for good: so is this worker, interpreter first.

        What it wrote down goes before: the interpreter's end takes seconds, and whoever waits for less kills
        this process."""
        self._forget()
        await self.supervisor.stop()

    def _forget(self) -> None:
        """There is no next life: what was written down for it goes."""
        self.ledger.remove()
        self.session_log.remove()
        self._lane_server.close()

    # ---- control: called by the router --------------------------------------------------------------------

    async def belong(self) -> None:
        """Never returns: the router learns by its failure that this process has died."""
        await self._forever.wait()

    async def start(self, queue_limit: int | None) -> WorkerFacts:
        """Starts the interpreter. Raises WorkerStartError, ProtocolMismatch."""
        self.set_queue_limit(queue_limit)
        await self.supervisor.start()
        return self.facts()

    def set_queue_limit(self, limit: int | None) -> None:
        """This worker's share of max_queue_size."""
        self.supervisor.limit_queue(limit)

    async def move(self, order: MoveOrder) -> int:
        """Sends waiting requests to another worker; how many went."""
        return self.pool_link.obey(order)

    async def remember(self, memory: PoolMemory) -> None:
        """What the router would forget if it were restarted."""
        self.pool_link.remember(memory)

    async def disown(self, sessions: list[str]) -> None:
        """These sessions live elsewhere, or not at all."""
        self.pool_link.sessions.disown(sessions)

    async def set_circuit(self, open_for: float) -> None:
        """The pool's circuit is open for so many seconds, 0: closed."""
        self.gate.set(open_for)

    async def drop_callers(self, callers: list[str]) -> int:
        """These calling processes are gone: what they asked for is dropped or cancelled; how much it was."""
        return self.supervisor.drop(made_by(callers))

    @ray_port.survives_restarts
    async def recall(self, blob: bytes) -> Delegated | bool:
        """What became of a request that another worker had moved here (without its arguments); where that is
        not known, whether it may have begun."""
        return await self.requests.recall(pb.Request.FromString(blob))

    async def set_tools(self, table: WholeTable) -> None:
        """The tools that there are."""
        self.tools.adopt(table)

    async def change_tools(self, change: Change) -> bool:
        """What has changed of them; False where the whole table is to be sent."""
        return self.tools.change(change)

    async def recycle(self) -> None:
        """Wishes for a planned replacement of the interpreter."""
        self.supervisor.recycle()

    async def drain(self, timeout: float) -> bool:
        """Takes no new work of its own, hands its waiters on, and waits until every call that it serves has
        its outcome: also of a request that another worker runs, whose outcome comes through this one. Whether
        it got empty."""
        self.supervisor.leave()
        deadline = self.supervisor.clock() + timeout
        is_idle = await self.requests.until_idle(timeout, self.pool_link.hand_over)
        return is_idle and await self._lane_server.until_sent(deadline - self.supervisor.clock())

    async def until_idle(self, timeout: float) -> bool:
        """Waits until nothing waits, runs or is served here; whether that was within `timeout` seconds."""
        return await self.requests.until_idle(timeout)

    async def stop(self) -> None:
        """Ends the interpreter. The router ends the actor after it."""
        self.pool_link.stop()
        await self._gone()

    def facts(self) -> WorkerFacts:
        """What `pool.workers()` shows of this worker."""
        supervisor, counters = self.supervisor, self._counters
        interpreter = supervisor.interpreter
        return WorkerFacts(
            worker_id=self.worker_id,
            node_id=self.node_id,
            pid=interpreter.child.pid if interpreter is not None and interpreter.child.alive else 0,
            actor_pid=os.getpid(),
            epoch=self.epoch,
            state=str(supervisor.state),
            capacity=self.config.capacity,
            running=supervisor.running,
            waiting=supervisor.waiting,
            requests=counters.requests,
            errors=counters.errors,
            cancelled=counters.cancelled,
            queue_timeouts=counters.queue_timeouts,
            saturated=counters.saturated,
            recycled=counters.recycled,
            restarts=counters.restarts,
            delegated=counters.delegated,
            by_lane=counters.by_lane,
            rss_bytes=self._memory_used,
            started_at=interpreter.started_at if interpreter is not None else self.started_at,
            timeouts=supervisor.timeouts,
            present=self.requests.present,
            counts_from=self.ledger.counts[-1],
            lane=self._lane,
        )

    async def get_facts(self, memory: bool = False) -> WorkerFacts:
        """`facts`, through Ray. `memory`: its memory is looked at, which takes a moment."""
        if memory:
            self._memory_used = await self.supervisor.memory()
        return self.facts()

    async def events(self, listener: str, patterns: Sequence[str], timeout: float) -> Told:
        """The events of this worker that `patterns` match, for a listener in another process."""
        return await self.listeners.next(listener, patterns, timeout)

    async def describe_commands(self) -> list[CommandInfo]:
        """The commands of the interpreter; none before the first is ready."""
        return [info_of(command) for command in self.supervisor.commands]

    async def get_story(self) -> list[str]:
        """The last events of this worker's life, the oldest first."""
        return self.supervisor.last_events(50)

    async def probe(self) -> dict[str, Any]:
        """What tests and `doctor` look at: did this process decode a value, what did it import, health of the
        child, how many requests it moved by a lane."""
        interpreter = self.supervisor.interpreter
        return {
            "decoded": decoded_count(),
            "numpy_imported": "numpy" in sys.modules,
            "libraries": [name for name in (*sparing.LIBRARIES, "numpy", "grpc") if name in sys.modules],
            "healthy": interpreter is not None and await interpreter.client.healthy(2.0),
            "stderr_tail": interpreter.child.stderr.tail if interpreter is not None else "",
            "reports": self.pool_link.reports,
            "moved_by_lane": self.peers.links.sent,
            "copies": (self.state.copies.hits, self.state.copies.misses),
        }

    @property
    def epoch(self) -> tuple[int, int]:
        """(incarnation, number) of the interpreter that serves now."""
        incarnation, number = self.supervisor.epoch
        return incarnation, number

    async def serve_tools(
        self, owner: str, number: int, answers: Sequence[ToolAnswer], timeout: float
    ) -> ToolTurn:
        """A process that runs tools asks what to run, and brings what its tools have come to."""
        return await self.tools.hosts.serve(owner, number, answers, timeout)

    # ---- state of sessions: called by the store -----------------------------------------------------------

    async def let_go(self, leases: list[Lease]) -> list[Lease]:
        """Ends the copies of these leases; those of which nobody has a copy any more."""
        return self.state.let_go(leases)

    async def sessions_ended(self, ended: list[Ended]) -> None:
        """These sessions are no more. Their adapter frees what belongs to them."""
        self.state.ended(ended)
        with_tools = self.tools.ended([one.session for one in ended])
        if with_tools:
            self.pool_link.end_tools_of(with_tools)
        for reason in ("deleted", "expired"):
            await self.supervisor.end_sessions([one.session for one in ended if one.reason == reason], reason)

    # ---- data ---------------------------------------------------------------------------------------------

    @ray_port.survives_restarts
    async def execute(self, blob: bytes, *values: Any) -> Any:
        """Runs one serialized Request; `values` are what Ray resolved for its refs, and last the buffers that
        travel beside it, if there are any (requests.Outgoing).

        Returns an Envelope, which unpickles as the value where it is read, or to a worker that delegates
        Delegated or Refused."""
        return await self.requests.execute(blob, values)

    @ray_port.survives_restarts
    async def execute_batch(self, blobs: list[bytes], *values: Any) -> BatchEnvelope:
        """Runs the items of some serialized Requests, which are one batch, on as many workers as it takes."""
        return await self.requests.execute_batch(blobs, values)

    async def execute_stream(
        self, blob: bytes, *values: Any, _ray_trace_ctx: object = None
    ) -> AsyncIterator[Any]:
        """`execute` for a command that yields: an Envelope a chunk, or Parts where the request says `pack`;
        its error after the chunks before it. A worker that relays may get Refused. `_ray_trace_ctx`: see
        `ray_port.TRACE_KEYWORD`."""
        async with contextlib.aclosing(self.requests.execute_stream(blob, values)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def fetch_kept(self, name: str) -> Any:
        """A part of a stream that was too large for the lane that the stream goes by."""
        return self.requests.fetch(name)

    async def close_stream(self, request_id: str) -> None:
        """Nobody takes its chunks any more."""
        self.requests.close_stream(request_id)

    def _forward(self, stream: str, line: str) -> None:
        # The Ray worker's own streams reach the driver, prefixed, where Ray is told to do so.
        target = sys.stdout if stream == "stdout" else sys.stderr
        with contextlib.suppress(OSError, ValueError):
            target.write(f"[{self.worker_id} {stream}] {line}\n")
