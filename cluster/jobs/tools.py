"""Commands that call back: functions of this program, and commands of another pool.

    ./dev shell python cluster/jobs/tools.py                               # on this machine
    ray job submit --working-dir cluster -- python jobs/tools.py           # as a job of a cluster

Each line of the output says what was done and what came of it. A line that is not as it must be ends the
program with an error.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from showing import join_ray, show

import snakepit_ray as snakepit


def main() -> None:
    join_ray()
    with snakepit.start(name="callers", size=2) as pool, snakepit.start(name="adders", size=1) as other:
        run(pool, other)


def run(pool: snakepit.Pool, other: snakepit.Pool) -> None:
    call_functions(pool)
    show("a command of another pool is a tool", use(pool, f"{other.name}.add", a=2, b=3), {"result": 5})
    describe(pool)
    fail(pool)


def call_functions(pool: snakepit.Pool) -> None:
    """A tool has the live objects of the process that registered it. A session's own goes before the
    pool's."""
    stock, lock = {"tea": 3}, threading.Lock()

    def take(item: str) -> int:
        """Takes one of the stock; how many are left."""
        with lock:
            stock[item] -= 1
            return stock[item]

    pool.register_tool("take", take)
    left = sorted(use(pool, "take", item="tea") for _ in range(3))
    show("three calls take from one stock, which is here", (left, stock["tea"]), ([0, 1, 2], 0))
    pool.register_tool("take", lambda item: -1, session="guest")
    show("a session has a tool of its own", use(pool, "take", session="guest", item="tea"), -1)
    pool.register_tool("pid", os.getpid, where="worker")
    in_a_worker = use(pool, "pid") in [worker.actor_pid for worker in pool.workers()]
    show("a tool runs in the worker's actor", in_a_worker, True)


def describe(pool: snakepit.Pool) -> None:
    """What a language model, or a form, needs to know."""
    tools = {tool.name: tool for tool in pool.describe().tools}
    show("its schema says what a tool takes", tools["take"].parameters["required"], ["item"])


def fail(pool: snakepit.Pool) -> None:
    """An error of a tool arrives with its type and its message."""
    pool.register_tool("refuse", lambda: {}["nothing"])
    try:
        use(pool, "refuse")
    except snakepit.CommandError as error:
        show("an error of a tool reaches the caller", "'nothing'" in str(error), True)
    try:
        use(pool, "tale")
    except snakepit.CommandError as error:
        show("a typing error names what there is", "take" in str(error), True)


def use(pool: snakepit.Pool, tool_name: str, session: str | None = None, **arguments: Any) -> Any:
    """What a command gets that calls the tool."""
    options = {} if session is None else {"session": session}
    return pool.execute("call_host_demo", {"tool_name": tool_name, **arguments}, **options)


if __name__ == "__main__":
    main()
