"""The errors of workers and interpreters that could not start, died, or were not where they had been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snakepit_ray.errors.base import WorkerFault


class WorkerStartError(WorkerFault):
    """An interpreter could not be started: the executable, the adapter or the time was not enough. The
    message says."""

    def __init__(
        self,
        message: str = "",
        *,
        worker_id: str | None = None,
        exit_code: int | None = None,
        stderr_tail: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.worker_id = worker_id
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.argv: tuple[str, ...] = tuple(argv)


class WorkerCrashed(WorkerFault):
    """The interpreter died under a request. Only where `may_have_started` is False is it safe to send it
    again as it is.

    `exit_code` is the exit status, or None when `signal` (such as "SIGSEGV") ended it; `begun`, of a batch:
    how many of its calls had begun, None where nobody knows.
    """

    def __init__(
        self,
        message: str = "",
        *,
        worker_id: str | None = None,
        exit_code: int | None = None,
        signal: str | None = None,
        stderr_tail: str = "",
        argv: Sequence[str] = (),
        may_have_started: bool = True,
        begun: int | None = None,
    ) -> None:
        super().__init__(message)
        self.worker_id = worker_id
        self.exit_code = exit_code
        self.begun = begun
        self.signal = signal
        self.stderr_tail = stderr_tail
        self.argv: tuple[str, ...] = tuple(argv)
        self.may_have_started = may_have_started

    @classmethod
    def from_exit(
        cls,
        worker_id: str,
        returncode: int | None,
        stderr_tail: str = "",
        argv: Sequence[str] = (),
        *,
        begun: int | None = None,
        cause: str = "",
        story: Sequence[str] = (),
    ) -> WorkerCrashed:
        """`returncode` as `subprocess` has it: negative for a signal; None when nobody knows. `begun`: calls
        of the request that had begun, None when nobody knows; `cause`: why we ended it ourselves; `story`:
        the last events of its worker."""
        signal = signal_name(-returncode) if returncode is not None and returncode < 0 else None
        effects = (
            "the command may have started, so it is not sent again unless it is idempotent (idempotent=True)"
            if begun != 0
            else "the command had not started: it is safe to send it again"
        )
        return cls(
            f"the interpreter of worker {worker_id} {exit_words(returncode)}"
            + (f", because {cause}" if cause else "")
            + f"; {effects}"
            + _evidence(stderr_tail, argv, story),
            worker_id=worker_id,
            exit_code=None if signal else returncode,
            signal=signal,
            stderr_tail=stderr_tail,
            argv=argv,
            may_have_started=begun != 0,
            begun=begun,
        )


class SessionWorkerLost(WorkerFault):
    """The interpreter that held the session's state is gone. Build the state anew, calling once with
    rebind=True.

    `reason` is a word such as "crashed" or "recycled"; the epochs are (incarnation, number).
    """

    def __init__(
        self,
        message: str = "",
        *,
        session: str | None = None,
        reason: str | None = None,
        old_epoch: Any = None,
        new_epoch: Any = None,
    ) -> None:
        super().__init__(message)
        self.session = session
        self.reason = reason
        self.old_epoch = old_epoch
        self.new_epoch = new_epoch

    @classmethod
    def of(
        cls,
        session: str,
        reason: str,
        old_epoch: Any = None,
        new_epoch: Any = None,
        not_moved: str = "",
    ) -> SessionWorkerLost:
        """For a `session`; `reason` is a word such as "crashed". `old_epoch` and `new_epoch` are
        (incarnation, number), or None where nobody knows. `not_moved`: why its adapter's hooks did not bring
        its state along."""
        return cls(
            f"the interpreter that session {session!r} was pinned to is gone ({reason}: epoch "
            f"{_epoch(old_epoch)}, now {_epoch(new_epoch)}), and the state in it"
            f"{f' ({not_moved})' if not_moved else ''}; call with rebind=True to accept the new one",
            session=session,
            reason=reason,
            old_epoch=old_epoch,
            new_epoch=new_epoch,
        )


class ProtocolMismatch(WorkerFault):
    """The interpreter's bridge speaks another version. Install the snakepit-bridge that belongs to this
    package."""

    def __init__(
        self, message: str = "", *, host_version: int | None = None, bridge_version: Any = None
    ) -> None:
        super().__init__(message)
        self.host_version = host_version
        self.bridge_version = bridge_version


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for one that this system has no name for."""
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_words(returncode: int | None) -> str:
    """How a process ended: "exited with code 3", "was ended by SIGKILL (9)", "is gone (nobody saw its exit
    code)"."""
    if returncode is None:
        return "is gone (nobody saw its exit code)"
    if returncode < 0:
        return f"was ended by {signal_name(-returncode)} ({-returncode})"
    return f"exited with code {returncode}"


def _evidence(stderr_tail: str, argv: Sequence[str], story: Sequence[str]) -> str:
    ran = f"\nIt ran: {' '.join(argv)}" if argv else ""
    before = "\nIts worker's last events:\n" + "\n".join(f"  {event}" for event in story) if story else ""
    tail = stderr_tail.strip()
    return ran + before + (f"\nThe end of its stderr:\n{tail}" if tail else "\nIt wrote nothing to stderr.")


def _epoch(epoch: Any) -> str:
    return (
        "unknown"
        if epoch is None
        else ".".join(map(str, epoch))
        if isinstance(epoch, tuple | list)
        else str(epoch)
    )
