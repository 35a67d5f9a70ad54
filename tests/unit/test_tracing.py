"""Ray's tracing hands every method of an actor a keyword, and takes it away again from plain methods only."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from snakepit_ray.port.ray_port import TRACE_KEYWORD
from snakepit_ray.router.actor import RouterActor
from snakepit_ray.worker.actor import WorkerActor


def generators(actor: type) -> list[Any]:
    methods = (method for _, method in inspect.getmembers(actor, inspect.isfunction))
    return [m for m in methods if inspect.isasyncgenfunction(m) or inspect.isgeneratorfunction(m)]


@pytest.mark.parametrize("actor", [RouterActor, WorkerActor])
def test_every_generator_method_takes_the_keyword_of_rays_tracing(actor: type) -> None:
    methods = generators(actor)
    assert methods
    for method in methods:
        keyword = inspect.signature(method).parameters.get(TRACE_KEYWORD)
        assert keyword is not None, f"{method.__qualname__}: streams end with TypeError under tracing"
        assert (keyword.kind, keyword.default) == (inspect.Parameter.KEYWORD_ONLY, None)
