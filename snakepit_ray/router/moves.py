"""Which waiter goes to which free slot: what workers report, and what they are told to move.

- core/routing/matching.py decides who moves where, core/routing/reporting.py how soon a worker reports again.
- A worker hears its own moves with the answer to its report. Others get a message of their own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from snakepit_ray.core.routing.matching import Matcher, Move
from snakepit_ray.core.routing.reporting import Pace, Pacer, Report
from snakepit_ray.port.messages import MoveOrder, ReportAnswer, Room
from snakepit_ray.router.members import Members
from snakepit_ray.router.updates import Updates


class Moves:
    """The moves of one pool. `generation`: of the router; `calls` counts the messages that it sends."""

    def __init__(
        self,
        members: Members,
        matcher: Matcher[str],
        updates: Updates,
        generation: int,
        calls: Counter[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = members
        self._matcher = matcher
        self._updates = updates
        self._generation = generation
        self._calls = calls
        self._clock = clock
        self._pacer = Pacer(max(1, members.size), now=clock())

    def count_message(self) -> None:
        """The router answers a message that is no report: it has less time for reports."""
        self._pacer.count(self._clock())

    def report(self, worker_id: str, report: Report, refusers: list[str]) -> ReportAnswer:
        """A worker's load, and who refused what it was told to move; the answer says what to move and how
        soon to report again."""
        now = self._clock()
        self._pacer.count(now, starving=bool(report.movable and not report.free))
        member = self._members.by_id.get(worker_id)
        if member is None or worker_id not in self._matcher:
            # Its start was quicker than the word of it. Nothing that it says counts yet, and a free slot that
            # nobody knew of would stand beside waiting requests for ever.
            again = None if report.free else self._pace(now)
            return ReportAnswer(again, [], self._generation)
        if report.load != member.load:
            self._members.set_load(member, report.load)
            self._updates.something_changed()
        self._pacer.in_vain(len(refusers))
        for target in refusers:
            self._matcher.refused(worker_id, target, now)
        moves = self._match(worker_id, report, now)
        self._send([move for move in moves if move.source != worker_id])
        own = [self._order(move) for move in moves if move.source == worker_id]
        return ReportAnswer(self._pace(now), [order for order in own if order is not None], self._generation)

    def unused(self, source: str, target: str, count: int) -> None:
        """A worker had `count` waiting requests fewer than it was told to move to `target`."""
        now = self._clock()
        self._pacer.in_vain(count)
        self._pacer.count(now)
        self._send(self._matcher.unused(source, target, count, now, push=self._pacer.may_push(now)))

    def room(self, worker_id: str) -> Room:
        """The least loaded other worker."""
        ready = self._members.ready()
        available = sum(member.load < self._members.capacity for member in ready)
        busy = sum(member.load > 0 for member in ready)
        others = [member for member in ready if member.worker_id != worker_id]
        if not others:
            return Room(None, available, busy)
        best = min(others, key=lambda member: member.load)
        self._members.set_load(best, best.load + 1)
        return Room(MoveOrder(best.worker_id, best.actor, 1, best.lane), available, busy)

    def _match(self, worker_id: str, report: Report, now: float) -> list[Move[str]]:
        moves = self._matcher.report(
            worker_id,
            report.free,
            report.movable,
            now,
            arrived=report.arrived,
            ordered=report.ordered,
            push=self._pacer.may_push(now),
        )
        self._pacer.moved(sum(move.count for move in moves))
        return moves

    def _send(self, moves: list[Move[str]]) -> None:
        """Tells sources to move; each counts its orders, so none is lost silently."""
        for move in moves:
            source, order = self._members.by_id.get(move.source), self._order(move)
            if source is not None and order is not None:
                self._calls["move"] += 1
                self._pacer.count(self._clock())
                source.actor.move.remote(order)

    def _order(self, move: Move[str]) -> MoveOrder | None:
        target = self._members.by_id.get(move.target)
        return None if target is None else MoveOrder(move.target, target.actor, move.count, target.lane)

    def _pace(self, now: float) -> Pace:
        matcher = self._matcher
        workers = max(len(matcher), self._members.size)  # while a pool starts, the others are about to join
        return self._pacer.pace(now, matcher.starving, matcher.free, workers)
