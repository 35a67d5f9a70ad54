"""Runs the function of a tool: in the process that registered it, in a worker actor, in a Ray task.

- Arguments arrive encoded and are bound to the function's signature, so that a wrong name is InvalidArguments
  and the function is not called.
- What the function makes of itself travels: its value encoded, its error as a failure with its traceback.
- What the function calls is a part of the chain that led to it, has no more time than its caller, and is a
  child of its caller's span.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from snakepit_ray.errors import EncodingError, InvalidArguments
from snakepit_ray.port.tool_messages import ToolAnswer, ToolCall
from snakepit_ray.telemetry import trace_context
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import decode_value, encode_value, portable_buffers
from snakepit_ray.wire.failures import failure_of

Function = Callable[..., Any]
OnCall = Callable[[], None] | None


def is_stream(function: Function) -> bool:
    """Whether it yields values, to be taken one by one."""
    plain = _plain(function)
    return inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)


def is_async(function: Function) -> bool:
    """Whether it belongs on an event loop."""
    plain = _plain(function)
    return inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)


def _plain(function: Function) -> Function:
    """The function that says what calling it gives."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        function = getattr(function, "__call__", function)  # noqa: B004 - the method itself is looked at
    return function


@contextlib.contextmanager
def on_behalf_of(call: ToolCall, began: float, on_call: OnCall = None) -> Iterator[None]:
    """What is done in this block is done for the call, which came at `began` (time.monotonic()). `on_call`
    is called when it calls a pool."""
    chain = pb.Chain.FromString(call.chain)
    deadline = None if call.seconds is None else began + call.seconds
    with (
        chains.entered(chains.Inside(chain, deadline, on_call)),
        trace_context.entered(call.traceparent, call.tracestate),
    ):
        yield


def bound(function: Function, call: ToolCall) -> Callable[[], Any]:
    """The function with the arguments of the call. Raises InvalidArguments, EncodingError."""
    args = decode_value(call.json, call.buffers, "args")
    if not isinstance(args, dict):
        raise InvalidArguments(f"tool {call.name!r}: its arguments are an object, got {args!r:.80}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C, without a signature
        return functools.partial(function, **args)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise InvalidArguments(f"tool {call.name!r}: {error}; it takes {_words(signature)}") from None
    return functools.partial(function, **args)


def _words(signature: inspect.Signature) -> str:
    """The arguments, without annotations, which may be long."""
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return ", ".join(map(str, bare)) or "no arguments"


def value_answer(call_id: int, value: Any, *, is_last: bool) -> ToolAnswer:
    """The answer that has a value. Raises EncodingError, which names the value's path."""
    encoded = encode_value(value, root="result")
    return ToolAnswer(call_id, encoded.json, portable_buffers(encoded.buffers), b"", True, is_last)


def failed_answer(call_id: int, error: BaseException) -> ToolAnswer:
    """The answer that ends a call with what its function raised."""
    return ToolAnswer(call_id, failure=failure_of(_without_our_frames(error)).SerializeToString())


def run(function: Function, call: ToolCall, on_call: OnCall = None) -> ToolAnswer:
    """Calls a function that gives one value, and waits for that: the answer."""
    try:
        with on_behalf_of(call, time.monotonic(), on_call):
            value = bound(function, call)()
            if inspect.iscoroutine(value):
                value = run_coroutine(value)
            return value_answer(call.id, value, is_last=True)
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - whatever it is, the command gets it
        return failed_answer(call.id, error)


def values(function: Function, call: ToolCall, on_call: OnCall = None) -> Generator[ToolAnswer]:
    """Calls a function that yields: an answer for each value, and the last. Closed, it closes the
    generator."""
    try:
        with on_behalf_of(call, time.monotonic(), on_call):
            made = bound(function, call)()
            given = _awaited(made) if inspect.isasyncgen(made) else made
            with contextlib.closing(given):
                for value in given:
                    yield value_answer(call.id, value, is_last=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the command gets it
        yield failed_answer(call.id, error)
    else:
        yield ToolAnswer(call.id)


def _awaited(made: Any) -> Generator[Any]:
    """The values of an async generator, which runs in a loop of its own."""
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(made.__anext__())
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(made.aclose())
        loop.close()


def run_coroutine(coroutine: Any) -> Any:
    """The result of an async function, in a loop of its own."""
    import asyncio

    return asyncio.run(coroutine)


def _without_our_frames(error: BaseException) -> BaseException:
    """An error whose traceback begins where the tool's own code does."""
    if isinstance(error, InvalidArguments | EncodingError):
        return error
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    return error.with_traceback(frames)


_OURS = {__file__, contextlib.__file__}
