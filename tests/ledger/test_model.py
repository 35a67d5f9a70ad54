"""Whatever happens to requests, and at whatever store the process is killed, the ledger tells the truth."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.ledger import ALL, NOT_BEGUN, UNKNOWN, Begun, Ended, Entry, Ledger, State, layout
from snakepit_ray.ledger.layout import ENTRY_BYTES, TABLE
from snakepit_ray.ledger.ledger import EARLIER_SECONDS, LINGER_SECONDS

ENTRIES = 16  # of a new file: it grows soon


class Killed(BaseException):
    """The process was killed at this store."""


class Fragile:
    """Memory of a process that is killed at one of its next stores: bytes arrive in part, a word does not."""

    def __init__(self, memory: Any, before_each: Callable[[], None]) -> None:
        self._memory = memory
        self._before_each = before_each

    def __getitem__(self, at: Any) -> Any:
        return self._memory[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        try:
            self._before_each()
        except Killed:
            if isinstance(at, slice):
                half = len(value) // 2
                self._memory[at.start : at.start + half] = value[:half]
            raise
        self._memory[at] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def __len__(self) -> int:
        return len(self._memory)


@dataclass(frozen=True)
class Fate:
    """What is true of one request."""

    begun: int = 0
    outcome: bytes | None = None
    former: tuple[bytes, ...] = ()  # what it came to before it began again: as good an answer
    kept_until: float = float("inf")

    def fits(self, state: State, now: float) -> bool:
        if not self.begun:
            return state in (UNKNOWN, NOT_BEGUN)
        if now >= self.kept_until and not isinstance(state, Ended):
            return True  # forgotten, or what an earlier process left of it is there still
        if isinstance(state, Ended) and state.outcome in self.former:
            return True
        if self.outcome is not None:
            return state == Ended(self.outcome)
        return isinstance(state, Begun) and state.calls in (self.begun, ALL)


@dataclass
class Served:
    """A request that this process serves."""

    entry: Entry
    inside: bool = False
    over: bool = False
    words: set[int] = field(default_factory=set)


ids = st.sampled_from(["a-1", "a-2", "b-1/0.0+7", "c" * 60, "é-3"])
outcomes = st.none() | st.binary(max_size=40)


class Life(RuleBasedStateMachine):
    """Requests begin, are moved, refused and ended, interpreters store, the worker dies and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(layout, "FIRST_BYTES", TABLE + ENTRIES * ENTRY_BYTES)
        self.now = 0.0
        self.killed_in = -1  # stores
        self.fates: dict[str, Fate] = {}
        self.served: dict[str, Served] = {}
        self.many = 0
        self.open()

    def open(self) -> None:
        self.ledger = Ledger.open("w-0", self.base, lambda: self.now)
        assert not self.ledger.damaged
        self.watch()
        grow = self.ledger._grow
        self.ledger._grow = lambda: (grow(), self.watch(True))  # type: ignore[method-assign,assignment]

    def watch(self, grown: bool = False) -> None:
        ledger: Any = self.ledger
        ledger.words, ledger._table = Fragile(ledger.words, self.count), Fragile(ledger._table, self.count)
        if not grown:
            ledger._map = ledger.outcomes._content = ledger._table

    def count(self) -> None:
        if self.killed_in == 0:
            raise Killed
        self.killed_in -= 1

    def do(self, one: str, step: Callable[[], Any], after: Fate, killed_in: int | None) -> bool:
        """Does the step, in which the process may be killed; whether it lives."""
        before = self.fates.get(one, Fate())
        self.fates[one] = after
        self.killed_in = -1 if killed_in is None else killed_in
        try:
            step()
        except Killed:
            self.return_after_death()
            state = self.ledger.recall(one)
            fits = [fate for fate in (after, before) if fate.fits(state, self.now)]
            assert fits, f"{state} is neither {before} nor {after}"
            known = Fate() if state is UNKNOWN else fits[0]
            self.fates[one] = replace(known, kept_until=self.now + EARLIER_SECONDS)
            return False
        finally:
            self.killed_in = -1
        return True

    def return_after_death(self) -> None:
        self.killed_in = -1
        self.ledger.close()
        self.served.clear()
        for one, fate in self.fates.items():
            if self.now < fate.kept_until:
                self.fates[one] = replace(fate, kept_until=self.now + EARLIER_SECONDS)
        self.open()

    # ---- requests ------------------------------------------------------------------------------------------

    @rule(one=ids, marked=st.booleans(), place=st.integers(1, 3), killed_in=st.none() | st.integers(0, 6))
    def begin(self, one: str, marked: bool, place: int, killed_in: int | None) -> None:
        known = self.served.get(one)
        if known is not None and known.inside:
            return  # one attempt at a time
        before = self.fates.get(one, Fate())
        was_begun = self.ledger.recall(one) not in (UNKNOWN, NOT_BEGUN)
        former = before.former if before.outcome is None else (*before.former, before.outcome)
        after = Fate(ALL if was_begun or not marked else 0, former=former)
        made: list[Entry] = []

        def step() -> None:
            made.append(self.ledger.begin(one, 0 if marked else place, marked=marked))

        if self.do(one, step, after, killed_in):
            if known is not None and not known.over:
                assert made[0] is known.entry
            served = self.served[one] = Served(made[0], inside=marked)
            assert served.entry.begun == (0 if marked else ALL)
            assert before.begun == 0 or self.fates[one].begun == ALL or was_begun is False

    @rule(one=ids, calls=st.integers(1, 9))
    def the_interpreter_stores(self, one: str, calls: int) -> None:
        served = self.served.get(one)
        if served is not None and served.inside and served.entry.begun < calls:
            self.ledger.words._memory[served.entry.word] = calls  # type: ignore[attr-defined]
            fate = self.fates[one]
            self.fates[one] = replace(fate, begun=ALL if fate.begun == ALL else calls)

    @rule(one=ids)
    def left(self, one: str) -> None:
        served = self.served.get(one)
        if served is not None:
            served.inside = False
            served.entry.left()
            if served.over:
                self.leaves(one)

    @rule(one=ids, killed_in=st.none() | st.integers(0, 2))
    def refused(self, one: str, killed_in: int | None) -> None:
        """Only what was moved is refused; what had begun here before stays begun."""
        served = self.served.get(one)
        if served is None or served.inside or served.over or served.entry.begun != ALL:
            return
        before = self.ledger.words[served.entry.word + 1] & 2
        self.do(one, served.entry.refused, replace(self.fates[one], begun=ALL if before else 0), killed_in)

    @rule(one=ids, outcome=outcomes, killed_in=st.none() | st.integers(0, 3))
    def end(self, one: str, outcome: bytes | None, killed_in: int | None) -> None:
        served = self.served.get(one)
        if served is None or served.over or (outcome is not None and not self.fates[one].begun):
            return
        fate = replace(self.fates[one], outcome=outcome)
        if self.do(one, lambda: served.entry.end(outcome), fate, killed_in):
            served.over = True
            if not served.inside:
                self.leaves(one)

    def leaves(self, one: str) -> None:
        del self.served[one]
        if self.fates[one].begun:
            self.fates[one] = replace(self.fates[one], kept_until=self.now + LINGER_SECONDS)

    @rule(one=ids)
    def drop(self, one: str) -> None:
        served = self.served.get(one)
        if served is not None and not served.over and not served.inside:
            served.entry.drop()
            del self.served[one]
            self.fates[one] = replace(self.fates[one], kept_until=self.now)

    # ---- everything else -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, LINGER_SECONDS - 1, LINGER_SECONDS + 2, EARLIER_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_process_dies(self) -> None:
        self.return_after_death()

    @precondition(lambda self: self.many < 3)
    @rule()
    def many_others_come(self) -> None:
        """They end, and their answers have not left: none of them gives up its place."""
        self.many += 1
        for number in range(3 * ENTRIES):
            entry = self.ledger.begin(f"many-{self.many}-{number}")
            entry.end(b"%d" % number)

    @invariant()
    def the_truth_is_told(self) -> None:
        wrong = {
            one: (self.ledger.recall(one), fate)
            for one, fate in self.fates.items()
            if not fate.fits(self.ledger.recall(one), self.now)
        }
        assert not wrong, wrong

    @invariant()
    def nobody_shares_a_word(self) -> None:
        words = [served.entry.word for served in self.served.values()]
        assert len(set(words)) == len(words)
        assert not set(words) & set(self.ledger._free)
        assert len(set(self.ledger._free)) == len(self.ledger._free)

    def teardown(self) -> None:
        self.ledger.close()
        self.patch.undo()
        shutil.rmtree(self.base)


Life.TestCase.settings = settings(stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
