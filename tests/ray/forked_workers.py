"""Ray's worker processes of the tests' cluster, forked from a process that has imported Ray.

Ray starts each worker as a fresh Python that imports Ray twice: 4 of the 6 s of processor time that a pool of
two costs. In place of Ray's `setup_worker.py` the tests' node starts this file. It has the worker forked from
a *template*, a process that has imported Ray and this package once, and stays until the worker has ended.

- The worker runs Ray's program, with the arguments, environment, directory and output that Ray gave.
- Ray's C++ half reads its settings when it is imported, the job's number among them. So there is a template
  for each set of RAY_ variables; the first worker that needs it starts it.
- A template ends with its raylet, as Ray's own workers do. Its workers end with it: Ray has them killed when
  their parent dies. One that has none, and was asked for none in IDLE_SECONDS, ends as well.
- A worker with a runtime environment of its own is started as ever.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile

IDLE_SECONDS = 20.0
FOLDER = "SNAKEPIT_TEST_TEMPLATES"  # an environment variable: where the templates' sockets are
CONTEXT = "--serialized-runtime-env-context="
OF_THE_CONTEXT = ("py_executable",)  # set in every one
LENGTH = struct.Struct("!I")


def install() -> None:
    """Has the nodes that this process starts from now on start their workers so."""
    from ray._private import ray_constants

    ray_constants.SETUP_WORKER_FILENAME = os.path.abspath(__file__)  # joined to a folder, which it replaces
    folder = os.environ.setdefault(FOLDER, os.path.join(tempfile.gettempdir(), "templates"))
    os.makedirs(folder, exist_ok=True)


# ---- in place of setup_worker.py ---------------------------------------------------------------------------


def stand_in(arguments: list[str]) -> None:
    """Has the worker forked, and waits for its end."""
    contexts = [json.loads(one[len(CONTEXT) :] or "{}") for one in arguments if one.startswith(CONTEXT)]
    own = any(value for context in contexts for key, value in context.items() if key not in OF_THE_CONTEXT)
    if own or "--language=PYTHON" not in arguments:
        start_as_ever(arguments)
    with _connected() as link:
        worker = [one for one in arguments if not one.startswith((CONTEXT, "--language="))]
        said = json.dumps({"argv": worker, "environ": dict(os.environ), "cwd": os.getcwd()}).encode()
        descriptors = array.array("i", [0, 1, 2])
        link.sendmsg([LENGTH.pack(len(said))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        link.sendall(said)
        link.recv(1)  # nothing comes: it is closed when the worker has ended


def start_as_ever(arguments: list[str]) -> None:
    """Goes on as Ray's own program."""
    import ray._private.workers as workers

    path = os.path.join(next(iter(workers.__path__)), "setup_worker.py")
    os.execv(sys.executable, [sys.executable, path, *arguments])


def _connected() -> socket.socket:
    """To the template of these RAY_ variables, which is started where there is none."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith(("RAY_", "PYTHON")))
    name = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
    path = os.path.join(os.environ[FOLDER], name)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(path)
        except OSError:
            command = [sys.executable, os.path.abspath(__file__), "template", path]
            subprocess.run(command, check=True)
            link.connect(path)
        return link


# ---- the template ------------------------------------------------------------------------------------------


def template(path: str) -> None:
    """Imports Ray, and forks what is asked for. The process that was started ends as soon as it listens."""
    import ray._private.workers.default_worker  # noqa: F401

    import snakepit_ray.router.actor
    import snakepit_ray.worker.actor  # noqa: F401

    with contextlib.suppress(ImportError):  # which Ray imports for a worker's first task
        import starlette.datastructures  # noqa: F401

    with contextlib.suppress(OSError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))  # readable when it has ended
    while True:
        ready, _, _ = select.select([listener, raylet], [], [], IDLE_SECONDS)
        if raylet in ready or (not ready and not _has_workers()):
            break
        if not ready:
            continue
        link, _ = listener.accept()
        if not os.fork():
            listener.close()
            os.close(raylet)
            worker(link)
        link.close()
    with contextlib.suppress(OSError):
        os.unlink(path)


def _has_workers() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def worker(link: socket.socket) -> None:
    """Runs what the stand-in says, in the process that was forked for it."""
    import runpy

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # the raylet kills the process group of a worker that has ended
    size = array.array("i").itemsize
    head, control, _, _ = link.recvmsg(LENGTH.size, socket.CMSG_LEN(3 * size))
    descriptors = array.array("i", control[0][2])
    left, said = LENGTH.unpack(head)[0], b""
    while left > len(said):
        said += link.recv(left - len(said))
    told = json.loads(said)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(told["environ"])
    os.chdir(told["cwd"])
    sys.argv = told["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["template"]:
        template(sys.argv[2])
    else:
        stand_in(sys.argv[1:])
