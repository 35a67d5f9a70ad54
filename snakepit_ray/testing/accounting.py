"""How a storm is accounted for: each request's outcome against the witness's word on what ran.

- Pure: outcomes and the witness's word in, the account out.
- A request has exactly one outcome or is lost.
- What the callers were told is never taken for what was executed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from snakepit_ray.errors import NotNow, WorkerCrashed
from snakepit_ray.testing.plan import Target
from snakepit_ray.testing.witness import Witnessed


class Outcome(NamedTuple):
    """What one request came to: `answer` is the tag in its answer, `error` what it raised; neither: nothing
    came in time."""

    tag: str
    seconds: float
    answer: str | None = None
    error: BaseException | None = None


class Killed(NamedTuple):
    """One process that the storm killed. `token`: its interpreter's, "" for the router; `at`: seconds from
    the beginning to just before it."""

    target: Target
    pid: int
    token: str
    at: float


@dataclass(frozen=True)
class Aftermath:
    """What was there when the storm was over: `ready` workers of `size`, `recovery_s` seconds after the last
    request, `left` in words what was left behind (after the pool's end, if it was ended)."""

    size: int
    ready: int
    recovery_s: float
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class StormResult:
    """One storm, accounted for.

    `duplicated`: answers that came again; `misplaced`: answers of another request; `ran_again`: requests that
    ran more than once; `denied`: those that ran though their error says that they did not, and answers that
    nobody wrote down; `running_when_killed`: requests begun in what was killed and not ended by then (an
    interpreter outlives its actor for a moment: nobody hears of what it ends in that). Failures are of
    requests that had begun in something that was killed, of `unbegun` ones that a crash took before the
    interpreter's first line, or `unexplained`."""

    seed: int
    idempotent: bool
    seconds: float
    sent: int
    answered: int
    failed: Mapping[str, int]
    lost: int
    duplicated: int
    misplaced: int
    ran_never: int
    ran_once: int
    ran_again: int
    denied: int
    kills: Mapping[str, int]
    missed: int
    running_when_killed: int
    unbegun: int
    unexplained: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    aftermath: Aftermath
    examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """Requests that ended with an error."""
        return sum(self.failed.values())

    @property
    def wrong(self) -> tuple[str, ...]:
        """What no storm may do to a pool, in words. Empty: it held."""
        after = self.aftermath
        rules = (
            (self.lost, "requests without an outcome"),
            (self.duplicated + self.misplaced, "answers that came twice or to another request"),
            (0 if self.idempotent else self.ran_again, "requests that are not idempotent ran more than once"),
            (self.denied, "requests whose outcome contradicts what ran"),
            (after.size - after.ready, "workers did not come back"),
            (len(after.left), "left behind"),
        )
        return tuple(f"{number} {words}" for number, words in rules if number)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {**asdict(self), "failures": self.failures, "wrong": list(self.wrong)}

    def report(self) -> str:
        """A table for people."""
        after = self.aftermath
        kinds = ", ".join(f"{count} {name}" for name, count in self.failed.items()) or "none"
        kills = ", ".join(f"{count} x {name}" for name, count in self.kills.items()) or "none"
        rows = [
            ("killed", kills + (f" ({self.missed} strikes found nothing)" if self.missed else "")),
            ("sent", f"{self.sent} in {self.seconds:.1f} s, seed {self.seed}"),
            ("answered", f"{self.answered}"),
            ("failed", f"{self.failures}: {kinds}" if self.failures else "0"),
            ("lost", f"{self.lost}"),
            ("duplicated", f"{self.duplicated} came twice, {self.misplaced} came to another request"),
            ("ran", f"{self.ran_once} once, {self.ran_again} more than once, {self.ran_never} never"),
            ("running when killed", f"{self.running_when_killed}"),
            ("failures", f"{self.unbegun} crashed before they began, {self.unexplained} in nothing killed"),
            ("denied", f"{self.denied} outcomes contradict what ran"),
            ("latency", f"p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms, longest {self.max_ms:.0f} ms"),
            ("workers", f"{after.ready} of {after.size}, {after.recovery_s:.1f} s after the last outcome"),
            ("left behind", f"{len(after.left)}" + "".join(f"\n{'':21}{words}" for words in after.left)),
        ]
        lines = [f"{name:<20} {text}" for name, text in rows]
        lines += [f"  {name}: {text}" for name, text in self.examples.items()]
        return "\n".join([*lines, f"{'verdict':<20} {'; '.join(self.wrong) or 'it held'}"])


@dataclass(frozen=True)
class Storming:
    """What a storm brought home. `outcomes` has one entry for each request that was sent; `missed`: strikes
    that found nothing alive; `began`: of time.monotonic."""

    seed: int
    idempotent: bool
    seconds: float
    outcomes: Sequence[Outcome]
    killed: Sequence[Killed]
    missed: int
    began: float


def account(storm: Storming, seen: Witnessed, after: Aftermath) -> StormResult:
    """The storm's result."""
    outcomes = storm.outcomes
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    answers = Counter(outcome.answer for outcome in outcomes if outcome.answer is not None)
    runs = [len(seen.begun.get(outcome.tag, ())) for outcome in outcomes]
    tokens = {killed.token for killed in storm.killed if killed.token}
    mine = {outcome.tag for outcome in outcomes}
    times = sorted(outcome.seconds * 1e3 for outcome in outcomes) or [0.0]
    return StormResult(
        seed=storm.seed,
        idempotent=storm.idempotent,
        seconds=storm.seconds,
        sent=len(outcomes),
        answered=sum(answers.values()),
        failed=dict(Counter(_name(outcome.error) for outcome in failed).most_common()),
        lost=sum(outcome.answer is None and outcome.error is None for outcome in outcomes),
        duplicated=sum(count - 1 for count in answers.values()),
        misplaced=sum(outcome.answer not in (None, outcome.tag) for outcome in outcomes),
        ran_never=runs.count(0),
        ran_once=runs.count(1),
        ran_again=sum(count > 1 for count in runs),
        denied=sum(_contradicts(outcome, seen) for outcome in outcomes),
        kills=dict(Counter(killed.target.value for killed in storm.killed)),
        missed=storm.missed,
        running_when_killed=len(mine & set(_running(storm, seen))),
        unbegun=sum(_unbegun(outcome, seen) for outcome in failed),
        unexplained=sum(not (_unbegun(o, seen) or tokens & set(seen.begun.get(o.tag, ()))) for o in failed),
        p50_ms=times[len(times) // 2],
        p99_ms=times[int(len(times) * 0.99)],
        max_ms=times[-1],
        aftermath=after,
        examples={_name(outcome.error): str(outcome.error)[:300] for outcome in reversed(failed)},
    )


def _running(storm: Storming, seen: Witnessed) -> Iterator[str]:
    for killed in storm.killed:
        if killed.token:
            yield from seen.unfinished(killed.token, storm.began + killed.at)


def _name(error: BaseException | None) -> str:
    return type(error).__name__


def _contradicts(outcome: Outcome, seen: Witnessed) -> bool:
    """An error that says that nothing was executed where something was, or an answer that nobody wrote."""
    ran = outcome.tag in seen.begun
    if outcome.answer is not None:
        return not ran
    refused = isinstance(outcome.error, NotNow)
    return ran and (refused or getattr(outcome.error, "may_have_started", None) is False)


def _unbegun(outcome: Outcome, seen: Witnessed) -> bool:
    """Whether a crash took a request that no interpreter had begun: on its way into one, or waiting."""
    return outcome.tag not in seen.begun and isinstance(outcome.error, WorkerCrashed)
