"""One caller's view of the workers, and the choice of where a request goes.

- A choice costs O(1) and no message.
- What this caller sent since the last publication counts as load, so that one caller spreads evenly without
  waiting for news.
- A table older than the present one changes nothing.
- Sessions without a known binding hash to the same worker in every process (rendezvous hashing, Thaler and
  Ravishankar 1998), as long as the callers hold the same table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import blake2b
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

Random = Callable[[], float]  # uniform in [0, 1), such as random.random

READY = "ready"
AVOIDED = "avoided"  # this caller saw it fail; chosen only when nobody else is left

SNAPSHOT_SIZE = 16  # workers in the table that travels inside a pickled handle
MAX_BINDINGS = 10_000
_MASK = (1 << 64) - 1


class WorkerLoad(Generic[K]):
    """What one caller knows about one worker."""

    __slots__ = ("capacity", "hash", "key", "last", "load", "sent", "state")

    def __init__(self, key: K, capacity: int, load: int) -> None:
        self.key = key
        self.capacity = capacity
        self.load: float = load  # running + waiting, as published
        self.sent: float = 0  # by this caller since then
        self.last = 0  # the caller's count when it was last chosen; breaks ties
        self.state = READY
        self.hash = stable_hash(repr(key))

    def __repr__(self) -> str:
        return f"<WorkerLoad {self.key!r} {self.load:g}+{self.sent:g}/{self.capacity} {self.state}>"


def stable_hash(text: str) -> int:
    """64 bits of blake2b: the same in every process, unlike hash()."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


class RoutingView(Generic[K]):
    """One caller's table, loads and session bindings.

    `table` is (key, capacity, load) for each worker; a key's repr must be the same in every process.
    """

    def __init__(
        self,
        table: Iterable[tuple[K, int, int]] = (),
        version: int = 0,
        *,
        max_bindings: int = MAX_BINDINGS,
    ) -> None:
        self.version = version
        self._by_key: dict[K, WorkerLoad[K]] = {}
        self._choosable: list[WorkerLoad[K]] = []
        self._bindings: OrderedDict[str, tuple[K, int]] = OrderedDict()
        self._max_bindings = max_bindings
        self._count = 0
        self._replace(table)

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __repr__(self) -> str:
        return f"<RoutingView v{self.version} {len(self)} workers, {len(self._bindings)} sessions>"

    @property
    def table(self) -> tuple[tuple[K, int, int], ...]:
        """The workers as (key, capacity, estimated load)."""
        return tuple((w.key, w.capacity, round(w.load + w.sent)) for w in self._by_key.values())

    def update(self, table_version: int, entries: Iterable[tuple[K, int, int]]) -> bool:
        """Take a newer table; False (and no change) when it is not newer. Also a publication of loads."""
        if table_version <= self.version:
            return False
        self.version = table_version
        self._replace(entries)
        return True

    def publish(self, loads: Mapping[K, int]) -> None:
        """New loads (running + waiting) from the router; those not named keep their estimate."""
        for key, load in loads.items():
            worker = self._by_key.get(key)
            if worker is not None:
                worker.load, worker.sent = load, 0

    def avoid(self, key: K) -> None:
        """The worker did not answer: choose others until `restore` or the next table."""
        self._set_state(key, AVOIDED)

    def restore(self, key: K) -> None:
        self._set_state(key, READY)

    def choose(self, random: Random) -> K:
        """The less loaded of two workers drawn at random (Mitzenmacher 2001); O(1).

        Ties go to the one this caller chose less recently. Raises LookupError when the table is empty.
        """
        workers = self._choosable
        n = len(workers)
        if n < 2:
            return self._only_one().key
        i = int(random() * n)
        j = int(random() * (n - 1))
        a = workers[i]
        b = workers[j + 1 if j >= i else j]
        excess = (a.load + a.sent) * b.capacity - (b.load + b.sent) * a.capacity
        if excess > 0 or (excess == 0 and b.last < a.last):
            a = b
        self._count = a.last = self._count + 1
        a.sent += 1
        return a.key

    def choose_for_session(self, session_id: str) -> K:
        """The session's known worker, else its rendezvous worker. O(1) known, O(workers) otherwise.

        Raises LookupError when the table is empty.
        """
        binding = self._bindings.get(session_id)
        worker = self._by_key.get(binding[0]) if binding is not None else None
        if worker is None:
            worker = self._rendezvous(session_id)
        else:
            self._bindings.move_to_end(session_id)
        worker.sent += 1
        return worker.key

    def binding(self, session_id: str) -> tuple[K, int] | None:
        """(worker, version) as this caller knows it; None when it does not."""
        return self._bindings.get(session_id)

    def bind(self, session_id: str, key: K, version: int) -> bool:
        """Learn a binding; False when a newer one is known. Versions come from `affinity.Bindings`."""
        known = self._bindings.get(session_id)
        if known is not None and known[1] > version:
            return False
        self._bindings[session_id] = (key, version)
        self._bindings.move_to_end(session_id)
        if len(self._bindings) > self._max_bindings:
            self._bindings.popitem(last=False)
        return True

    def unbind(self, session_id: str) -> None:
        self._bindings.pop(session_id, None)

    def sample(self, n: int, random: Random) -> tuple[tuple[K, int, int], ...]:
        """At most `n` distinct workers drawn at random, as a table for another view (of a pickled handle).

        A view of a sample hashes unknown sessions to other workers than a full view does; the claim at the
        router settles it, at the price of one delegation.
        """
        rows = list(self.table)
        for i in range(min(n, len(rows))):  # Fisher and Yates, the first n steps
            j = i + int(random() * (len(rows) - i))
            rows[i], rows[j] = rows[j], rows[i]
        return tuple(rows[:n])

    def _replace(self, entries: Iterable[tuple[K, int, int]]) -> None:
        old = self._by_key
        self._by_key = {}
        for key, capacity, load in entries:
            worker = old.get(key)
            if worker is None:
                worker = WorkerLoad(key, capacity, load)
            worker.capacity, worker.load, worker.sent, worker.state = capacity, load, 0, READY
            self._by_key[key] = worker
        self._refresh()

    def _set_state(self, key: K, state: str) -> None:
        worker = self._by_key.get(key)
        if worker is not None:
            worker.state = state
            self._refresh()

    def _refresh(self) -> None:
        workers = list(self._by_key.values())
        self._choosable = [w for w in workers if w.state == READY] or workers

    def _only_one(self) -> WorkerLoad[K]:
        if not self._choosable:
            raise LookupError("the pool's table has no worker")
        worker = self._choosable[0]
        worker.sent += 1
        return worker

    def _rendezvous(self, session_id: str) -> WorkerLoad[K]:
        if not self._by_key:
            raise LookupError("the pool's table has no worker")
        # One odd multiplier for each session orders the workers' hashes anew (multiply-shift hashing,
        # Dietzfelbinger et al. 1997): a tenth of the cost of mixing every pair.
        session = stable_hash(session_id) | 1
        scores = [(worker.hash * session) & _MASK for worker in self._choosable]
        return self._choosable[scores.index(max(scores))]
