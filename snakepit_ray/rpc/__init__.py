"""One gRPC connection to one interpreter: the only room that imports grpc."""

from snakepit_ray.rpc.client import InterpreterClient, InterpreterLost

__all__ = ["InterpreterClient", "InterpreterLost"]
