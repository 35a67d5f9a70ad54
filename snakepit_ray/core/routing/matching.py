"""Matches workers whose requests wait with workers that have a free slot: the router's side of rebalancing.

- A free slot is given away once.
- A report replaces what was believed of its worker, less the moves that the worker had not seen by then.
  Both sides count moves, so no clock is guessed.
- The worker that starved first is served first. The slot that was reported last is used first, because it is
  the most probably still free.
- Being wrong is cheap: the target refuses, and the request returns to its place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

LOST = 1.0  # seconds after which a move that nobody saw is written off (its source or its message died)


@dataclass(frozen=True, slots=True)
class Move(Generic[K]):
    """`source` delegates up to `count` of its oldest movable requests to `target`, only if free there."""

    source: K
    target: K
    count: int


class Rebalancer(Protocol[K]):
    """What the router asks of a policy.

    The place for work stealing, the policy for pools that need more than about 1,000 messages a second:
    it would answer a report of a free worker with moves from a few random workers to it (a probe is a
    move that may find nothing), remember nothing, and so be able to run inside each worker over a sample
    of the table.
    """

    def join(self, key: K) -> None: ...
    def leave(self, key: K) -> None: ...
    def report(
        self,
        key: K,
        free: int,
        waiting_movable: int,
        now: float,
        *,
        arrived: int,
        ordered: int,
        push: bool = True,
    ) -> list[Move[K]]: ...
    def refused(self, source: K, target: K, now: float) -> None: ...
    def unused(self, source: K, target: K, count: int, now: float, *, push: bool = True) -> list[Move[K]]: ...


class _Tally:
    """Something a worker reported, less what the router took of it since.

    `given` counts what the router gave away in total, `seen` what the worker had seen of it at its last
    report, `lost` what nobody will ever see.
    """

    __slots__ = ("given", "lost", "reported", "seen")

    def __init__(self) -> None:
        self.reported = self.given = self.seen = self.lost = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.given - self.seen - self.lost)

    @property
    def left(self) -> int:
        return max(0, self.reported - self.outstanding)

    def report(self, amount: int, seen: int) -> None:
        self.reported, self.seen = amount, seen
        self.lost = max(0, min(self.lost, self.given - seen))  # what was late only is not lost

    def write_off(self, given: int) -> None:
        """Whatever was given up to this total and is not seen by now never will be."""
        self.lost = max(self.lost, given - self.seen)


class _Worker:
    """What the router believes of one worker."""

    __slots__ = ("free", "member", "waiting")

    def __init__(self) -> None:
        self.free = _Tally()
        self.waiting = _Tally()
        self.member = True  # takes requests


class Matcher(Generic[K]):
    """Matches at once when either side appears; O(1) amortised a report and a move."""

    def __init__(self) -> None:
        self._workers: dict[K, _Worker] = {}
        self._starving: OrderedDict[K, int] = OrderedDict()  # waiting requests, longest starving first
        self._free: OrderedDict[K, int] = OrderedDict()  # slots, last reported last
        self._given: deque[tuple[float, K, _Tally, int]] = deque()  # (written off at, worker, tally, given)
        self.starving = 0  # waiting requests that are known
        self.free = 0  # free slots that are known

    def __repr__(self) -> str:
        return f"<Matcher {len(self._workers)} workers, {self.starving} starving, {self.free} free>"

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, key: object) -> bool:
        return key in self._workers

    def join(self, key: K) -> None:
        """A worker that takes requests; also one that comes back with all its counts at 0."""
        self.gone(key)
        self._workers[key] = _Worker()

    def leave(self, key: K) -> None:
        """The worker takes nothing more; its reports of waiting requests still count, for it drains."""
        if key in self._workers:
            self._workers[key].member = False
            self._refresh(key)

    def gone(self, key: K) -> None:
        """The worker does not exist any more."""
        if self._workers.pop(key, None) is not None:
            self.free -= self._free.pop(key, 0)
            self.starving -= self._starving.pop(key, 0)

    def report(
        self,
        key: K,
        free: int,
        waiting_movable: int,
        now: float,
        *,
        arrived: int,
        ordered: int,
        push: bool = True,
    ) -> list[Move[K]]:
        """A worker's facts; the moves that they allow, at most one for each pair of workers.

        `arrived`: delegates that reached it so far, refused ones too; `ordered`: requests that it was
        told to move so far. Both since it joined. The reports of workers that are unknown count for
        nothing. Without `push` only moves from `key` itself are made: they travel in the answer, without
        a message.
        """
        worker = self._workers.get(key)
        if worker is None:
            return []
        self._write_off(now)
        worker.free.report(free, arrived)
        worker.waiting.report(waiting_movable, ordered)
        self._refresh(key)
        if key in self._free:
            self._free.move_to_end(key)
        return self._match(now) if push else self._serve(key, now)

    def refused(self, source: K, target: K, now: float) -> None:
        """The target was busy: it is not free until it says so. The source reports its waiter again.

        A report of the target that came after it refused knows better than the refusal.
        """
        worker = self._workers.get(target)
        if worker is not None and worker.free.outstanding:
            worker.free.reported = 0
            self._refresh(target)

    def unused(self, source: K, target: K, count: int, now: float, *, push: bool = True) -> list[Move[K]]:
        """The source had `count` requests fewer than it was told to move: the target is free still."""
        if source in self._workers:
            self._workers[source].waiting.reported = 0
            self._refresh(source)
        if target in self._workers:
            tally = self._workers[target].free
            tally.given = max(tally.seen, tally.given - count)
            self._refresh(target)
        return self._match(now) if push else []

    def _match(self, now: float) -> list[Move[K]]:
        moves: list[Move[K]] = []
        while self._starving and self._free:
            moves += self._serve(next(iter(self._starving)), now)
        return moves

    def _serve(self, source: K, now: float) -> list[Move[K]]:
        """Give one source all the slots that it needs, or that there are."""
        moves: list[Move[K]] = []
        while self._free and (waiting := self._starving.get(source, 0)):
            target, free = next(reversed(self._free.items()))
            move = Move(source, target, min(waiting, free))
            self._give(source, self._workers[source].waiting, move.count, now)
            self._give(target, self._workers[target].free, move.count, now)
            moves.append(move)
        return moves

    def _give(self, key: K, tally: _Tally, count: int, now: float) -> None:
        tally.given += count
        self._given.append((now + LOST, key, tally, tally.given))
        self._refresh(key)

    def _write_off(self, now: float) -> None:
        while self._given and self._given[0][0] <= now:
            _, key, tally, given = self._given.popleft()
            worker = self._workers.get(key)
            if worker is not None and tally.outstanding and tally in (worker.free, worker.waiting):
                tally.write_off(given)
                self._refresh(key)

    def _refresh(self, key: K) -> None:
        """Bring both lists up to date with one worker; who is listed keeps its place."""
        worker = self._workers[key]
        free = worker.free.left if worker.member else 0
        self.free += _put(self._free, key, free)
        self.starving += _put(self._starving, key, worker.waiting.left)


def _put(counts: OrderedDict[K, int], key: K, count: int) -> int:
    """Set or drop a count; returns the change."""
    before = counts.get(key, 0)
    if count:
        counts[key] = count
    elif before:
        del counts[key]
    return count - before
