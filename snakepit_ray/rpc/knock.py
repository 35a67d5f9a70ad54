"""Asks the head of a Ray cluster whether it takes a token: Ray's own client tries for half a minute."""

from __future__ import annotations

import grpc

CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # any method does: the token is looked at first


def refuses(address: str, token: str | None, seconds: float) -> bool:
    """Whether the cluster at `address` refuses calls with that token (None: without one). False also where
    nobody can tell within `seconds`: then Ray's own client is to say what is wrong."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False
