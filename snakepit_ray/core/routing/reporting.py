"""When a worker reports to the router, and how often all of them may.

- A worker remembers what the router believes of it. It reports only what the router must know and does not:
  that requests wait here, or that a slot is free.
- What a worker believes of the router's belief may be wrong: a move that is cancelled on its way is seen by
  nobody. So who still starves says so again, seldom, and the router looks again.
- Haste is damped by patience, by one report in flight at a time, and by the spacing in the router's last
  answer. Requests that are served quickly never get as far as a report.
- All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

PATIENCE = 0.003  # a request that waited this long at a worker that starts nothing starves
LONG_PATIENCE = 0.015  # and so does one that waited this long at a worker that starts one after the other
DRY_PATIENCE = 0.002  # a slot that was free this long, with nothing waiting, is dry
BUDGET = 800.0  # messages a second that the router aims at, to stay under 1,000 with its lag
FRESH = 0.1  # seconds that a free slot is believed while requests starve; in quiet, as long as that lasts
STOCK = 16  # the router wants to know of a free slot for each so many workers
AGAIN = 1.0  # seconds after which who still starves says so again
CHAIN_PATIENCE = 0.006  # a source with more to delegate answers the end of a delegate within 2 x 2.5 ms
LOAD_PATIENCE = 0.25  # seconds that a change of the load must last
ALONE = (
    0.25  # seconds between the reports of a worker that has nobody to match with, as long as it has nobody
)
LOAD_CHANGE = 2  # requests: a smaller change of the load, or one by less than half, is not worth a message


class Pace(NamedTuple):
    """The router's answer to a report: the least spacing, in seconds, of the next ones by their reason."""

    starving: float = 0.005
    dry: float = 0.05
    fresh: float = 1.0  # how long the router relies on a free slot that it was told of
    load: float = 1.0
    sated: float = 0.005  # for telling that nobody waits any more, so that no move comes in vain
    repeat: bool = False  # who starves shall say so again: moves come in answers only
    urgent: bool = False  # requests starve: a dry worker need not wait for DRY_PATIENCE


class Report(NamedTuple):
    """What a worker tells the router."""

    free: int  # slots
    movable: int  # waiting requests that may be delegated
    load: int  # running + waiting
    arrived: int  # delegates that reached the worker so far, refused ones too
    ordered: int  # requests that the worker was told to move so far


class Decision(NamedTuple):
    """`report`: to send now, or None. `wake_at`: when to call `tick` again, or None: at the next event."""

    report: Report | None
    wake_at: float | None


