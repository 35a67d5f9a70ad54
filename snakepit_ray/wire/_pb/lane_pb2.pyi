from snakepit_ray.wire._pb import interpreter_pb2 as _interpreter_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LaneHello(_message.Message):
    __slots__ = ("secret",)
    SECRET_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    def __init__(self, secret: _Optional[bytes] = ...) -> None: ...

class LaneBatch(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[_interpreter_pb2.Request]
    def __init__(self, requests: _Optional[_Iterable[_Union[_interpreter_pb2.Request, _Mapping]]] = ...) -> None: ...

class LaneAnswer(_message.Message):
    __slots__ = ("id", "value", "parts", "error", "by_ray", "ended", "refused", "free")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    BY_RAY_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    id: str
    value: LaneValue
    parts: LaneParts
    error: LaneError
    by_ray: bool
    ended: bool
    refused: bool
    free: bool
    def __init__(self, id: _Optional[str] = ..., value: _Optional[_Union[LaneValue, _Mapping]] = ..., parts: _Optional[_Union[LaneParts, _Mapping]] = ..., error: _Optional[_Union[LaneError, _Mapping]] = ..., by_ray: bool = ..., ended: bool = ..., refused: bool = ..., free: bool = ...) -> None: ...

class LaneChunks(_message.Message):
    __slots__ = ("id", "pieces", "info", "kept")
    ID_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    id: str
    pieces: _containers.RepeatedCompositeFieldContainer[LanePiece]
    info: LaneInfo
    kept: str
    def __init__(self, id: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[LanePiece, _Mapping]]] = ..., info: _Optional[_Union[LaneInfo, _Mapping]] = ..., kept: _Optional[str] = ...) -> None: ...

class LanePiece(_message.Message):
    __slots__ = ("json", "buffers", "packed")
    JSON_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    packed: int
    def __init__(self, json: _Optional[bytes] = ..., buffers: _Optional[_Iterable[bytes]] = ..., packed: _Optional[int] = ...) -> None: ...

class LaneTaken(_message.Message):
    __slots__ = ("id", "parts")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    parts: int
    def __init__(self, id: _Optional[str] = ..., parts: _Optional[int] = ...) -> None: ...

class LaneValue(_message.Message):
    __slots__ = ("json", "buffers", "info")
    JSON_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    info: LaneInfo
    def __init__(self, json: _Optional[bytes] = ..., buffers: _Optional[_Iterable[bytes]] = ..., info: _Optional[_Union[LaneInfo, _Mapping]] = ...) -> None: ...

class LaneParts(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[LanePart]
    def __init__(self, parts: _Optional[_Iterable[_Union[LanePart, _Mapping]]] = ...) -> None: ...

class LanePart(_message.Message):
    __slots__ = ("json", "size", "buffers", "failures", "info")
    JSON_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    size: int
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    failures: _containers.RepeatedCompositeFieldContainer[LaneFailure]
    info: LaneInfo
    def __init__(self, json: _Optional[bytes] = ..., size: _Optional[int] = ..., buffers: _Optional[_Iterable[bytes]] = ..., failures: _Optional[_Iterable[_Union[LaneFailure, _Mapping]]] = ..., info: _Optional[_Union[LaneInfo, _Mapping]] = ...) -> None: ...

class LaneFailure(_message.Message):
    __slots__ = ("index", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    error: LaneError
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[LaneError, _Mapping]] = ...) -> None: ...

class LaneError(_message.Message):
    __slots__ = ("type", "message", "attributes_json")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_JSON_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    attributes_json: bytes
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., attributes_json: _Optional[bytes] = ...) -> None: ...

class LaneInfo(_message.Message):
    __slots__ = ("worker_id", "epoch", "pid", "node_id", "request_id", "waited_s", "ran_s", "attempts", "delegated")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    RAN_S_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DELEGATED_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    epoch: _interpreter_pb2.Epoch
    pid: int
    node_id: str
    request_id: str
    waited_s: float
    ran_s: float
    attempts: int
    delegated: bool
    def __init__(self, worker_id: _Optional[str] = ..., epoch: _Optional[_Union[_interpreter_pb2.Epoch, _Mapping]] = ..., pid: _Optional[int] = ..., node_id: _Optional[str] = ..., request_id: _Optional[str] = ..., waited_s: _Optional[float] = ..., ran_s: _Optional[float] = ..., attempts: _Optional[int] = ..., delegated: bool = ...) -> None: ...
