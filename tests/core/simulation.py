"""A discrete-event simulation that runs the real core classes in the shells of workers, router and callers.

Rules: a message between worker and router takes ROUTER_LATENCY, a delegation between workers DELEGATION, each
way; a handle hears of loads once in POLL. Every time is in seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from statistics import fmean

from snakepit_ray.core.routing.matching import Matcher, Move
from snakepit_ray.core.routing.reporting import Decision, Pace, Pacer, Report, Reporter
from snakepit_ray.core.routing.view import RoutingView
from snakepit_ray.core.worker.slots import Prefetch, Slots
from snakepit_ray.core.worker.waiting import Waiting, WaitingQueue
from tests.core.scenarios import (
    DELEGATION,
    NEVER,
    POLL,
    ROUTER_LATENCY,
    WARM_UP,
    Request,
    Result,
    Scenario,
    arrivals,
    churn_times,
    ideal_waits,
    percentile,
)
from tests.core.world import World


class SimWorker:
    """The worker actor's shell around queue, slots and reporter."""

    def __init__(self, key: str, world: World, router: SimRouter) -> None:
        scenario = world.scenario
        self.key, self.world, self.router = key, world, router
        self.queue = WaitingQueue(scenario.limit)
        self.slots = Slots(scenario.capacity)
        self.prefetch = Prefetch()
        self.reporter = Reporter(world.now)
        self.draining = False
        self.requests: dict[str, Request] = {}
        self.sources: dict[str, tuple[SimWorker, bool]] = {}  # of running delegates; has the source more?
        self._refusers: list[str] = []
        self._wake_at = NEVER
        self._expire_at = NEVER
        self._counted = (0, 0)

    @property
    def free(self) -> int:
        return 0 if self.draining else self.slots.free

    def arrive(self, request: Request) -> None:
        world = self.world
        if self.free and not len(self.queue):
            self._start(request)
        else:
            expires_at = world.now + world.scenario.queue_timeout
            if self.queue.offer(request.name, world.now, expires_at, not request.pinned):
                self.requests[request.name] = request
                if expires_at < NEVER:
                    world.after(world.scenario.queue_timeout, self.expire)
            else:
                self.world.settle(request, "rejected")
        self._changed()

    def cancel(self, request: Request) -> None:
        if self.queue.remove(request.name) is not None:
            self.world.settle(request, "cancelled")
            self._changed()

    def expire(self) -> None:
        for waiting in self.queue.expire(self.world.now):
            self.world.settle(self.requests.pop(waiting.id), "expired")
        self._changed()

    def drain(self) -> None:
        self.draining = True
        self._changed()

    def on_moves(self, moves: list[Move[str]]) -> None:
        for move in moves:
            taken = self.queue.take_movable(move.count, self.world.now)
            self.reporter.moved(move.count, len(taken))
            for waiting in taken:
                self._delegate(waiting, self.router.workers[move.target], False)
            if len(taken) < move.count:
                missing = move.count - len(taken)
                self.world.after(ROUTER_LATENCY, self.router.on_unused, move, missing)
        self._changed()

    def _delegate(self, waiting: Waiting, target: SimWorker, chained: bool) -> None:
        if self.world.chance.random() < self.world.scenario.lost:
            self.world.settle(self.requests.pop(waiting.id), "cancelled")
            return
        more = self.queue.movable > 0
        self.world.after(
            DELEGATION, target.on_delegate, self, waiting, self.requests[waiting.id], chained, more
        )

    def on_delegate(
        self, source: SimWorker, waiting: Waiting, request: Request, chained: bool, more: bool
    ) -> None:
        accepted = self.free > 0 and not len(self.queue)
        self.reporter.delegate_arrived(accepted, chained=chained)
        if accepted:
            request.hops += 1
            self.sources[request.name] = (source, more)
            self._start(request)
        else:
            self.world.refusals += 1
            self.world.after(DELEGATION, source.on_refused, waiting, self.key, chained)
        self._changed()

    def on_ended(self, target: SimWorker, free: bool) -> None:
        """The answer of a delegate, to be relayed; its slot is free for the next."""
        if free and self.slots.free == 0:
            for waiting in self.queue.take_movable(1, self.world.now):
                self._delegate(waiting, target, True)
                self._changed()

    def on_refused(self, waiting: Waiting, target: str, chained: bool) -> None:
        if not chained:
            self._refusers.append(target)
        self.queue.put_back(waiting)
        self._fill()
        self.expire()

    def on_answer(self, pace: Pace, moves: list[Move[str]]) -> None:
        self._obey(self.reporter.answered(pace, self.world.now))
        if moves:
            self.on_moves(moves)

    def _start(self, request: Request) -> None:
        assert self.slots.acquire(request.name)
        request.started_at = self.world.now
        self.world.settle(request, "done")
        self.world.after(request.service, self._finish, request)

    def _finish(self, request: Request) -> None:
        self.slots.release(request.name)
        self.prefetch.observe(request.service)
        self._fill()
        if request.hops:
            source, more = self.sources.pop(request.name)
            self.reporter.delegate_ended(more and self.free > 0, self.world.now)
            self.world.after(DELEGATION, source.on_ended, self, self.free > 0)
        self._changed()

    def _fill(self) -> None:
        while self.free and (waiting := self.queue.pop(self.world.now)) is not None:
            self._start(self.requests.pop(waiting.id))
            self.reporter.progressed(self.world.now)

    def _changed(self) -> None:
        queue, now = self.queue, self.world.now
        load = self.slots.running + len(queue)
        counted = (self.free, queue.movable)
        self.world.misses.change(counted[0] - self._counted[0], counted[1] - self._counted[1], now)
        self._counted = counted
        movable = self.prefetch.movable(queue.movable, self.slots.capacity)
        oldest = queue.oldest_movable_at() if movable else None
        self._obey(self.reporter.observe(self.free, movable, oldest, load, now))

    def _obey(self, decision: Decision) -> None:
        if decision.report is not None:
            refusers, self._refusers = self._refusers, []
            self.world.after(ROUTER_LATENCY, self.router.on_report, self, decision.report, refusers)
        elif decision.wake_at is not None and not self.world.now < self._wake_at <= decision.wake_at:
            self._wake_at = decision.wake_at
            self.world.after(max(0.0, decision.wake_at - self.world.now), self._tick)

    def _tick(self) -> None:
        self._wake_at = NEVER
        self._obey(self.reporter.tick(self.world.now))


