"""Programs that commands make and run, as programs of their sessions: what earlier code expects of a pool."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snakepit_ray.errors import SessionExpired, SessionNotFound, SnakepitError

if TYPE_CHECKING:
    from snakepit_ray.client.pool import Pool

CREATE, EXECUTE = "create_program", "execute_program"
ANONYMOUS = "anonymous"
log = logging.getLogger("snakepit_ray")


class SessionHelpers:
    """Commands whose programs outlive the interpreter that has made them."""

    @staticmethod
    def execute_program_command(
        pool: Pool,
        session_id: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Calls a command in a session, and keeps its program.

        - `create_program`: what the command returns is kept with the session, which is made where there is
          none. The program's id is `program_id` of the result, or of the arguments. A program that cannot be
          kept is logged, and the result returned.
        - `execute_program`: the command gets the program that is kept under its argument `program_id` as the
          argument `program_data`. Without such a program it is called as it is.
        - Any other command is called as it is.

        Args:
            pool: whose command it is.
            session_id: of the session. None and "anonymous" are none: nothing is kept and found.
            command: its name.
            args: its arguments.
            options: call options, as those of `pool.execute`.

        Returns: the command's value. Blocks.

        Raises: what `pool.execute` raises.
        """
        given = dict(args or {})
        if session_id is None or session_id == ANONYMOUS:
            return pool.execute(command, given, **options)
        if command == EXECUTE:
            given = _with_program(pool, session_id, given)
        value = pool.execute(command, given, session=session_id, **options)
        if command == CREATE:
            _keep(pool, session_id, given, value)
        return value


def _with_program(pool: Pool, session_id: str, args: dict[str, Any]) -> dict[str, Any]:
    name = args.get("program_id")
    if not isinstance(name, str):
        return args
    try:
        program = pool.sessions.get_program(session_id, name)
    except (SessionNotFound, SessionExpired):
        program = None
    return args if program is None else {**args, "program_data": program}


def _keep(pool: Pool, session_id: str, args: Mapping[str, Any], value: Any) -> None:
    name = value.get("program_id") if isinstance(value, Mapping) else None
    name = name or args.get("program_id")
    if not isinstance(name, str):
        return
    try:
        pool.sessions.store_program(session_id, name, value)
    except SnakepitError as error:
        log.warning("program %r of session %r is not kept: %s", name, session_id, error)
