"""The connection to one interpreter: what has arrived is read, and nothing of a connection stays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from snakepit_ray.rpc import HostSide, client_to
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.supervisor.harness import refuse_host_calls, until

# Answers the first request with many replies, ends the stream, and says so on its stdout.
INTERPRETER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from snakepit_ray.wire._pb import interpreter_pb2 as pb

def attach(frames, context):
    next(frames)
    yield pb.FromInterpreter(welcome=pb.Welcome())
    asked = next(frames).requests[0]
    for number in range(int(sys.argv[2])):
        reply = pb.Reply(id=f"{asked.id}-{number}", value=pb.Payload(json=b"1"))
        yield pb.FromInterpreter(replies=[reply])
    context.add_callback(lambda: print("ended", flush=True))

handler = grpc.stream_stream_rpc_method_handler(
    attach, pb.ToInterpreter.FromString, pb.FromInterpreter.SerializeToString
)
server = grpc.server(ThreadPoolExecutor(4))
service = grpc.method_handlers_generic_handler("snakepit.v1.Interpreter", {"Attach": handler})
server.add_generic_rpc_handlers((service,))
server.add_insecure_port(sys.argv[1])
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""


def test_what_arrived_before_a_write_failed_is_read_and_nothing_of_the_call_stays(tmp_path: Path) -> None:
    """grpc.aio takes a call whose write failed for done: it read no more of it, and never ended it in the
    core. Results that had arrived from an interpreter that ends were lost, and a task and two sockets stayed
    for each."""
    many, address = 200, f"unix:{tmp_path}/s"
    command = [sys.executable, "-c", INTERPRETER, address, str(many)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = iter(process.stdout)
    assert next(lines) == "ready\n"
    answers: list[Any] = []

    async def body() -> None:
        before = asyncio.all_tasks()
        client = client_to(address, "", "secret", HostSide("w-0", refuse_host_calls, Arena(0, 0, "w-0")))
        await client.connect(pb.Hello(), 20)
        for number in range(many):
            client._answers[f"r-{number}"] = answers.append
        client.request(pb.Request(id="r"), answers.append)
        await until(lambda: not client.is_writing)
        assert next(lines) == "ended\n"  # the loop stands still meanwhile: what came is not read yet
        client.cancel("r", pb.Cancel.CALLER)
        await client.lost
        await client.close()
        await until(lambda: asyncio.all_tasks() == before)

    try:
        asyncio.run(asyncio.wait_for(body(), 60))
    finally:
        process.kill()
        process.communicate()
    assert [answer and answer.value.json for answer in answers] == [b"1"] * many + [None]
