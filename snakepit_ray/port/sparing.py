"""What Ray loads in every process that serializes, put off in the processes of our workers.

When a process serializes for the first time, Ray registers serializers for objects of pydantic, starlette and
pyarrow. It imports these libraries to do so, where they are installed: a fifth of the processor time of an
actor's start, and 17 MB. A worker moves bytes and sends no such object.

- Only the process of a worker's actor does without. Callers, the router and users' own actors do not.
- What others send is read as ever: a pickle names what it needs, and that is imported then.
- Where one of these libraries is loaded already, Ray does what it always does.
"""

from __future__ import annotations

import sys
from typing import Any

import ray

LIBRARIES = ("pyarrow", "pydantic", "starlette")


def spare_libraries(actor_class: str) -> bool:
    """Puts these libraries off where this process is about to become an actor of that class; whether it is.

    For the class's module, while it is imported: Ray serializes right after it. `actor_class`: the module and
    the name of the class."""
    if not _is_becoming(actor_class):
        return False
    try:
        from ray.util import serialization_addons as addons
    except ImportError:  # another version of Ray: it loads what it wants to
        return False
    register = getattr(addons, "apply", None)
    if register is None:
        return False

    def apply(context: Any) -> None:
        if any(name in sys.modules for name in LIBRARIES):
            register(context)

    addons.apply = apply
    return True


def _is_becoming(actor_class: str) -> bool:
    worker = ray._private.worker.global_worker
    if worker.mode != ray.WORKER_MODE:
        return False
    context = ray.get_runtime_context()
    ask = getattr(context, "get_task_function_name", None)  # what a later Ray has not is no loss
    return ask is not None and bool(ask() == f"{actor_class}.__init__")
