"""The way of a call to its worker: by the worker's lane where that can be, else as a Ray actor call.

Both ways lead into the same entry of the worker. A request that has gone by a lane goes by Ray when the lane
ends before its answer, with the same id: its worker does not run it a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from snakepit_ray.client.answers import LaneCall
from snakepit_ray.client.directory import Directory, Target
from snakepit_ray.client.lanes import Waits
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb


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
