"""Knows the frames of one attachment: requests in, exactly one Reply each out, calls to the host and their
answers.

Rules: no transport here: a server feeds `receive` and sends what `frames` yields; nothing blocks the reader;
payloads are decoded and encoded in the
thread that runs the command; what is waiting to be sent goes out as one frame.
"""

from __future__ import annotations

import os
import time
from functools import partial
from queue import Empty, SimpleQueue

from snakepit_bridge import batches, hostcalls
from snakepit_bridge._pb import interpreter_pb2 as pb
from snakepit_bridge.adapter import is_a_stream, unknown_command
from snakepit_bridge.answers import Answer, Released
from snakepit_bridge.arena import Arena
from snakepit_bridge.buffers import Buffers, segment_ids
from snakepit_bridge.context import SessionContext
from snakepit_bridge.decoding import arguments
from snakepit_bridge.execution import Deadlines, Executor, Run
from snakepit_bridge.failures import (
    CANCELLED,
    DEADLINE,
    Failure,
    InvalidArguments,
    Refusal,
    Stopped,
    failure_of,
)
from snakepit_bridge.marks import Marks
from snakepit_bridge.streams import Outlet
from snakepit_bridge.values import encode

PROTOCOL = 1
# a frame that holds so much goes out as it is: the limit of a message is for single payloads
FRAME_SIZE = 256 * 1024
_END = object()
_NOTHING = object()


class ProtocolMismatch(Exception):
    """The host speaks another version of the wire."""


