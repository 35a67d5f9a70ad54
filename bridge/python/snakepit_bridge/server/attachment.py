"""The frames of one attachment: requests in, exactly one Reply each out, calls to the host and their answers.

Rules:
- No transport here: a server feeds `receive` and sends what is put into `out` (outgoing.py, writer.py).
- Nothing blocks the reader. Whatever fails while a request is taken or answered is that request's outcome.
- Payloads are decoded and encoded in the thread that runs the command, results at once when it has returned.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from snakepit_bridge._pb import interpreter_pb2 as pb
from snakepit_bridge.adapter import batches
from snakepit_bridge.adapter.commands import is_a_stream, unknown_command
from snakepit_bridge.adapter.context import SessionContext
from snakepit_bridge.adapter.runs import Run
from snakepit_bridge.server.answers import LEAVING, WELCOME, Answer, Released
from snakepit_bridge.server.host_calls import HostCalls
from snakepit_bridge.server.outlet import Outlet
from snakepit_bridge.server.payloads import Buffers, arguments, segment_ids
from snakepit_bridge.values.encoding import encode
from snakepit_bridge.values.failures import (
    CANCELLED,
    COMMAND,
    DEADLINE,
    Failure,
    InvalidArguments,
    Refusal,
    Stopped,
    failure_of,
)


class Attachment:
    """One host's stream."""

    def __init__(self, dispatcher, hello: pb.Hello, out) -> None:
        self._dispatcher = dispatcher
        self._config = dispatcher.config
        self._commands = dispatcher.commands
        self._arena = dispatcher.arena
        self._out = out
        # Not a method of ours: what a command leaves behind may hold it, and would hold the adapter with us.
        self._released = partial(_tell_released, self._out)
        self._look = partial(Buffers, arena=self._arena, release=self._released)
        out.epoch = hello.epoch if hello.HasField("epoch") else None
        self.live: dict[str, Run] = {}
        self.host = HostCalls(
            self._out.put,
            self._arena,
            self._look,
            self._released,
            self._config.max_message_size,
            dispatcher.copies,
        )
        self._closed = False
        out.put(WELCOME)

    # ---- in ----------------------------------------------------------------------------------------------

    def receive(self, frame: pb.ToInterpreter) -> None:
        """Takes one frame of the host; never blocks and never raises for what is in it."""
        if frame.released:
            self._arena.free(frame.released)
        if frame.trim:
            guarded(self._arena.trim)
        for request in frame.requests:
            self._accept(request)
        for cancel in frame.cancels:
            guarded(self._cancel, cancel)
        for credit in frame.credits:
            run = self.live.get(credit.id)
            if run is not None and run.context._outlet is not None:
                guarded(run.context._outlet.grant, credit.chunks, credit.bytes)
        for reply in frame.host_replies:
            guarded(self.host.answer, reply)

    def close(self) -> None:
        """The stream has ended: cancels what runs, fails calls to the host, ends `out`. Safe to repeat."""
        self._closed = True
        guarded(self.host.lose, "the host has closed the stream")
        for run in list(self.live.values()):
            guarded(self._dispatcher.executor.cancel, run, CANCELLED)
        self._out.close()
        self._leave_when_idle()

    def leave(self) -> None:
        """The host hears that nothing begins here any more."""
        self._out.put(LEAVING)

    def _cancel(self, cancel: pb.Cancel) -> None:
        run = self.live.get(cancel.id)
        if run is None:
            return
        if cancel.reason == pb.Cancel.RECALL:
            run.recall()
            return
        kind = DEADLINE if cancel.reason == pb.Cancel.DEADLINE else CANCELLED
        self._dispatcher.executor.cancel(run, kind)

    def _accept(self, request: pb.Request) -> None:
        run = None
        try:
            command = self._commands.get(request.command)
            refusal = self._refusal(request, command)
            if refusal is None:
                run = self._run_of(request, command)
                self.live[request.id] = run
                if run.context.deadline is not None:
                    self._dispatcher.deadlines.watch(run)
                self._dispatcher.executor.submit(run)
                return
        except BaseException as error:  # noqa: BLE001 - the reader serves everybody
            if run is not None and self.live.get(request.id) is run:
                run.refuse(error)
                return
            refusal = _failure(error)
        self._out.put(Answer(request.id, refusal, 0))
        self._release(request)

    def _run_of(self, request: pb.Request, command) -> Run:
        budget = request.budget_ms
        context = SessionContext(
            request.session,
            request.id,
            request.command,
            attempt=request.attempt,
            traceparent=request.traceparent,
            tracestate=request.tracestate,
            worker_id=self._config.worker_id,
            deadline=time.monotonic() + budget / 1000 if budget else None,
            link=self.host,
            chain=request.chain if request.HasField("chain") else None,
        )
        if request.stream:
            context._outlet = Outlet(request, self._out.put, self._config, self._arena)
        asynchronous = command.asynchronous and not self._must_greet(request.session)
        return Run(request, context, asynchronous, self._work, self._done, self._dispatcher.marks.of(request))

    def _must_greet(self, session: str) -> bool:
        """Whether the command waits for on_session_start first, which may block: not on the event loop."""
        hook = self._dispatcher.session_hook
        return hook is not None and session != "" and not hook.knows(session)

    def _refusal(self, request: pb.Request, command) -> Failure | None:
        if request.id in self.live:
            return failure_of(Refusal(f"the request id {request.id!r} is running already"))
        if self._dispatcher.stopping or self._closed:
            return failure_of(Stopped(CANCELLED, "the interpreter is stopping"))
        if command is None:
            return failure_of(unknown_command(request.command, self._commands))
        return None

    # ---- the thread or task that runs the command --------------------------------------------------------

    def _work(self, run: Run):
        request = run.request
        is_batch = request.HasField("batch")
        args = None if is_batch else arguments(request, self._look)
        if request.session and self._dispatcher.session_hook is not None:
            self._dispatcher.session_hook(request.session)
        if self._dispatcher.context_hook is not None:
            self._dispatcher.context_hook(run.context)
        command = self._commands[request.command]
        if is_batch:
            return batches.start(run, command, self._config, self._arena, self._look)
        value = command.call(args, run.context, stream=request.stream)
        return run.context._outlet.drain(value) if request.stream else value

    def _done(self, run: Run, value, error: BaseException | None) -> None:
        try:
            self._answer(run, value, error)
        except BaseException:
            self._out.recover()
            raise

    def _answer(self, run: Run, value, error: BaseException | None) -> None:
        outlet = run.context._outlet
        if error is None and outlet is not None and run.kind:
            error = run.stopped()  # its generator was closed
        if error is not None:
            outcome = _failure(error)
        else:
            outcome = self._encoded(run, value) if outlet is None else value
        self.live.pop(run.request.id, None)
        answer = Answer(run.request.id, outcome, run.ran_us)
        if outlet is None:
            # One call into C: an exception from outside finds it queued and known to be, or neither.
            run.answers.extend(map(self._out.queue, (answer,)))
            self._out.write()
        else:
            run.answers.append(answer)
            outlet.end(answer)
        self._release(run.request)
        if self._closed:
            self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if not self.live:  # a command that does not listen runs on, and counts as running, without a stream
            self._dispatcher.detach(self)

    def _encoded(self, run: Run, value):
        if type(value) is batches.Results:
            return value
        try:
            if hasattr(value, "__next__") or hasattr(value, "__anext__"):
                raise _yields(run.request.command, value)
            payload = encode(value, marker=self._config.marker)
            what = f"{run.request.command}: the result"
            return self._arena.outgoing(what, payload, self._config.max_message_size)
        except BaseException as error:  # noqa: BLE001 - the user's to_dict and its like may raise SystemExit too
            return _failure(error)

    def _release(self, request: pb.Request) -> None:
        if request.args.buffers or request.refs:
            payloads = [request.args, *(ref.value for ref in request.refs)]
            ids = segment_ids(buffer for payload in payloads for buffer in payload.buffers)
            self._arena.forget(ids, self._released)


def _tell_released(out, id: str) -> None:
    out.put(Released(id))


def _failure(error: BaseException) -> Failure:
    try:
        return failure_of(error)
    except BaseException as broken:  # noqa: BLE001 - of the user's exception class
        words = f"{type(error).__name__}, of which nothing can be said: {type(broken).__name__}"
        return Failure(COMMAND, type(error).__name__, words)


def guarded(function, *args) -> None:
    """Calls a function for one request; its exception is said and must not end the reader of all."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001
        print(f"snakepit_bridge: {function.__qualname__} raised {error!r}", file=sys.stderr)


def _yields(command: str, value) -> InvalidArguments:
    close = getattr(value, "close", None)
    if close is not None:
        close()
    return is_a_stream(command)
