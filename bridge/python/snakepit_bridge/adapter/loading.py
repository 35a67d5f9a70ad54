"""How an adapter's name becomes an instance: "pkg.module:Class", "pkg.module.Class", "path/file.py",
"path/file.py:Class".

- Each step fails as a StartError that names its stage.
- A script that serves itself (ProtocolHandler.run) takes over while it is being run.
"""

from __future__ import annotations

import _thread
import importlib
import os
import sys
from importlib.util import find_spec
from types import BuiltinFunctionType

from snakepit_bridge.adapter.commands import MARK, Adapter
from snakepit_bridge.adapter.signature import Signature

SCRIPT_NAME = "__main__"
BUILT_IN = {"showcase": "snakepit_bridge.adapters.showcase:ShowcaseAdapter"}  # the same in every language


class StartError(Exception):
    """The interpreter cannot start: `stage` is config, interpreter, import, init, setup or serve."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"{stage}: {cause}")
        self.stage = stage
        self.cause = cause


class NotThreadSafe(TypeError):
    """The thread profile was asked for an adapter that is not declared safe for it."""


def shelter(spec: str) -> None:
    """Loads the module of the standard library that has the name of the adapter file, as asyncio.py has: the
    file's directory goes to the front of sys.path, and the file would be imported in that module's place.
    """
    path = BUILT_IN.get(spec, spec).partition(":")[0]
    stem = os.path.basename(path)[: -len(".py")]
    if path.endswith(".py") and _is_of_the_library(stem) and stem not in ("this", "antigravity"):
        importlib.import_module(stem)


def _is_of_the_library(stem: str) -> bool:
    try:
        found = sys.modules[stem].__spec__ if stem in sys.modules else find_spec(stem)
    except (ValueError, ImportError, AttributeError):  # "__main__"; no identifier
        return False
    if found is None or found.origin in ("built-in", "frozen"):
        return found is not None
    library = os.path.dirname(os.__file__) + os.sep
    place = (found.origin or "")[len(library) :]
    return (found.origin or "").startswith(library) and not place.startswith(
        ("site-packages", "dist-packages")
    )


def find_class(spec: str, directory: str):
    """The adapter class that `spec` names; None when `spec` is a script that has served and ended. Raises
    StartError("import").
    """
    try:
        path, _, name = BUILT_IN.get(spec, spec).partition(":")
        if path.endswith(".py"):
            return _from_file(os.path.join(directory, path), name)
        if name:
            return _attribute(importlib.import_module(path), name)
        return _from_dotted(path)
    except StartError:  # of a script that served itself
        raise
    except (Exception, SystemExit) as error:
        raise StartError("import", error) from error


def create(kind: type, args: dict, threaded: bool):
    """An instance of an adapter class. Raises StartError("init")."""
    try:
        if not isinstance(kind, type):
            raise TypeError(f"the adapter must be a class, got {kind!r:.200}")
        require_thread_safe(kind, threaded)
        if kind.__init__ is object.__init__:
            if args:
                raise TypeError(f"{kind.__name__} takes no adapter_args, got {', '.join(sorted(args))}")
            return kind()
        signature = Signature(f"{kind.__name__} (adapter_args)", kind.__init__, skip=1)
        return kind(**signature.check(dict(args)))
    except (Exception, SystemExit) as error:
        raise StartError("init", error) from error


def require_thread_safe(kind: type, threaded: bool) -> None:
    """Raises NotThreadSafe for the thread profile and an adapter that does not say that it is made for it."""
    if threaded and getattr(kind, "__thread_safe__", False) is not True:
        raise NotThreadSafe(
            f"{kind.__name__} is not declared thread-safe, and the thread profile runs its commands at the "
            "same time: if it is, set `__thread_safe__ = True` in the class or derive it from "
            "snakepit_bridge.ThreadSafeAdapter; "
            'otherwise use profile="process"'
        )


def require_threads() -> None:
    """Raises RuntimeError where something has replaced the threads of this process, as gevent's patch_all."""
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        who = getattr(_thread.start_new_thread, "__module__", None) or "a library"
        raise RuntimeError(
            f"{who} has replaced Python's threads (monkey patching), and gRPC, which serves this "
            "interpreter, needs real ones: with gevent call patch_all(thread=False), with eventlet "
            "monkey_patch(thread=False), or patch nothing in an adapter"
        )


def _from_dotted(spec: str):
    """A module, or a class in one: the longest importable prefix counts."""
    try:
        module = importlib.import_module(spec)
    except ModuleNotFoundError as error:
        parent, _, name = spec.rpartition(".")
        # Only a missing `spec` itself (or its parent not being a package) makes its last part a class.
        if not parent or error.name is None or not (spec + ".").startswith(error.name + "."):
            raise
        return _attribute(importlib.import_module(parent), name)
    return _only_adapter(module)


def _attribute(module, name: str):
    target = module
    for part in name.split("."):
        if not hasattr(target, part):
            import difflib

            near = difflib.get_close_matches(part, dir(target), 1)
            guess = f": did you mean {near[0]!r}?" if near else ""
            raise ImportError(f"{module.__name__} has no {name!r}{guess}")
        target = getattr(target, part)
    return target


def _from_file(path: str, name: str):
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no adapter file {path}")
    sys.path.insert(0, os.path.dirname(path))
    if name:
        stem = os.path.basename(path)[: -len(".py")]
        return _attribute(_run(path, f"{stem}_adapter" if _is_of_the_library(stem) else stem), name)
    from snakepit_bridge.adapter import protocol

    module = _run(path, SCRIPT_NAME)
    return None if protocol.served() else _only_adapter(module)


def _run(path: str, module_name: str):
    """Executes a file as the module `module_name`, which stays importable under that name (runpy would take
    it away again).
    """
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(module_name, path)
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def _only_adapter(module):
    """The one adapter class that a module defines."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and _is_adapter(value)
    ]
    found = [
        kind for kind in found if not any(other is not kind and issubclass(other, kind) for other in found)
    ]
    if len(found) == 1:
        return found[0]
    where = getattr(module, "__file__", None) or module.__name__
    if not found:
        raise ImportError(
            f"{where} defines no adapter: a class derived from snakepit_bridge.Adapter is expected"
        )
    names = ", ".join(sorted(kind.__name__ for kind in found))
    raise ImportError(
        f"{where} defines several adapters ({names}): name one, as in {module.__name__}:{found[0].__name__}"
    )


def _is_adapter(kind: type) -> bool:
    if issubclass(kind, Adapter) or getattr(kind, "__execute_methods__", False):
        return True
    return any(MARK in getattr(member, "__dict__", {}) for member in vars(kind).values())
