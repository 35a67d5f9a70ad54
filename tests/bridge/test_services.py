"""The secret, health, reflection and Describe."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import SERVICE, TIMEOUT

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


@pytest.mark.parametrize("secret", ["", "wrong"])
@pytest.mark.parametrize("method", [HEALTH + "Check", SERVICE + "Describe", SERVICE + "Shutdown", "/no/such"])
def test_every_call_needs_the_secret(commands, method: str, secret: str) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        commands.unary(method, secret=secret)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as failed:
        commands.channel.unary_unary(method)(b"", timeout=TIMEOUT)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "method", [SERVICE + "Attach", HEALTH + "Watch", REFLECTION.format("v1"), REFLECTION.format("v1alpha")]
)
def test_every_stream_needs_the_secret(commands, method: str) -> None:
    call = commands.channel.stream_stream(method)(
        iter([b""]), metadata=commands.metadata("no"), timeout=TIMEOUT
    )
    with pytest.raises(grpc.RpcError) as failed:
        list(call)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_unknown_methods_are_unimplemented(commands) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        commands.unary(SERVICE + "Nothing")
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", "snakepit.v1.Interpreter"])
def test_health_is_answered_while_commands_run(commands, stream, service: str) -> None:
    busy = [stream.request("wait_until_cancelled") for _ in range(2)]
    stream.until(lambda: len(stream.host_calls) == 2)
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    response = health_pb2.HealthCheckResponse.FromString(commands.unary(HEALTH + "Check", request))
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    for one in busy:
        stream.cancel(one)
        stream.reply(one)


def test_health_of_another_service_is_unknown(commands) -> None:
    for request in (
        health_pb2.HealthCheckRequest(service="x" * 300).SerializeToString(),
        b"\xff",
        b"\x0a\xff",
    ):
        with pytest.raises(grpc.RpcError) as failed:
            commands.unary(HEALTH + "Check", request)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_says_when_it_stops_serving(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    stream.request("wait_until_cancelled", {"ending": "value"})
    stream.until(lambda: stream.host_calls)
    call = one.channel.unary_stream(
        HEALTH + "Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )(b"", metadata=one.metadata(), timeout=TIMEOUT)
    assert next(call).status == health_pb2.HealthCheckResponse.SERVING
    one.unary(SERVICE + "Shutdown", pb.ShutdownRequest(grace_ms=2000).SerializeToString())
    assert next(call).status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_answers_in_both_versions(commands, version: str) -> None:
    message = reflection_pb2.ServerReflectionRequest
    requests = [
        message(list_services=""),
        message(file_containing_symbol="grpc.health.v1.Health"),
        message(file_by_filename="snakepit/v1/interpreter.proto"),
        message(file_containing_symbol="no.such.Symbol"),
        message(all_extension_numbers_of_type="snakepit.v1.Reply"),
        message(),
    ]
    call = commands.channel.stream_stream(
        REFLECTION.format(version),
        request_serializer=message.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(requests), metadata=commands.metadata(), timeout=TIMEOUT)
    services, health, interpreter, missing, extensions, empty = list(call)
    assert [service.name for service in services.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "snakepit.v1.Interpreter",
    ]
    assert b"HealthCheckRequest" in health.file_descriptor_response.file_descriptor_proto[0]
    assert interpreter.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert extensions.all_extension_numbers_response.base_type_name == "snakepit.v1.Reply"
    assert empty.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_the_standard_client_understands_what_reflection_says(commands) -> None:
    channel = grpc.intercept_channel(commands.channel, _WithSecret(commands.secret))
    database = ProtoReflectionDescriptorDatabase(channel)
    file = database.FindFileByName("grpc/health/v1/health.proto")
    assert [method.name for method in file.service[0].method] == ["Check", "Watch"]
    assert file.message_type[1].field[0].type_name == ".grpc.health.v1.HealthCheckResponse.ServingStatus"


class _WithSecret(grpc.StreamStreamClientInterceptor):
    def __init__(self, secret: str) -> None:
        self._metadata = (("snakepit-secret", secret),)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=self._metadata), requests)


def test_describe_repeats_the_ready_line(commands, stream) -> None:
    stream.run("echo")
    description = pb.Description.FromString(commands.unary(SERVICE + "Describe"))
    import json

    assert json.loads(description.ready_json) == commands.ready
    assert description.running == 0
