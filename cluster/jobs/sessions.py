"""State that outlives its interpreter: variables of sessions, seen by callers and by commands of two pools.

    ./dev shell python cluster/jobs/sessions.py                            # on this machine
    ray job submit --working-dir cluster -- python jobs/sessions.py        # as a job of a cluster

Each line of the output says what was done and what came of it. A line that is not as it must be ends the
program with an error.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from showing import join_ray, show

import snakepit_ray as snakepit

WRITERS, INCREMENTS = 8, 25


def main() -> None:
    join_ray()
    with (
        snakepit.start(name="writers", size=2, affinity="strict_queue") as pool,
        snakepit.start(name="readers", size=1) as other,
    ):
        run(pool, other)


def run(pool: snakepit.Pool, other: snakepit.Pool) -> None:
    session = pool.session("demo")
    share(session, other)
    survive(pool, session)
    count(session)
    watch(session)
    refuse(session)
    print("the session is deleted:", pool.sessions.delete("demo"), flush=True)


def share(session: snakepit.Session, other: snakepit.Pool) -> None:
    """A variable that a caller has registered steers a command, in another pool, too."""
    session.variables.register("temperature", "float", 0.2, {"min": 0, "max": 2})
    text = session.execute("generate_text", {"prompt": "Once"})
    show("a command reads the caller's variable", text["temperature"], 0.2)
    session.variables.set("temperature", 1.5)
    seen = other.session("demo").execute("get_variable", {"name": "temperature"})
    show("a command of another pool sees the new one", (seen["value"], seen["version"]), (1.5, 2))


def survive(pool: snakepit.Pool, session: snakepit.Session) -> None:
    """What is in an interpreter goes with it; a variable stays."""
    session.execute("set_counter", {"value": 7})
    os.kill(session.execute("get_worker_info")["worker_pid"], signal.SIGKILL)
    pool.await_ready()
    counter = session.execute("get_counter", rebind=True)["value"]
    value = session.execute("get_variable", {"name": "temperature"})["value"]
    show("after a SIGKILL of the interpreter: its counter, the variable", (counter, value), (0, 1.5))


def count(session: snakepit.Session) -> None:
    """Writers who expect a version lose no increment of each other."""
    variables = session.variables
    variables.register("visits", "integer", 0)

    def increment() -> None:
        done = 0
        while done < INCREMENTS:
            value, version = variables.get_versioned("visits")
            try:
                variables.set("visits", value + 1, expected_version=version)
            except snakepit.VersionConflict:
                continue
            done += 1

    in_threads(increment)
    total = WRITERS * INCREMENTS
    found = variables.get_versioned("visits")
    show(f"{WRITERS} writers, {INCREMENTS} increments each: value, version", tuple(found), (total, total + 1))


def watch(session: snakepit.Session) -> None:
    """A watcher sees rising versions, and ends with the newest."""
    with session.variables.watch("temperature") as changes:
        first = next(changes).version
        writer = threading.Thread(
            target=lambda: [session.variables.set("temperature", n / 10) for n in range(20)]
        )
        writer.start()
        versions = [first]
        while versions[-1] < first + 20:
            versions.append(next(changes).version)
        writer.join()
    show("a watcher's versions rise, and end with the newest", versions == sorted(set(versions)), True)


def refuse(session: snakepit.Session) -> None:
    """A value that breaks a constraint changes nothing."""
    try:
        session.variables.set("temperature", 9.0)
    except snakepit.ConstraintViolation as error:
        show("9.0 is refused by the constraint", (error.rule, error.bound), ("max", 2))


def in_threads(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