class Dispatcher:
    """The commands of one interpreter and what runs them; attachments come and go."""

    def __init__(self, commands: dict, config, session_hook=None, context_hook=None) -> None:
        self.commands = commands
        self.config = config
        self.executor = Executor(config.capacity)
        self.arena = Arena(config.arena, config.threshold)
        self.marks = Marks(config.marks)
        self.deadlines = Deadlines(self._live, self.executor.cancel)
        self.stopping = False
        self.session_hook = session_hook
        self.context_hook = context_hook
        self._attachments: set[Attachment] = set()

    def attach(self, hello: pb.ToInterpreter) -> Attachment:
        """A new attachment, whose first frame is `hello`; an older one ends. Raises ProtocolMismatch."""
        if not hello.HasField("hello"):
            raise ProtocolMismatch("the first frame of Attach must hold a Hello")
        if hello.hello.protocol != PROTOCOL:
            raise ProtocolMismatch(
                f"the host speaks protocol {hello.hello.protocol}, this interpreter {PROTOCOL}"
            )
        for older in list(self._attachments):
            older.close()
        attachment = Attachment(self, hello.hello)
        self._attachments.add(attachment)
        attachment.receive(hello)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Forgets an attachment that has ended."""
        self._attachments.discard(attachment)

    def running(self) -> int:
        """How many requests have no outcome yet."""
        return len(self._live())

    def stop(self) -> None:
        """Takes no more requests and cancels what runs."""
        self.stopping = True
        for run in self._live():
            self.executor.cancel(run, CANCELLED)

    def close(self) -> None:
        """Ends every attachment."""
        for attachment in list(self._attachments):
            attachment.close()

    def _live(self) -> list[Run]:
        return [run for attachment in list(self._attachments) for run in list(attachment.live.values())]


class Attachment:
    """One host's stream."""

    def __init__(self, dispatcher: Dispatcher, hello: pb.Hello) -> None:
        self._dispatcher = dispatcher
        self._config = dispatcher.config
        self._commands = dispatcher.commands
        self._arena = dispatcher.arena
        self._look = partial(Buffers, arena=self._arena, release=self._released)
        self._epoch = hello.epoch if hello.HasField("epoch") else None
        self._out: SimpleQueue = SimpleQueue()
        self.live: dict[str, Run] = {}
        self.host = hostcalls.HostCalls(self._out.put, self._config.max_message_size)
        self._closed = False

    # ---- in ----------------------------------------------------------------------------------------------

    def receive(self, frame: pb.ToInterpreter) -> None:
        """Takes one frame of the host; never blocks and never raises for what is in it."""
        if frame.released:
            self._arena.free(frame.released)
        if frame.trim:
            self._arena.trim()
        for request in frame.requests:
            self._accept(request)
        for cancel in frame.cancels:
            run = self.live.get(cancel.id)
            if run is None:
                continue
            if cancel.reason == pb.Cancel.RECALL:
                run.recall()
                continue
            kind = DEADLINE if cancel.reason == pb.Cancel.DEADLINE else CANCELLED
            self._dispatcher.executor.cancel(run, kind)
        for credit in frame.credits:
            run = self.live.get(credit.id)
            if run is not None and run.context._outlet is not None:
                run.context._outlet.grant(credit.chunks, credit.bytes)
        for reply in frame.host_replies:
            self.host.answer(reply)

    def close(self) -> None:
        """The stream has ended: cancels what runs, fails calls to the host, ends `frames`. Safe to repeat."""
        self._closed = True
        self.host.lose("the host has closed the stream")
        for run in list(self.live.values()):
            self._dispatcher.executor.cancel(run, CANCELLED)
        self._out.put(_END)
        self._leave_when_idle()

    def _accept(self, request: pb.Request) -> None:
        command = self._commands.get(request.command)
        refusal = self._refusal(request, command)
        if refusal is not None:
            self._out.put(Answer(request.id, refusal, 0))
            self._release(request)
            return
        budget = request.budget_ms
        context = SessionContext(
            request.session,
            request.id,
            request.command,
            attempt=request.attempt,
            traceparent=request.traceparent,
            worker_id=self._config.worker_id,
            deadline=time.monotonic() + budget / 1000 if budget else None,
            link=self.host,
        )
        if request.stream:
            context._outlet = Outlet(request, self._out.put, self._config, self._arena)
        mark = self._dispatcher.marks.of(request)
        run = Run(request, context, command.asynchronous, self._work, self._done, mark)
        self.live[request.id] = run
        self._dispatcher.executor.submit(run)
        if budget:
            self._dispatcher.deadlines.watch(run)

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
        outlet = run.context._outlet
        if error is None and outlet is not None and run.kind:
            error = run.stopped()  # its generator was closed
        if error is not None:
            outcome = failure_of(error)
        else:
            outcome = self._encoded(run, value) if outlet is None else value
        ran = (time.perf_counter_ns() - run.started) // 1000 if run.started else 0
        self.live.pop(run.request.id, None)
        answer = Answer(run.request.id, outcome, ran)
        if outlet is None:
            self._out.put(answer)
        else:
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
            return failure_of(error)

    def _release(self, request: pb.Request) -> None:
        if request.args.buffers or request.refs:
            payloads = [request.args, *(ref.value for ref in request.refs)]
            ids = segment_ids(buffer for payload in payloads for buffer in payload.buffers)
            self._arena.forget(ids, self._released)

    def _released(self, id: str) -> None:
        self._out.put(Released(id))

    # ---- out ---------------------------------------------------------------------------------------------

    def frames(self):
        """The frames to send, until the attachment is closed."""
        yield pb.FromInterpreter(welcome=pb.Welcome(protocol=PROTOCOL, pid=os.getpid()))
        take, more = self._out.get, self._out.get_nowait
        item = take()
        while item is not _END:
            frame = pb.FromInterpreter()
            size = 0
            while item is not _END and item is not _NOTHING:
                size += item.fill(frame, self._epoch)
                try:
                    item = more() if size < FRAME_SIZE else _NOTHING
                except Empty:
                    item = _NOTHING
            yield frame
            if item is _NOTHING:
                item = take()


def _yields(command: str, value) -> InvalidArguments:
    close = getattr(value, "close", None)
    if close is not None:
        close()
    return is_a_stream(command)
