"""How a storm is accounted for, from made-up outcomes and logs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snakepit_ray.errors import QueueTimeout, WorkerCrashed
from snakepit_ray.testing.accounting import Aftermath, Killed, Outcome, Storming, StormResult, account
from snakepit_ray.testing.plan import Target
from snakepit_ray.testing.witness import Incarnation, read

CRASHED = WorkerCrashed("killed", may_have_started=True)
NEVER_STARTED = WorkerCrashed("killed", may_have_started=False)
LATE = QueueTimeout("too late")
FULL = Aftermath(size=2, ready=2, recovery_s=0.1)


def result(
    outcomes: list[Outcome],
    log: str,
    *,
    killed: str = "",
    idempotent: bool = True,
    after: Aftermath = FULL,
) -> StormResult:
    """Of a storm that killed the interpreters whose tokens are in `killed`."""
    strikes = [Killed(Target.INTERPRETER, 1, token, 0.5) for token in killed.split()]
    return account(
        Storming(7, idempotent, 2.0, outcomes, strikes, missed=0, began=100.0), read(log.splitlines()), after
    )


def answered(*tags: str) -> list[Outcome]:
    return [Outcome(tag, 0.01, answer=tag) for tag in tags]


def logged(*tags: str, token: str = "A", at: float = 100.2) -> str:
    return "".join(f"begin {tag} {token}\nend {tag} {token} {at}\n" for tag in tags)


def test_the_log() -> None:
    log = ["up A 10 9", "begin t A", "begin u A", "end t A 3.5", "nonsense", "", "up B x", "begin v"]
    seen = read([*log, "end u A", "end u A x"])
    assert seen.incarnations == {"A": Incarnation("A", 10, 9)}
    assert (seen.begun, seen.ended) == ({"t": ["A"], "u": ["A"]}, {"t": [("A", 3.5)]})
    assert (seen.unfinished("A"), seen.unfinished("B")) == (["u"], [])
    assert (seen.unfinished("A", 3.4), seen.unfinished("A", 3.5)) == (["t", "u"], ["u"])


def test_a_quiet_storm_held() -> None:
    quiet = result(answered("a", "b"), logged("a", "b"))
    assert (quiet.sent, quiet.answered, quiet.failures, quiet.lost, quiet.ran_once) == (2, 2, 0, 0, 2)
    assert quiet.wrong == ()
    assert "it held" in quiet.report()


def test_a_retried_request_ran_again_and_that_is_wrong_only_where_it_must_not() -> None:
    log = "begin a A\n" + logged("a", token="B")
    retried = result(answered("a"), log, killed="A")
    assert (retried.ran_again, retried.running_when_killed, retried.wrong) == (1, 1, ())
    twice = result(answered("a"), log, killed="A", idempotent=False)
    assert twice.wrong == ("1 requests that are not idempotent ran more than once",)


def test_a_failure_in_what_was_killed_is_explained() -> None:
    running = Outcome("a", 0.1, error=CRASHED)
    on_its_way = Outcome("b", 0.1, error=CRASHED)
    answer_not_sent = Outcome("c", 0.1, error=CRASHED)
    ended_unheard = Outcome("d", 0.1, error=CRASHED)  # its actor had been killed 0.1 s before
    log = "begin a A\n" + logged("c") + logged("d", at=100.6)
    outcomes = [running, on_its_way, answer_not_sent, ended_unheard]
    storm = result(outcomes, log, killed="A", idempotent=False)
    assert (storm.failed, storm.running_when_killed) == ({"WorkerCrashed": 4}, 2)
    assert (storm.unbegun, storm.unexplained, storm.wrong) == (1, 0, ())


@pytest.mark.parametrize(
    ("error", "log"),
    [(LATE, ""), (CRASHED, logged("a", token="B")), (ValueError("what"), "")],
    ids=["waited", "ran elsewhere", "another error"],
)
def test_a_failure_elsewhere_is_not(error: Exception, log: str) -> None:
    storm = result([Outcome("a", 0.1, error=error)], log, killed="A")
    assert storm.unexplained == 1
    assert storm.examples == {type(error).__name__: str(error)}


@pytest.mark.parametrize(
    ("outcome", "log"),
    [
        (Outcome("a", 0.1, error=LATE), logged("a")),
        (Outcome("a", 0.1, error=NEVER_STARTED), "begin a A\n"),
        (Outcome("a", 0.1, answer="a"), ""),
    ],
    ids=["timed out and ran", "said that it never started", "an answer from nowhere"],
)
def test_outcomes_that_contradict_the_witness(outcome: Outcome, log: str) -> None:
    assert result([outcome], log, killed="A").wrong == ("1 requests whose outcome contradicts what ran",)


def test_lost_duplicated_misplaced_missing_left() -> None:
    outcomes = [*answered("a"), Outcome("b", 0.1, answer="a"), Outcome("c", 40.0)]
    after = Aftermath(size=8, ready=7, recovery_s=60.0, left=("interpreter 12",))
    storm = result(outcomes, logged("a", "b", "c"), after=after)
    assert (storm.lost, storm.duplicated, storm.misplaced) == (1, 1, 1)
    assert storm.wrong == (
        "1 requests without an outcome",
        "2 answers that came twice or to another request",
        "1 workers did not come back",
        "1 left behind",
    )
    assert "interpreter 12" in storm.report()


def test_other_storms_in_the_same_log_do_not_count() -> None:
    storm = result(answered("a"), logged("a", "other") + "begin other2 A\n", killed="A")
    assert (storm.ran_once, storm.running_when_killed) == (1, 0)


def test_as_dict_is_json() -> None:
    outcomes = [*answered("a"), Outcome("b", 0.1, error=CRASHED)]
    told: dict[str, Any] = json.loads(json.dumps(result(outcomes, logged("a"), killed="A").as_dict()))
    assert (told["sent"], told["failed"], told["kills"]) == (2, {"WorkerCrashed": 1}, {"interpreter": 1})
    assert told["aftermath"]["size"] == 2


def test_an_empty_storm() -> None:
    assert result([], "").report()
