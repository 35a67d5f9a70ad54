"""Which shape should the wire have? Unary calls plus a Host server of the worker's own, or one bidi stream
for both.

Each shape runs in fresh processes, interleaved round by round: a host (grpc.aio, as in the worker actor) and
a child (sync server, as in the interpreter) over a unix socket. Figures: microseconds of processor time a
call on each side, calls a second, p50 of a lone caller, the host's private memory (USS) beside what Python
alone has."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil

from snakepit_ray.wire._pb import interpreter_pb2 as pb

SERVICE = "snakepit.v1.Interpreter"
REQUEST = pb.Request(id="1", command="add", args=pb.Payload(json=b'{"a":5,"b":3}'), budget_ms=60000)
VALUE = pb.Payload(json=b'{"result":8}')


# ---- the child ---------------------------------------------------------------------------------------------


def serve(shape: str, address: str) -> None:
    import grpc

    unary = grpc.unary_unary_rpc_method_handler(
        execute, request_deserializer=pb.Request.FromString, response_serializer=pb.Reply.SerializeToString
    )
    stream = grpc.stream_stream_rpc_method_handler(
        attach,
        request_deserializer=pb.ToInterpreter.FromString,
        response_serializer=pb.FromInterpreter.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {"Execute": unary} if shape == "unary" else {"Attach": stream}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps({"cpu": cpu()}), flush=True)
    os._exit(0)


def execute(request: pb.Request, context: object) -> pb.Reply:
    return pb.Reply(id=request.id, value=VALUE)


def attach(frames: Iterator[pb.ToInterpreter], context: object) -> Iterator[pb.FromInterpreter]:
    """As in the bridge: a reader, a thread for the command, and this one, which writes what has gathered."""
    work: queue.SimpleQueue = queue.SimpleQueue()
    replies: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=read, args=(frames, work, replies), daemon=True).start()
    threading.Thread(target=run, args=(work, replies), daemon=True).start()
    while (reply := replies.get()) is not None:
        frame = pb.FromInterpreter(replies=[reply])
        while not replies.empty() and (reply := replies.get()) is not None:
            frame.replies.append(reply)
        yield frame


def read(frames: Iterator[pb.ToInterpreter], work: queue.SimpleQueue, replies: queue.SimpleQueue) -> None:
    try:
        for frame in frames:
            for request in frame.requests:
                work.put(request)
    except Exception:  # the host ended the stream by ending: nothing more comes
        replies.put(None)


def run(work: queue.SimpleQueue, replies: queue.SimpleQueue) -> None:
    while True:
        replies.put(pb.Reply(id=work.get().id, value=VALUE))


# ---- the host ----------------------------------------------------------------------------------------------


async def host(shape: str, address: str, calls: int, in_flight: int) -> dict[str, float]:
    bare = uss()
    import grpc.aio

    channel = grpc.aio.insecure_channel(address)
    if shape == "unary":
        call = await unary_caller(grpc.aio, channel, address + ".host")
    else:
        call = await stream_caller(channel)
    await many(call, 200, in_flight)
    began, used = time.perf_counter(), cpu()
    await many(call, calls, in_flight)
    seconds, used = time.perf_counter() - began, cpu() - used
    alone = []
    for _ in range(500):
        start = time.perf_counter()
        await call()
        alone.append(time.perf_counter() - start)
    return {
        "host_us": used / calls * 1e6,
        "rate": calls / seconds,
        "p50_ms": statistics.median(alone) * 1e3,
        "host_mb": uss() - bare,
        "total_calls": calls + 700,
    }


async def unary_caller(aio: object, channel: object, host_address: str):
    """The shape with two servers: the Host service is served too, since its memory belongs to the price."""
    import grpc

    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("snakepit.v1.Host", {"Call": handler}),)
    )
    server.add_insecure_port(host_address)
    await server.start()
    method = channel.unary_unary(
        f"/{SERVICE}/Execute",
        request_serializer=pb.Request.SerializeToString,
        response_deserializer=pb.Reply.FromString,
    )

    async def call() -> pb.Reply:
        return await method(REQUEST, timeout=60)

    call.keep = server  # the server lives as long as its caller
    return call


async def stream_caller(channel: object):
    stream = channel.stream_stream(
        f"/{SERVICE}/Attach",
        request_serializer=pb.ToInterpreter.SerializeToString,
        response_deserializer=pb.FromInterpreter.FromString,
    )()
    waiting: dict[str, asyncio.Future] = {}
    state = {"outgoing": pb.ToInterpreter(), "writing": False, "number": 0}
    loop = asyncio.get_running_loop()

    async def read() -> None:
        async for frame in stream:
            for reply in frame.replies:
                waiting.pop(reply.id).set_result(reply)

    async def write() -> None:
        while state["outgoing"].requests:
            frame, state["outgoing"] = state["outgoing"], pb.ToInterpreter()
            await stream.write(frame)
        state["writing"] = False

    tasks = [loop.create_task(read())]

    async def call() -> pb.Reply:
        state["number"] += 1
        request = pb.Request()
        request.CopyFrom(REQUEST)
        request.id = str(state["number"])
        future = waiting[request.id] = loop.create_future()
        state["outgoing"].requests.append(request)
        if not state["writing"]:
            state["writing"] = True
            tasks[1:] = [loop.create_task(write())]
        return await future

    return call


async def many(call, calls: int, in_flight: int) -> None:
    numbers = iter(range(calls))

    async def caller() -> None:
        for _ in numbers:
            await call()

    await asyncio.gather(*(caller() for _ in range(in_flight)))


# ---- rounds ------------------------------------------------------------------------------------------------


def round_of(shape: str, calls: int, in_flight: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as directory:
        address = f"unix:{directory}/s"
        argv = [sys.executable, "-m", "benchmarks.wire_shape", "--serve", shape, "--address", address]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline().strip() == "ready"
        argv = [sys.executable, "-m", "benchmarks.wire_shape", "--host", shape, "--address", address]
        argv += ["--calls", str(calls), "--in-flight", str(in_flight)]
        row = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        said, _ = child.communicate("")
        row["child_us"] = json.loads(said)["cpu"] / row["total_calls"] * 1e6
        return row


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def uss() -> float:
    return psutil.Process().memory_full_info().uss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=["unary", "stream"])
    parser.add_argument("--host", choices=["unary", "stream"])
    parser.add_argument("--address")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.address)
    if args.host:
        return print(json.dumps(asyncio.run(host(args.host, args.address, args.calls, args.in_flight))))
    rows: dict[str, list] = {"unary": [], "stream": []}
    for _ in range(args.rounds):
        for shape, kept in rows.items():
            kept.append(round_of(shape, args.calls, args.in_flight))
    medians = {}
    for shape, kept in rows.items():
        medians[shape] = {key: statistics.median(row[key] for row in kept) for key in kept[0]}
    heads = f"{args.rounds} rounds, {args.in_flight} in flight"
    print(f"| {heads} | unary + Host server | one bidi stream |\n|---|---|---|")
    for key, name in (
        ("host_us", "host, µs CPU a call"),
        ("child_us", "child, µs CPU a call"),
        ("rate", "calls/s"),
        ("p50_ms", "p50 of a lone caller, ms"),
        ("host_mb", "host, MB of its own for grpc"),
    ):
        print(f"| {name} | {medians['unary'][key]:.4g} | {medians['stream'][key]:.4g} |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"rounds": rows, "medians": medians}, file, indent=1)


if __name__ == "__main__":
    main()
