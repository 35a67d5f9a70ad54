"""The store of a fake pool: a real one, in memory, on a loop of its own in this process.

- It is loaded with the first question: a test of code without sessions loads nothing for it.
- Questions and answers are pickled on their way, as they are in a cluster: what a test changes of them
  afterwards changes nothing in the store.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from snakepit_ray.core.state.asked import Changes, Question, Watch
from snakepit_ray.errors import SnakepitError

if TYPE_CHECKING:
    from snakepit_ray.client.store_calls import StoreCalls
    from snakepit_ray.store.store import Store

T = TypeVar("T")


def new_store() -> StoreCalls:
    """Asks a store that is empty."""
    from snakepit_ray.client.store_calls import StoreCalls
    from snakepit_ray.store.store import Store

    async def connect() -> FakeDoor:
        return FakeDoor(Store())

    return StoreCalls(connect)


class FakeDoor:
    """See `store_link.Door`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        """See Door."""
        return _copied(await self._store.ask(_copied(questions)))

    async def watch(self, watch: Watch) -> Changes | SnakepitError:
        """See Door."""
        return _copied(await self._store.watch(watch))


def _copied(value: T) -> T:
    copied: T = pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    return copied
