"""One connection to one interpreter, over gRPC or frames: the only room that imports grpc."""

from snakepit_ray.rpc.client import InterpreterClient, InterpreterLost
from snakepit_ray.rpc.host_calls import HostSide
from snakepit_ray.rpc.opening import client_to, load_grpc

__all__ = ["HostSide", "InterpreterClient", "InterpreterLost", "client_to", "load_grpc"]
