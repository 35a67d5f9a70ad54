"""Who may begin now, so that no machine starts a hundred processes at once.

- A worker's turn begins with the creation of its actor. It lasts until its interpreter serves or could not
  start. At most `batch` workers for each node of the cluster have their turn at once.
- At most `batch` interpreters start at once on a node. One that serves keeps its place for a pause.
- Limits of time count within a turn: a pool takes as long to start as its workers take one batch after
  another.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque

UNDER_WAY = math.inf


class SpawnTurns:
    """SpawnTurns of creation. A turn that is not given back ends at its limit."""

    def __init__(self, batch: int) -> None:
        self.at_once = batch
        self._waiting: deque[str] = deque()
        self._ends: dict[str, float] = {}

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._ends

    def wait(self, worker_id: str) -> None:
        """This worker is to be created."""
        self._waiting.append(worker_id)

    def limit(self, worker_id: str, ends_at: float) -> None:
        """This turn ends then, whatever becomes of the worker."""
        if worker_id in self._ends:
            self._ends[worker_id] = ends_at

    def over(self, worker_id: str) -> None:
        """This worker needs its turn no more, or will never need one."""
        if self._ends.pop(worker_id, None) is None and worker_id in self._waiting:
            self._waiting.remove(worker_id)

    def ended(self, now: float) -> list[str]:
        """Workers whose turn has reached its limit."""
        return [worker_id for worker_id, ends_at in self._ends.items() if ends_at <= now]

    def begin(self) -> list[str]:
        """Workers whose turn begins now, in the order in which they came."""
        begun = []
        while self._waiting and len(self._ends) < self.at_once:
            begun.append(self._waiting.popleft())
            self._ends[begun[-1]] = UNDER_WAY
        return begun

    def next_at(self) -> float:
        """When the next turn reaches its limit; inf where none has one."""
        return min(self._ends.values(), default=math.inf)


class NodeStarts:
    """Starts of interpreters, node by node."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._waiting: defaultdict[str, deque[str]] = defaultdict(deque)
        self._places: defaultdict[str, dict[str, float]] = defaultdict(dict)  # free again at

    def is_under_way(self, worker_id: str) -> bool:
        """Whether the worker was told to start and has not answered."""
        return any(places.get(worker_id) == UNDER_WAY for places in self._places.values())

    def wait(self, worker_id: str, node_id: str) -> None:
        """This worker is to start. Its place is one, however often it asks."""
        if worker_id not in self._waiting[node_id] and not self.is_under_way(worker_id):
            self._waiting[node_id].append(worker_id)

    def over(self, worker_id: str, free_at: float) -> None:
        """Its start has ended, or it is not to start any more; its place is free then."""
        for waiting in self._waiting.values():
            if worker_id in waiting:
                waiting.remove(worker_id)
        for places in self._places.values():
            if places.get(worker_id) == UNDER_WAY:
                places[worker_id] = free_at

    def begin(self, now: float) -> list[str]:
        """Workers that start now, in the order in which they came."""
        begun = []
        for node_id, waiting in self._waiting.items():
            places = self._places[node_id]
            for worker_id in [name for name, free_at in places.items() if free_at <= now]:
                del places[worker_id]
            while waiting and len(places) < self._batch:
                begun.append(waiting.popleft())
                places[begun[-1]] = UNDER_WAY
        return begun

    def next_at(self) -> float:
        """When a place becomes free that somebody waits for; inf where nobody does."""
        wanted = [node for node, waiting in self._waiting.items() if waiting]
        return min((at for node in wanted for at in self._places[node].values()), default=math.inf)
