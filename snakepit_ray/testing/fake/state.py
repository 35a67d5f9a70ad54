"""The store of a fake pool: a real one, in memory, on a loop of its own in this process.

It is loaded with the first question: a test of code without sessions loads nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakepit_ray.client.store_calls import StoreCalls


def new_store() -> StoreCalls:
    """Asks a store that is empty."""
    from snakepit_ray.client.store_calls import StoreCalls
    from snakepit_ray.store.store import Store

    async def connect() -> Store:
        return Store()

    return StoreCalls(connect)
