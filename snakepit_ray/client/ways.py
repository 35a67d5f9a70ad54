"""The way of a call to its worker: by the worker's lane where that can be, else as a Ray actor call.

Both ways lead into the same entry of the worker. A request that has gone by a lane goes by Ray when the lane
ends before its answer, with the same id: its worker does not run it a second time. A stream does not go
again: some of it may have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from snakepit_ray.client.answers import LaneCall
from snakepit_ray.client.chunk_refs import ChunkRefs
from snakepit_ray.client.directory import Directory, Target
from snakepit_ray.client.inbox import Inbox, LaneStream
from snakepit_ray.client.lanes import Waits
from snakepit_ray.port import ray_port
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.lane_parts import AHEAD_PARTS

# Chunks of `execute_stream.remote` that are produced and not taken, beside the worker's window.
AHEAD_REFS = 8


class Ways:
    """The ways of one process to the workers of one pool."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def request(self, target: Target, request: pb.Request, values: list[Any], waits: Waits) -> Any:
        """Sends one request: an ObjectRef, or an Answer. `values` travel beside it."""
        blob = request.SerializeToString()
        if waits is not Waits.REF and not values:
            answer = self._by_lane(
                target, request, lane.CALL, blob, lambda: target.execute.remote(blob), waits
            )
            if answer is not None:
                return answer
        return target.execute.remote(blob, *values)

    def batch(self, target: Target, requests: Sequence[pb.Request], values: list[Any], waits: Waits) -> Any:
        """Sends some requests that are one batch: an ObjectRef, or an Answer."""

        def by_ray() -> Any:
            blobs = [request.SerializeToString() for request in requests]
            return target.actor.execute_batch.remote(blobs, *values)

        if waits is not Waits.REF and not values:
            payload = lane.batch(requests)
            answer = self._by_lane(target, requests[0], lane.BATCH, payload, by_ray, waits)
            if answer is not None:
                return answer
        return by_ray()

    def stream(
        self, target: Target, request: pb.Request, values: list[Any], waits: Waits
    ) -> Inbox | ChunkRefs:
        """Sends one request whose command yields."""
        directory, blob = self._directory, request.SerializeToString()
        if waits is not Waits.REF and not values:

            def fetch(name: str) -> Any:
                directory.lanes.is_too_large(request.command)
                directory.check_open()
                return target.actor.fetch_kept.remote(name)

            call = LaneStream(request, blob, fetch)
            inbox = directory.lanes.stream(target.lane, target.worker_id, request.command, call, waits)
            if inbox is not None:
                return inbox
        ahead = AHEAD_PARTS if request.pack else AHEAD_REFS
        generator = ray_port.stream(target.actor, ahead, blob, *values)

        def end() -> None:
            if directory.is_current():
                ray_port.end_stream(generator, target.actor, request.id)

        return ChunkRefs(generator, end, directory.check_open)

    def _by_lane(
        self,
        target: Target,
        request: pb.Request,
        kind: int,
        payload: bytes,
        send_by_ray: Callable[[], Any],
        waits: Waits,
    ) -> Any:
        directory, command = self._directory, request.command

        def by_ray(is_large: bool) -> Any:
            if is_large:
                directory.lanes.is_too_large(command)
            directory.check_open()
            return send_by_ray()

        read = lane.reader_of(request, parts=bool(request.batch.count))
        call = LaneCall(request.id, kind, payload, read, by_ray)
        return directory.lanes.send(target.lane, target.worker_id, command, call, waits)
