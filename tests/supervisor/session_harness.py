"""Workers of one store, without Ray: the real store in memory, the real handlers, the real bridge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from snakepit_ray.core.state.asked import (
    Changes,
    Creation,
    Data,
    Ended,
    Found,
    Get,
    Put,
    Question,
    Remove,
    Watch,
)
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.copies import Copies
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.types import inferred
from snakepit_ray.core.state.writes import Register, Set
from snakepit_ray.errors import SnakepitError
from snakepit_ray.ledger import Ledger
from snakepit_ray.store.store import Store
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, decode_value, encode_value
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.host_calls import HostMethods
from snakepit_ray.worker.session_calls import SessionCalls
from snakepit_ray.worker.session_pins import Origin, Pins
from tests.supervisor.harness import POLICY, ROOT, Marked, ports, request, spec, supervisor, value

STATEFUL = str(ROOT / "tests/adapters/stateful.py") + ":Stateful"
CREATION = Creation("test", 3600.0, 1_000)


class InProcess:
    """A link to a store in this loop. `asked`: how many questions of each kind."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: Counter[str] = Counter()
        self.questions: list[Question] = []

    async def ask(self, question: Question, seconds: float | None = None) -> Any:
        self.asked[type(question).__name__] += 1
        self.questions.append(question)
        (answer,) = await self.store.ask([question])
        if isinstance(answer, SnakepitError):
            raise answer
        return answer

    async def watch(self, watch: Watch, seconds: float | None = None) -> Changes:
        answer = await self.store.watch(watch)
        if isinstance(answer, SnakepitError):
            raise answer
        return answer


class Worker:
    """A worker with its copies. While it `stands_still` it does not hear what the store tells it."""

    def __init__(self, name: str, store: Store, ledger: Ledger) -> None:
        self.stands_still = False
        self.told: list[Lease] = []
        self.link = InProcess(store)
        self.copies = Copies(ledger.leases, name)
        self.binding: int | None = 1
        pins = Pins("test", self.origin, self._binding)
        self.calls = SessionCalls(self.link, self.copies, pins, CREATION, name, ledger.first_lease)
        self.served: Counter[str] = Counter()
        self._methods = HostMethods(self.calls.handlers())
        self.supervisor: Supervisor
        store.attach(name, self)

    def serve(self, call: HostCall) -> Any:
        self.served[call.method] += 1
        return self._methods.serve(call)

    def origin(self, request_id: str) -> Origin | None:
        attempt = self.supervisor.attempt_of(request_id)
        if attempt is None:
            return None
        return Origin(attempt.number, bool(attempt.request.options.affinity), attempt.entered)

    async def _binding(self, session: str) -> int | None:
        return self.binding

    def let_go(self, leases: Sequence[Lease]) -> None:
        self.told += leases
        if not self.stands_still:
            asyncio.get_running_loop().call_soon(self.link.store.released, self.copies.let_go(leases))

    def sessions_ended(self, ended: Sequence[Ended]) -> None:
        self.copies.ended(ended)

    async def run(self, command: str, session: str = "s", strict: bool = False, **args: Any) -> Any:
        """What a command gives in a session."""
        made = request(command, **args)
        made.id, made.session = f"{command}-{next(_numbers)}", session
        made.options.affinity = pb.AFFINITY_STRICT_QUEUE if strict else pb.AFFINITY_HINT
        return await value(self.supervisor, made)


_numbers = iter(range(1_000_000))


@asynccontextmanager
async def stateful(tmp_path: Path, store: Store, name: str = "w-0", **changes: Any) -> AsyncIterator[Worker]:
    """A worker whose commands have sessions with variables."""
    ledger = Ledger.open(name, tmp_path / "node")
    worker = Worker(name, store, ledger)
    settings = {"adapter": STATEFUL, "adapter_args": {}, "marks": ledger.descriptor, **changes}
    capacity = settings.get("capacity", 1)
    if capacity > 1:
        config = spec(tmp_path, adapter=STATEFUL, adapter_args={}, capacity=capacity).config
        settings["config"] = {**config, "thread_profile": True}
        settings["policy"] = replace(POLICY, capacity=capacity)
    worker.supervisor = supervisor(
        tmp_path, around=lambda _: ports(Marked(ledger)), on_host_call=worker.serve, **settings
    )
    await worker.supervisor.start()
    try:
        yield worker
    finally:
        await worker.supervisor.stop()
        ledger.close()


class Caller:
    """Somebody who asks the store by itself."""

    def __init__(self, store: Store) -> None:
        self.link = InProcess(store)
        self.count = 0

    async def register(
        self, name: str, type_: str, given: Any, session: str = "s", **constraints: Any
    ) -> int:
        demand = demanded(type_, constraints, name)
        return await self._put(session, Register(name, _data(given), demand))

    async def set(self, name: str, given: Any, session: str = "s") -> int:
        return await self._put(session, Set(name, _data(given)))

    async def set_all(self, **values: Any) -> None:
        """Makes some variables, with the types that their values have."""
        for name, given in values.items():
            await self.register(name, str(inferred(given)), given)

    async def get(self, name: str, session: str = "s") -> Any:
        found: Found = await self.link.ask(Get(session, (name,)))
        data = found.values[name].value
        return decode_value(data.json, list(data.buffers))

    async def delete(self, session: str = "s") -> bool:
        return bool(await self.link.ask(Remove(session, self._op())))

    async def _put(self, session: str, change: Register | Set) -> int:
        wrote = await self.link.ask(Put(session, self._op(), (change,), creation=CREATION))
        (written,) = wrote.outcome
        if written.error is not None:
            raise written.error
        version: int = written.version
        return version

    def _op(self) -> str:
        self.count += 1
        return f"caller-{id(self)}-{self.count}"


def _data(given: Any) -> Data:
    encoded: Encoded = encode_value(given)
    return Data(encoded.json, tuple(encoded.buffers))
