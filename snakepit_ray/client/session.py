"""One session of a pool: calls that carry its id, so that they meet the state that earlier ones left, and the
variables that the session keeps outside of interpreters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from typing import TYPE_CHECKING, Any

from snakepit_ray.client.coalescing import Coalescer
from snakepit_ray.client.forms import Call
from snakepit_ray.client.sender import Sender
from snakepit_ray.client.stream import StreamCall, async_values, values
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.client.variables import Variables
from snakepit_ray.config import CallOptions
from snakepit_ray.core.state.asked import Creation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config import Affinity
    from snakepit_ray.config.keywords import AffinityName, SessionCallSettings


class Session:
    """Calls of one session. Made by `pool.session(id)`; picklable, as the pool is.

    Its calls begin in the order in which this process made them. With `affinity="strict_queue"` all of them
    meet the same interpreter, with "hint" they prefer it. Its variables are of no interpreter.
    """

    __slots__ = {
        "__dict__": "",
        "__weakref__": "",
        "execute": Call.__doc__,
        "execute_stream": StreamCall.__doc__,
        "id": "The session's id, which every call carries.",
    }
    id: str
    execute: Call
    execute_stream: StreamCall

    def __init__(
        self,
        sender: Sender,
        session_id: str,
        coalescer: Coalescer | None = None,
        variables: VariableTalks | None = None,
        affinity: AffinityName | None = None,
    ) -> None:
        self.id = session_id
        self._variables = variables
        self._sender = sender
        self._coalescer = coalescer or Coalescer(sender)
        self._options = CallOptions(session=session_id, affinity=affinity)  # type: ignore[arg-type] # a name
        self.execute = Call(sender, self._options)
        self.execute_stream = StreamCall(sender, self._options)

    @property
    def variables(self) -> Variables:
        """The session's variables, which outlive interpreters, workers and the store's process."""
        if self._variables is None:
            self._variables = VariableTalks(self._sender.access, self.id)
        return Variables(self._variables)

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Any:
        """`pool.call` in this session: for asyncio. Args, result and errors are those of `pool.call`."""
        return await self._coalescer.call(command, args, self._options.merge(**options))

    def stream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Generator[Any]:
        """`pool.stream` in this session: an iterator of values. Reports of progress are dropped."""
        return values(self._sender, command, args, self._options.merge(**options), False)

    def astream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio: `async for value in session.astream(command, args)`."""
        return async_values(self._sender, command, args, self._options.merge(**options), False)

    def __reduce__(self) -> tuple[Any, ...]:
        known = None if self._variables is None else (self._variables.creation, self._variables.is_joined)
        return _unpickled, (self._sender, self.id, known, self._options.affinity)

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of pool {self._sender.pool_name!r}>"


def _unpickled(
    sender: Sender, session_id: str, known: tuple[Creation, bool] | None, affinity: Affinity | None
) -> Session:
    """The same session in another process. `known`: how it is made, and whether it was."""
    if known is None:
        return Session(sender, session_id, affinity=affinity)
    creation, is_joined = known
    variables = VariableTalks(sender.access, session_id, creation, is_joined=is_joined)
    return Session(sender, session_id, variables=variables, affinity=affinity)