class Reporter:
    """The worker's side. Call `observe` when facts change, `tick` when its time has come."""

    def __init__(self, now: float = 0.0, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._free = self._movable = self._load = 0
        self._oldest_at: float | None = None
        self._free_since: float | None = None  # with nothing waiting
        self._told_free = self._told_movable = self._told_load = 0  # what the router believes
        self._sent_at = now - 3600.0
        self._arrived = self._ordered = 0
        self._chained_until = 0.0
        self._progressed_at = now - 3600.0
        self._load_changed_at: float | None = None  # differs from what was told since then
        self._in_flight = False
        self._refreshable = False  # became free again since the router was told

    def __repr__(self) -> str:
        told = f"told {self._told_free}, {self._told_movable}"
        return f"<Reporter {self._free} free, {self._movable} movable; {told}>"

    def observe(
        self, free: int, movable: int, oldest_movable_at: float | None, load: int, now: float
    ) -> Decision:
        """The facts as they are now: free slots, movable requests waiting, since when, running + waiting."""
        self._free, self._movable, self._oldest_at, self._load = free, movable, oldest_movable_at, load
        if abs(load - self._told_load) < max(LOAD_CHANGE, self._told_load // 2):
            self._load_changed_at = None
        elif self._load_changed_at is None:
            self._load_changed_at = now
        if free == 0 or movable > 0:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
            self._refreshable = True
        return self.tick(now)

    def tick(self, now: float) -> Decision:
        """Whether to report now, and when to ask again."""
        due = self._due()
        if due is None or self._in_flight:
            return Decision(None, None)
        if due > now:
            return Decision(None, due)
        return Decision(self._report(now), None)

    def answered(self, pace: Pace | None, now: float) -> Decision:
        """The report in flight was answered, or did not count (None): the next one may go."""
        self._in_flight = False
        if pace is None:
            self._told_free = self._told_movable = 0
        else:
            self.pace = pace
        return self.tick(now)

    def progressed(self, now: float) -> None:
        """A waiting request started here: the others come nearer without anybody's help.

        Where services are as short as a message, helping costs more than it gains.
        """
        self._progressed_at = now

    def moved(self, ordered: int, taken: int) -> None:
        """The router told this worker to move `ordered` requests; `taken` were there and are under way."""
        self._ordered += ordered
        self._told_movable = max(0, self._told_movable - ordered) if taken == ordered else 0

    def delegate_arrived(self, accepted: bool, *, chained: bool = False) -> None:
        """Another worker delegated to this one; a refusal means to the router that nothing is free here.

        Chained delegates are the source's own idea: the router neither counts nor learns of them.
        """
        if chained:
            return
        self._arrived += 1
        self._told_free = max(0, self._told_free - 1) if accepted else 0

    def delegate_ended(self, more: bool, now: float) -> None:
        """A delegate ended here; `more`: its source may send the next at once, so a dry report can wait."""
        if more:
            self._chained_until = now + CHAIN_PATIENCE

    def _due(self) -> float | None:
        times = [self._load_due()]
        if self._movable > 0 and self._free == 0:
            times.append(self._starving_due())
        elif self._free_since is not None:
            times.append(self._dry_due())
        elif self._told_movable > 0 and self._movable == 0:
            times.append(self._sent_at + self.pace.sated)
        return min((time for time in times if time is not None), default=None)

    def _starving_due(self) -> float | None:
        if self._oldest_at is None:
            return None
        known = 0 < self._told_movable > self._movable / 2
        if known and not self.pace.repeat:
            return self._sent_at + max(AGAIN, self.pace.load)
        stuck_at = max(self._oldest_at, self._progressed_at) + PATIENCE
        return max(min(stuck_at, self._oldest_at + LONG_PATIENCE), self._sent_at + self.pace.starving)

    def _dry_due(self) -> float | None:
        assert self._free_since is not None
        patience = 0.0 if self.pace.urgent else DRY_PATIENCE
        ripe_at = max(self._free_since + patience, self._chained_until)
        if self._told_free <= 0:
            return max(ripe_at, self._sent_at + self.pace.dry)
        return max(ripe_at, self._sent_at + self.pace.fresh) if self._refreshable else None

    def _load_due(self) -> float | None:
        if self._load_changed_at is None:
            return None
        return max(self._load_changed_at + LOAD_PATIENCE, self._sent_at + self.pace.load)

    def _report(self, now: float) -> Report:
        self._told_free, self._told_movable, self._told_load = self._free, self._movable, self._load
        self._sent_at = now
        self._load_changed_at = None
        self._in_flight = True
        self._refreshable = False
        return Report(self._free, self._movable, self._load, self._arrived, self._ordered)


class Pacer:
    """The router's side: keeps all its messages under `budget` a second by spacing the reports.

    The rate is an exponentially weighted average over RATE_WINDOW; the spacing follows it
    multiplicatively, which settles whatever the number of workers and however many of them have something
    to say.
    """

    RATE_WINDOW = 0.25
    STEP = 0.05  # seconds between two corrections
    RISE = 1.25
    FALL = 0.95  # slower than the spacing itself, or the rate swings
    SHORTEST = 0.005
    LONGEST = 5.0
    PUSHING = 0.1  # seconds of spacing above which an answer is the cheaper way for a move
    MEMORY = 0.98  # of the share of moves in vain, a move
    TOLERATED = 0.3  # share of moves in vain that is the price of haste (moves count too: at most 0.5)
    DAMPING = 200.0  # how much longer the shortest spacing gets for each whole of that share above it

    def __init__(self, workers: int, budget: float = BUDGET, now: float = 0.0) -> None:
        self.budget = budget
        self.spacing = max(self.SHORTEST, workers / budget)  # the worst case, until the rate is known
        self._rate = 0.0
        self._at = now
        self._corrected_at = self._starved_at = now
        self._vain = 0.0

    def count(self, now: float, messages: int = 1, *, starving: bool = False) -> None:
        """Messages passed the router: reports, polls, moves; `starving`: a report of waiting requests."""
        if starving:
            self._starved_at = now
        self._rate = self._decayed(now) + messages / self.RATE_WINDOW
        self._at = now
        if now - self._corrected_at >= self.STEP:
            self._corrected_at = now
            factor = min(self.RISE, max(self.FALL, self._rate / self.budget))
            self.spacing = min(self.LONGEST, max(self.SHORTEST, self.spacing * factor))

    def moved(self, count: int) -> None:
        """So many requests were told to move."""
        self._vain *= self.MEMORY**count

    def in_vain(self, count: int) -> None:
        """So many moves found nothing to move, or no free slot: the facts change faster than messages travel.

        Then messages only cost (services shorter than a message, or a machine without a processor to spare),
        so the workers get more patience."""
        self._vain = 1 - (1 - self._vain) * self.MEMORY**count

    @property
    def vain(self) -> float:
        """The share of late moves that were in vain."""
        return self._vain

    def rate(self, now: float) -> float:
        """Messages a second lately."""
        return self._decayed(now)

    def may_push(self, now: float) -> bool:
        """Whether moves may be messages of their own; else they wait for their source's next report."""
        return self.spacing <= self.PUSHING and self._decayed(now) < self.budget

    def pace(self, now: float, starving: int, free: int, workers: int) -> Pace:
        """The answer to a report, given the waiting requests and the free slots that the router knows of."""
        if workers < 2:
            return Pace(starving=ALONE, dry=ALONE, fresh=self.LONGEST, load=1.0, sated=ALONE)
        least = self.SHORTEST * (1 + self.DAMPING * max(0.0, self._vain - self.TOLERATED))
        spacing = max(self.spacing, least)
        stocked = free > starving + workers // STOCK
        return Pace(
            starving=spacing,
            dry=(4 if stocked else 0.5) * spacing,
            fresh=max(FRESH, 4 * spacing, min(self.LONGEST, now - self._starved_at)),
            load=max(1.0, workers / 200.0),
            sated=spacing if spacing <= self.SHORTEST else self.LONGEST,
            repeat=not self.may_push(now),
            urgent=starving > free,
        )

    def _decayed(self, now: float) -> float:
        return self._rate * exp((self._at - now) / self.RATE_WINDOW)