class SimRouter:
    """The router actor's shell around matcher, pacer and table."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.workers: dict[str, SimWorker] = {}
        self.table: dict[str, int] = {}  # key -> capacity, of those that take requests
        self.loads: dict[str, int] = {}
        self.version = 0
        self.matcher: Matcher[str] = Matcher()
        self.answers = self.spaced = 0
        self.pacer = Pacer(world.scenario.workers, world.scenario.budget)

    def join(self, key: str) -> None:
        worker = self.workers[key] = SimWorker(key, self.world, self)
        self.table[key] = self.world.scenario.capacity
        self.version += 1
        self.matcher.join(key)
        self.world.misses.change(worker.free, 0, self.world.now)
        worker._counted = (worker.free, 0)
        worker._changed()

    def leave(self, key: str) -> None:
        del self.table[key]
        self.version += 1
        self.matcher.leave(key)
        self.workers[key].drain()

    def entries(self) -> list[tuple[str, int, int]]:
        return [(key, capacity, self.loads.get(key, 0)) for key, capacity in self.table.items()]

    def count(self, kind: str) -> None:
        self.world.messages.append((self.world.now, kind))
        self.pacer.count(self.world.now, starving=kind == "starving")

    def on_report(self, worker: SimWorker, report: Report, refusers: list[str]) -> None:
        now, matcher = self.world.now, self.matcher
        self.count("starving" if report.movable and not report.free else "dry" if report.free else "load")
        self.loads[worker.key] = report.load
        self.pacer.in_vain(len(refusers))
        for target in refusers:
            matcher.refused(worker.key, target, now)
        facts = {"arrived": report.arrived, "ordered": report.ordered, "push": self.pacer.may_push(now)}
        moves = matcher.report(worker.key, report.free, report.movable, now, **facts)
        self.pacer.moved(sum(move.count for move in moves))
        own = [move for move in moves if move.source == worker.key]
        self._send([move for move in moves if move.source != worker.key])
        pace = self.pacer.pace(now, matcher.starving, matcher.free, len(self.workers))
        self.answers += 1
        self.spaced += self.pacer.spacing > 2 * Pacer.SHORTEST
        self.world.after(ROUTER_LATENCY, worker.on_answer, pace, own)

    def on_unused(self, move: Move[str], missing: int) -> None:
        self.count("unused")
        self.pacer.in_vain(missing)
        push = self.pacer.may_push(self.world.now)
        self._send(self.matcher.unused(move.source, move.target, missing, self.world.now, push=push))

    def on_poll(self, view: RoutingView[str]) -> None:
        self.count("poll")
        if not view.update(self.version, self.entries()):
            view.publish(self.loads)
        self.world.after(POLL, self.on_poll, view)

    def _send(self, moves: list[Move[str]]) -> None:
        for move in moves:
            self.count("move")
            self.world.after(ROUTER_LATENCY, self.workers[move.source].on_moves, [move])


class Simulation:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario)
        self.router = SimRouter(self.world)
        self.requests = arrivals(scenario)
        self.ideal = ideal_waits(scenario, self.requests)
        self._rng = random.Random(scenario.seed + 1)
        self._next = 0
        for i in range(scenario.workers):
            self.router.join(f"w{i}")
        self.views = [
            RoutingView(self.router.entries(), self.router.version) for _ in range(scenario.callers)
        ]

    def run(self) -> Result:
        world, scenario = self.world, self.scenario
        for view in self.views:
            world.after(self._rng.random() * POLL, self.router.on_poll, view)
        joins_at, leaves_at = churn_times(scenario)
        if joins_at < NEVER:
            world.after(joins_at, self._join_quarter)
            world.after(leaves_at, self._leave_quarter)
        world.after(self.requests[0].arrived_at, self._arrive)
        last = self.requests[-1].arrived_at
        world.run(lambda: world.open == 0 or world.now > last + 3600)
        return self._result()

    def _arrive(self) -> None:
        request = self.requests[self._next]
        self._next += 1
        worker = self.router.workers[self.views[request.caller].choose(self._rng.random)]
        worker.arrive(request)
        if self._rng.random() < self.scenario.cancelled:
            self.world.after(0.01, worker.cancel, request)
        if self._next < len(self.requests):
            self.world.after(self.requests[self._next].arrived_at - self.world.now, self._arrive)

    def _join_quarter(self) -> None:
        for i in range(self.scenario.workers // 4):
            self.router.join(f"new{i}")

    def _leave_quarter(self) -> None:
        for i in range(self.scenario.workers // 4):
            self.router.leave(f"w{i}")

    def _result(self) -> Result:
        skipped = int(WARM_UP * self.scenario.requests)
        measured = self.requests[skipped:]
        begin, end = measured[0].arrived_at, measured[-1].arrived_at
        waits = [r.started_at - r.arrived_at for r in measured if r.started_at is not None]
        times = [(at, kind) for at, kind in self.world.messages if begin <= at < end]
        length = end - begin
        seconds = Counter(int(at - begin) for at, _ in times if at - begin < int(length))
        return Result(
            scenario=self.scenario,
            ideal=fmean(self.ideal[skipped:]),
            mean=fmean(waits),
            p99=percentile(waits, 0.99),
            messages=len(times) / length,
            peak=float(max(seconds.values(), default=0)),
            kinds={kind: n / length for kind, n in Counter(kind for _, kind in times).items()},
            refusals=self.world.refusals / self.world.now,
            delegated=fmean(r.hops for r in measured),
            capped=self.router.spaced > 0.05 * self.router.answers,
            idle_p99=percentile(self.world.misses.durations, 0.99),
            requests=self.requests,
        )


def simulate(scenario: Scenario) -> Result:
    return Simulation(scenario).run()
