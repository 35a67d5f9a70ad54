"""An adapter that imports nothing, and says what is loaded."""

import sys

from snakepit_bridge import Adapter, command


class Loaded(Adapter):
    __thread_safe__ = True

    @command
    def modules(self):
        names = ("numpy", "pyarrow", "asyncio.base_events", "grpc.aio._server")
        return [name for name in names if name in sys.modules]

    @command
    def of_grpc(self):
        return [name for name in sys.modules if name.partition(".")[0] == "grpc"]

    @command
    def grpc_aio(self):
        import grpc.aio

        return callable(grpc.aio.insecure_channel) and grpc.aio.server.__module__
