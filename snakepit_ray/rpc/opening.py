"""Which connections a client needs: gRPC, frames, or frames for messages and gRPC for the rest.

gRPC is imported when the first interpreter needs it: it costs a process 35 MB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit_ray.rpc.client import InterpreterClient, Services
from snakepit_ray.rpc.frames_wire import FramesWire
from snakepit_ray.rpc.host_calls import HostSide

if TYPE_CHECKING:
    from snakepit_ray.rpc.grpc_wire import GrpcWire


def client_to(address: str, frames: str, secret: str, host: HostSide) -> InterpreterClient:
    """A client that is not connected yet.

    Args:
        address: of the interpreter's gRPC; "" where it has none.
        frames: path of its socket for frames; "" where messages travel over gRPC.
        secret: what it was told to ask for.
        host: what it meets here.
    """
    if not frames:
        wire = _grpc(address, secret)
        return InterpreterClient(wire, wire, host)
    carrier = FramesWire(frames, secret)
    services: Services = _grpc(address, secret) if address else carrier
    return InterpreterClient(carrier, services, host)


def load_grpc() -> None:
    """Imports gRPC, which takes a tenth of a second: not in an event loop."""
    from snakepit_ray.rpc import grpc_wire  # noqa: F401


def _grpc(address: str, secret: str) -> GrpcWire:
    from snakepit_ray.rpc.grpc_wire import GrpcWire

    return GrpcWire(address, secret)
