"""The store's actor as a way to the store: what Ray says of it in our words.

- An actor that has died, is being restarted, or whose answer is lost with its node: StoreLost. The same may
  be asked again.
- A watch that is given up is cancelled at the actor, too. A question that is given up is not: a write that is
  half done goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray import exceptions as ray_errors

from snakepit_ray.core.state.asked import Changes, Question, Watch
from snakepit_ray.errors import PoolClosed, SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.port.store_link import StoreLost

STORE = "snakepit:store"
LOST = (
    ray_errors.RayActorError,
    ray_errors.ObjectLostError,
    ray_errors.TaskCancelledError,
    ray_errors.NodeDiedError,
)


def check_session(session: tuple[str, bytes]) -> None:
    """Raises PoolClosed where this process has another connection to Ray now, or none: what belongs to an
    earlier one must not be touched, or Ray aborts the process, and a look for the store would start a Ray."""
    if ray_port.session_id() != session:
        raise PoolClosed("the Ray session that the store belongs to was shut down")


class ActorDoor:
    """See `store_link.Door`. Both raise PoolClosed when the Ray session that it was made in is over."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._session = ray_port.session_id()

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        """See Door."""
        check_session(self._session)
        answers: list[Any] = await answer(ray_port.unowned(self._actor.ask, list(questions)))
        return answers

    def ask_now(self, questions: Sequence[Question], seconds: float) -> list[Any]:
        """See BlockingDoor."""
        check_session(self._session)
        with _our_errors():
            answers: list[Any] = ray.get(
                ray_port.unowned(self._actor.ask, list(questions)), timeout=max(0.0, seconds)
            )
        return answers

    async def watch(self, watch: Watch) -> Changes | SnakepitError:
        """See Door."""
        check_session(self._session)
        ref = ray_port.unowned(self._actor.watch, watch)
        try:
            changes: Changes | SnakepitError = await answer(ref)
            return changes
        except asyncio.CancelledError:
            with contextlib.suppress(ray_port.RayError, PoolClosed, ValueError):
                check_session(self._session)
                ray.cancel(ref)
            raise


async def answer(ref: Any) -> Any:
    """What a call of the store's actor comes to. Raises StoreLost, and our own errors."""
    with _our_errors():
        return await ref


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except LOST as error:
        raise StoreLost(str(error)) from error
    except ray_port.GetTimeout as error:
        raise TimeoutError(str(error)) from error
    except ray_port.RayError as error:
        raise ray_port.translate(error, "") or error from None
