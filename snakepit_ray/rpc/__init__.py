"""One gRPC connection to one interpreter: the only room that imports grpc."""

from snakepit_ray.rpc.client import InterpreterClient, InterpreterLost
from snakepit_ray.rpc.host_calls import HostSide

__all__ = ["HostSide", "InterpreterClient", "InterpreterLost"]
