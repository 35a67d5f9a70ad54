"""The only module that knows gRPC: the unix socket, the secret, and the handlers written by hand.

- Every RPC needs the secret, health and reflection too.
- Commands never run in gRPC's threads.
- Nothing is decided here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from snakepit_bridge.server.deferred import putting_off
from snakepit_bridge.server.messages import PUT_OFF, pb
from snakepit_bridge.server.outgoing import Queued
from snakepit_bridge.server.secret import same
from snakepit_bridge.values.failures import ProtocolMismatch

with putting_off(*PUT_OFF):
    import grpc

    from snakepit_bridge.server import standard

SECRET_KEY = "snakepit-secret"
SERVICE = "snakepit.v1.Interpreter"
THREADS = 16  # created as they are needed: one for Attach, the others for health, reflection and Describe


def start(dispatcher, ready_line: bytes, on_shutdown) -> GrpcServer:
    """Serves on the socket of `dispatcher.config`; `on_shutdown(grace)` is called by the Shutdown RPC."""
    config = dispatcher.config
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="snakepit-grpc"),
        interceptors=(_Secret(config.secret),),
        options=(
            ("grpc.max_receive_message_length", -1),  # the limits are ours: max_message_size
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),  # a unix socket has no bandwidth to find out
        ),
    )
    running = GrpcServer(server)
    server.add_generic_rpc_handlers((_Handlers(dispatcher, ready_line, on_shutdown, running),))
    if not server.add_insecure_port(f"unix:{config.socket}"):
        raise OSError(f"cannot serve on {config.socket}")
    os.chmod(config.socket, 0o600)  # its directory is 0700 already
    server.start()
    return running


def prepare() -> None:
    """Imports what `start` would import; begins nothing of gRPC, so that this process may be forked."""
    for name in ("grpc._server", "grpc._interceptor", "grpc._utilities"):
        with contextlib.suppress(ImportError):  # another version's inside: `start` finds it
            importlib.import_module(name)


class GrpcServer:
    """A server that serves."""

    def __init__(self, server) -> None:
        self._server = server
        self.leaving = threading.Event()

    def leave(self) -> None:
        """Health says NOT_SERVING from now on."""
        self.leaving.set()

    def stop(self) -> None:
        """Ends every call, and the socket with them; what has been answered is delivered first."""
        self._server.stop(0.2).wait(0.5)


class _Secret(grpc.ServerInterceptor):
    """Lets a call through only if it carries the secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        # Answers as a stream does, because that ends any kind of call without reading it.
        self._refuse = grpc.stream_stream_rpc_method_handler(_unauthenticated)

    def intercept_service(self, continuation, handler_call_details):
        for key, value in handler_call_details.invocation_metadata:
            if key == SECRET_KEY and same(value.encode(), self._secret):
                return continuation(handler_call_details)
        return self._refuse


def _unauthenticated(requests, context):
    context.abort(grpc.StatusCode.UNAUTHENTICATED, f"the metadata {SECRET_KEY!r} is missing or wrong")
    yield b""


class _Handlers(grpc.GenericRpcHandler):
    """Every method that is served, by its path."""

    def __init__(self, dispatcher, ready_line: bytes, on_shutdown, running: GrpcServer) -> None:
        self._dispatcher = dispatcher
        self._ready_line = ready_line
        self._on_shutdown = on_shutdown
        self._leaving = running.leaving
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        self._methods = {
            f"/{SERVICE}/Attach": stream(
                self._attach, pb.ToInterpreter.FromString, pb.FromInterpreter.SerializeToString
            ),
            f"/{SERVICE}/Describe": unary(
                self._describe, pb.DescribeRequest.FromString, pb.Description.SerializeToString
            ),
            f"/{SERVICE}/Shutdown": unary(
                self._shutdown, pb.ShutdownRequest.FromString, pb.ShutdownReply.SerializeToString
            ),
            f"/{standard.HEALTH}/Check": unary(self._check),
            f"/{standard.HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        for name in standard.REFLECTION:
            self._methods[f"/{name}/ServerReflectionInfo"] = stream(
                standard.Reflection(name, SERVICE).answers
            )

    def service(self, handler_call_details):
        return self._methods.get(handler_call_details.method)

    def _attach(self, requests, context):
        try:
            out = Queued()
            attachment = self._dispatcher.attach(next(requests), out)
        except ProtocolMismatch as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (StopIteration, grpc.RpcError):  # it left before it said Hello
            return
        context.add_callback(attachment.close)

        def read() -> None:
            try:
                for frame in requests:
                    attachment.receive(frame)
            except grpc.RpcError:  # how grpc says that the call is over
                pass
            finally:  # whatever else it was: nobody reads this stream any more
                attachment.close()

        try:
            threading.Thread(target=read, name="snakepit-reader", daemon=True).start()
        except RuntimeError as error:  # no thread is left: nobody would read this stream
            attachment.close()
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        yield from out.frames()

    def _describe(self, request, context):
        return pb.Description(ready_json=self._ready_line, running=self._dispatcher.running())

    def _shutdown(self, request, context):
        self._dispatcher.refuse()  # before the answer to this, which says that it is so
        self._on_shutdown(request.grace_ms / 1000)
        return pb.ShutdownReply()

    def _check(self, request, context):
        status = self._status(standard.health_service(request))
        if status == standard.SERVICE_UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return standard.health_response(status)

    def _watch(self, request, context):
        status = self._status(standard.health_service(request))
        over = threading.Event()
        context.add_callback(over.set)
        yield standard.health_response(status)
        while not over.wait(0.25):  # two events to wait for: the end of the call, and that we stop
            now = self._status(standard.health_service(request))
            if now != status:
                status = now
                yield standard.health_response(status)

    def _status(self, service: str) -> int:
        if service not in ("", SERVICE):
            return standard.SERVICE_UNKNOWN
        serves = self._dispatcher.is_alive() and not self._leaving.is_set()
        return standard.SERVING if serves else standard.NOT_SERVING
