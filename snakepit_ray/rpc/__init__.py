"""One gRPC connection to one interpreter: the only room that imports grpc."""

from snakepit_ray.rpc.client import InterpreterClient, InterpreterLost
from snakepit_ray.rpc.host_calls import HostCall, HostHandler, HostSide

__all__ = ["HostCall", "HostHandler", "HostSide", "InterpreterClient", "InterpreterLost"]
