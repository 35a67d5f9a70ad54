"""How a start is made cheap: imports that a library makes but this process may never need are put off, and
modules are imported without the garbage collector.

A stand-in is in `sys.modules` only while the library is imported, before any user's code runs. Afterwards
only that library has it, and every other import gets the real module in the ordinary way, under Python's own
import locks. What is asked of a stand-in is answered by the real module, imported then.

Measured on Python 3.11: grpc imports its asyncio half (80 ms of CPU), asyncio itself (24 ms), protobuf its
pure-Python half (60 ms), `socket` and `calendar` (3 ms each) and `pkgutil` (1 ms) in every interpreter, and a
bridge uses none of them before a command does; a pool of 20 pays that 20 times at its start.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import ModuleType


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


class putting_off:  # noqa: N801 - as above
    """`with putting_off("asyncio", ...):` around the import of a library: it gets stand-ins for these
    modules, those that are loaded already excepted. No other thread may import anything meanwhile.

    Python itself cannot have two threads import a package and a module of it for the first time at one
    moment (it breaks the deadlock by an exception). Where commands run in several threads nothing that they
    are likely to meet in that way should be put off.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def __enter__(self) -> None:
        self._made = {name: _StandIn(name) for name in self._names if name not in sys.modules}
        sys.modules.update(self._made)

    def __exit__(self, *_) -> None:
        for name, stand_in in self._made.items():
            _forget(name, stand_in)
            above, _, last = name.rpartition(".")
            package = sys.modules.get(above)
            if package is not None and package.__dict__.get(last, stand_in) is stand_in:
                package.__dict__.pop(last, None)
                _import_when_asked(package, last)


class _StandIn(ModuleType):
    """Answers as the module of its name does."""

    def __getattr__(self, attribute: str):
        name = self.__name__
        _forget(name, self)
        return getattr(import_module(name), attribute)


def _forget(name: str, stand_in: ModuleType) -> None:
    if sys.modules.get(name) is stand_in:
        del sys.modules[name]


def _import_when_asked(package: ModuleType, part: str) -> None:
    """`package.part` works as it does where the package imports its part by itself."""
    before = package.__dict__.get("__getattr__")

    def find(attribute: str):
        if attribute == part:
            return import_module(f"{package.__name__}.{part}")
        if before is not None:
            return before(attribute)
        raise AttributeError(f"module {package.__name__!r} has no attribute {attribute!r}")

    package.__getattr__ = find
