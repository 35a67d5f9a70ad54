"""Two services that every gRPC server is expected to have: grpc.health.v1 and server reflection (v1 and
v1alpha).

- Only protobuf is needed.
- Their descriptors live in a pool of our own, so that grpcio-health-checking and grpcio-reflection may be
  installed and imported beside us.
- The pool is built when the first reflection call comes. Sources:
  github.com/grpc/grpc/blob/master/doc/{health-checking,server-reflection}.md.
"""

from __future__ import annotations

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_NOT_FOUND = 5  # google.rpc.Code
_UNIMPLEMENTED = 12

_REFLECTION_MESSAGES = {
    "ServerReflectionRequest": (
        "string host=1",
        "string file_by_filename=3 message_request",
        "string file_containing_symbol=4 message_request",
        "ExtensionRequest file_containing_extension=5 message_request",
        "string all_extension_numbers_of_type=6 message_request",
        "string list_services=7 message_request",
    ),
    "ExtensionRequest": ("string containing_type=1", "int32 extension_number=2"),
    "ServerReflectionResponse": (
        "string valid_host=1",
        "ServerReflectionRequest original_request=2",
        "FileDescriptorResponse file_descriptor_response=4 message_response",
        "ExtensionNumberResponse all_extension_numbers_response=5 message_response",
        "ListServiceResponse list_services_response=6 message_response",
        "ErrorResponse error_response=7 message_response",
    ),
    "FileDescriptorResponse": ("repeated bytes file_descriptor_proto=1",),
    "ExtensionNumberResponse": ("string base_type_name=1", "repeated int32 extension_number=2"),
    "ListServiceResponse": ("repeated ServiceResponse service=1",),
    "ServiceResponse": ("string name=1",),
    "ErrorResponse": ("int32 error_code=1", "string error_message=2"),
}
_HEALTH_MESSAGES = {
    "HealthCheckRequest": ("string service=1",),
    "HealthCheckResponse": ("ServingStatus status=1",),
}
_HEALTH_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def health_service(request: bytes) -> str:
    """The service that a HealthCheckRequest asks for; one string field, so it is read without descriptors."""
    if not request:
        return ""
    size, start = 0, 1
    for shift in range(0, 35, 7):
        if start >= len(request):
            return "\0"
        byte = request[start]
        start += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if request[0] != 0x0A or start + size != len(request):  # not that message: no service has this name
        return "\0"
    return request[start:].decode("utf-8", "replace")


def health_response(status: int) -> bytes:
    """A HealthCheckResponse: field 1, one small enum."""
    return bytes((0x08, status))


class Reflection:
    """Server reflection under one of its two names."""

    def __init__(self, name: str, service: str) -> None:
        self._package = name.rpartition(".")[0]
        self._service = service

    def answers(self, requests, context):
        """One response, as bytes, for each request."""
        pool, request_type, response_type = _reflection(self._package)
        for data in requests:
            request = request_type.FromString(data)
            response = response_type(valid_host=request.host, original_request=request)
            self._answer(pool, request, response)
            yield response.SerializeToString()

    def _answer(self, pool, request, response) -> None:
        what = request.WhichOneof("message_request")
        if what == "list_services":
            for name in sorted((self._service, HEALTH, *REFLECTION)):
                response.list_services_response.service.add(name=name)
        elif what == "file_by_filename":
            self._file(response, pool.FindFileByName, request.file_by_filename)
        elif what == "file_containing_symbol":
            self._file(response, pool.FindFileContainingSymbol, request.file_containing_symbol)
        elif what == "all_extension_numbers_of_type":
            self._extensions(response, pool, request.all_extension_numbers_of_type)
        else:
            code = _NOT_FOUND if what == "file_containing_extension" else _UNIMPLEMENTED
            response.error_response.error_code = code
            response.error_response.error_message = f"nothing to say about {what}"

    def _file(self, response, find, name: str) -> None:
        try:
            found = find(name)
        except KeyError:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = f"{name!r} is not served here"
            return
        response.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)

    def _extensions(self, response, pool, name: str) -> None:
        try:
            pool.FindMessageTypeByName(name)
        except KeyError:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = f"{name!r} is not served here"
            return
        response.all_extension_numbers_response.base_type_name = name


_built: dict = {}


def _reflection(package: str):
    """(pool, request class, response class) of the reflection protocol of `package`."""
    if package not in _built:
        pool = _pool()
        names = ("ServerReflectionRequest", "ServerReflectionResponse")
        types = [pool.FindMessageTypeByName(f"{package}.{name}") for name in names]
        _built[package] = (pool, *map(_message_class(pool), types))
    return _built[package]


def _message_class(pool):
    """The function that makes the class of a message of `pool`; protobuf renamed it in 4.22."""
    from google.protobuf import message_factory

    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass
    return message_factory.MessageFactory(pool).GetPrototype


def _pool():
    from google.protobuf import descriptor_pool

    from snakepit_bridge._pb import interpreter_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(interpreter_pb2.DESCRIPTOR.serialized_pb)
    health = _file("grpc/health/v1/health.proto", "grpc.health.v1", _HEALTH_MESSAGES)
    statuses = health.message_type[1].enum_type.add(name="ServingStatus")
    for number, name in enumerate(_HEALTH_STATUSES):
        statuses.value.add(name=name, number=number)
    kinds = {
        "input_type": ".grpc.health.v1.HealthCheckRequest",
        "output_type": ".grpc.health.v1.HealthCheckResponse",
    }
    service = health.service.add(name="Health")
    service.method.add(name="Check", **kinds)
    service.method.add(name="Watch", server_streaming=True, **kinds)
    pool.AddSerializedFile(health.SerializeToString())
    for name in REFLECTION:
        pool.AddSerializedFile(_reflection_file(name.rpartition(".")[0]).SerializeToString())
    return pool


def _reflection_file(package: str):
    version = package.rpartition(".")[2]
    file = _file(f"grpc/reflection/{version}/reflection.proto", package, _REFLECTION_MESSAGES)
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _file(name: str, package: str, messages: dict):
    """A FileDescriptorProto of `messages`: each field is "[repeated] type name=number [oneof]"."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for text in fields:
            _field(message, text, package)
    return file


def _field(message, text: str, package: str) -> None:
    words = text.split()
    repeated = words[0] == "repeated"
    kind, assignment, *oneof = words[1:] if repeated else words
    name, _, number = assignment.partition("=")
    field = message.field.add(name=name, number=int(number), label=3 if repeated else 1)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "ServingStatus":
        field.type, field.type_name = 14, f".{package}.{message.name}.{kind}"
    else:
        field.type, field.type_name = 11, f".{package}.{kind}"
    if oneof:
        if not message.oneof_decl:
            message.oneof_decl.add(name=oneof[0])
        field.oneof_index = 0


_SCALARS = {"string": 9, "bytes": 12, "int32": 5}  # FieldDescriptorProto.Type
