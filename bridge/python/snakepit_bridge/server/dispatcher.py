"""The commands of one interpreter and what runs them; attachments come and go."""

from __future__ import annotations

from snakepit_bridge import PROTOCOL
from snakepit_bridge._pb import interpreter_pb2 as pb
from snakepit_bridge.adapter.copies import Copies
from snakepit_bridge.adapter.execution import executor_for
from snakepit_bridge.adapter.runs import Run
from snakepit_bridge.server.arena import Arena
from snakepit_bridge.server.attachment import Attachment, guarded
from snakepit_bridge.server.deadlines import Deadlines
from snakepit_bridge.server.marks import Marks
from snakepit_bridge.values.failures import CANCELLED, ProtocolMismatch


class Dispatcher:
    """The commands of one interpreter and what runs them; attachments come and go."""

    def __init__(self, commands: dict, config, session_hook=None, context_hook=None) -> None:
        self.commands = commands
        self.config = config
        self.executor = executor_for(config)
        self.arena = Arena(config.arena, config.threshold)
        self.marks = Marks(config.marks)
        self.copies = Copies(self.marks.words, config.threshold)
        self.deadlines = Deadlines(self._live, self.executor.cancel)
        self.stopping = False
        self.session_hook = session_hook
        self.context_hook = context_hook
        self._attachments: set[Attachment] = set()

    def attach(self, hello: pb.ToInterpreter, out) -> Attachment:
        """A new attachment, whose first frame is `hello` and which answers by `out`; an older one ends.
        Raises ProtocolMismatch.
        """
        if not hello.HasField("hello"):
            raise ProtocolMismatch("the first frame of Attach must hold a Hello")
        if hello.hello.protocol != PROTOCOL:
            raise ProtocolMismatch(
                f"the host speaks protocol {hello.hello.protocol}, this interpreter {PROTOCOL}"
            )
        for older in list(self._attachments):
            older.close()
        attachment = Attachment(self, hello.hello, out)
        self._attachments.add(attachment)
        attachment.receive(hello)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Forgets an attachment that has ended."""
        self._attachments.discard(attachment)

    def running(self) -> int:
        """How many requests have no outcome yet."""
        return len(self._live())

    def is_alive(self) -> bool:
        """Whether the threads that run commands and keep their deadlines do."""
        return self.executor.is_alive() and self.deadlines.is_alive()

    def refuse(self) -> None:
        """Takes no more requests from now on."""
        self.stopping = True

    def leave(self) -> None:
        """Takes no more requests, and says so: what is refused from now on goes to another interpreter."""
        self.refuse()
        for attachment in list(self._attachments):
            attachment.leave()

    def stop(self) -> None:
        """Takes no more requests and cancels what runs."""
        self.refuse()
        for run in self._live():
            guarded(self.executor.cancel, run, CANCELLED)

    def close(self) -> None:
        """Ends every attachment."""
        for attachment in list(self._attachments):
            attachment.close()

    def _live(self) -> list[Run]:
        return [run for attachment in list(self._attachments) for run in list(attachment.live.values())]
