"""Knows how a start is made cheap: how to put off an import that a library makes but this process may never
need, and to import without the garbage collector.

Rule: whoever touches the module gets the whole of it. Measured on Python 3.11: grpc imports its asyncio half
(80 ms of CPU), asyncio itself (24 ms), protobuf its pure-Python half (60 ms) and `calendar` (3 ms) in every
interpreter, and a bridge uses none of them before a command does; a pool of 20 pays that 20 times at its
start.
"""

from __future__ import annotations

import gc
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock


class uncollected:  # noqa: N801 - used as contextlib's are, which a start has no need of
    """`with uncollected():` around imports: they leave nothing to collect, and looking takes 7 % of a start.
    A collector that is switched off stays so.
    """

    def __enter__(self) -> None:
        self._collects = gc.isenabled()
        gc.disable()

    def __exit__(self, *_) -> None:
        if self._collects:
            gc.enable()


def defer(name: str) -> bool:
    """Makes `import name` load nothing until an attribute is asked for; whether there is such a module to
    put off.
    """
    above = name.rpartition(".")[0]
    parent = find_spec(above) if above else None
    if name in sys.modules or (above and parent is None):
        return False
    spec = PathFinder.find_spec(name, parent.submodule_search_locations if parent is not None else None)
    if spec is None or spec.loader is None:
        return False
    module = module_from_spec(spec)
    lock = RLock()  # of this module: two threads that touch it first both get all of it
    pending = [spec.loader]

    def load(attribute: str):
        with lock:
            if pending:
                # first: what the module itself asks for while it loads must not come here again
                loader = pending.pop()
                try:
                    loader.exec_module(module)
                except BaseException:
                    pending.append(loader)
                    raise
                if module.__dict__.get("__getattr__") is load:
                    del module.__getattr__
        try:
            return module.__dict__[attribute]
        except KeyError:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}") from None

    module.__getattr__ = load
    sys.modules[name] = module
    package = sys.modules.get(above)
    if package is not None:  # otherwise the package itself binds the name while it is imported
        setattr(package, name.rpartition(".")[2], module)
    return True
