from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Affinity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AFFINITY_HINT: _ClassVar[Affinity]
    AFFINITY_STRICT_QUEUE: _ClassVar[Affinity]
    AFFINITY_STRICT_FAIL_FAST: _ClassVar[Affinity]

class BatchErrors(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCH_ERRORS_RAISE: _ClassVar[BatchErrors]
    BATCH_ERRORS_RETURN: _ClassVar[BatchErrors]
    BATCH_ERRORS_APART: _ClassVar[BatchErrors]
AFFINITY_HINT: Affinity
AFFINITY_STRICT_QUEUE: Affinity
AFFINITY_STRICT_FAIL_FAST: Affinity
BATCH_ERRORS_RAISE: BatchErrors
BATCH_ERRORS_RETURN: BatchErrors
BATCH_ERRORS_APART: BatchErrors

class ToInterpreter(_message.Message):
    __slots__ = ("hello", "requests", "cancels", "credits", "released", "trim", "host_replies")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    TRIM_FIELD_NUMBER: _ClassVar[int]
    HOST_REPLIES_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    credits: _containers.RepeatedCompositeFieldContainer[Credit]
    released: _containers.RepeatedScalarFieldContainer[str]
    trim: bool
    host_replies: _containers.RepeatedCompositeFieldContainer[HostReply]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., requests: _Optional[_Iterable[_Union[Request, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., credits: _Optional[_Iterable[_Union[Credit, _Mapping]]] = ..., released: _Optional[_Iterable[str]] = ..., trim: bool = ..., host_replies: _Optional[_Iterable[_Union[HostReply, _Mapping]]] = ...) -> None: ...

class FromInterpreter(_message.Message):
    __slots__ = ("welcome", "replies", "chunks", "released", "leaving", "host_calls", "host_cancels", "host_credits")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    HOST_CALLS_FIELD_NUMBER: _ClassVar[int]
    HOST_CANCELS_FIELD_NUMBER: _ClassVar[int]
    HOST_CREDITS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    released: _containers.RepeatedScalarFieldContainer[str]
    leaving: bool
    host_calls: _containers.RepeatedCompositeFieldContainer[HostCall]
    host_cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    host_credits: _containers.RepeatedCompositeFieldContainer[Credit]
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., released: _Optional[_Iterable[str]] = ..., leaving: bool = ..., host_calls: _Optional[_Iterable[_Union[HostCall, _Mapping]]] = ..., host_cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., host_credits: _Optional[_Iterable[_Union[Credit, _Mapping]]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "worker_id", "epoch")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    worker_id: str
    epoch: Epoch
    def __init__(self, protocol: _Optional[int] = ..., worker_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "pid")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    pid: int
    def __init__(self, protocol: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("incarnation", "number")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    number: int
    def __init__(self, incarnation: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "command", "args", "refs", "session", "budget_ms", "attempt", "mark", "options", "batch", "stream", "credit", "credit_bytes", "pack", "traceparent", "tracestate", "item_traces", "chain", "inside")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    ITEM_TRACES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    id: str
    command: str
    args: Payload
    refs: _containers.RepeatedCompositeFieldContainer[NamedPayload]
    session: str
    budget_ms: int
    attempt: int
    mark: int
    options: CallOptions
    batch: Batch
    stream: bool
    credit: int
    credit_bytes: int
    pack: bool
    traceparent: str
    tracestate: str
    item_traces: ItemTraces
    chain: Chain
    inside: str
    def __init__(self, id: _Optional[str] = ..., command: _Optional[str] = ..., args: _Optional[_Union[Payload, _Mapping]] = ..., refs: _Optional[_Iterable[_Union[NamedPayload, _Mapping]]] = ..., session: _Optional[str] = ..., budget_ms: _Optional[int] = ..., attempt: _Optional[int] = ..., mark: _Optional[int] = ..., options: _Optional[_Union[CallOptions, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., stream: bool = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., pack: bool = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., item_traces: _Optional[_Union[ItemTraces, _Mapping]] = ..., chain: _Optional[_Union[Chain, _Mapping]] = ..., inside: _Optional[str] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("first", "count", "share_ms")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARE_MS_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    share_ms: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ..., share_ms: _Optional[int] = ...) -> None: ...

class ItemTraces(_message.Message):
    __slots__ = ("traces", "places")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[Trace]
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, traces: _Optional[_Iterable[_Union[Trace, _Mapping]]] = ..., places: _Optional[_Iterable[int]] = ...) -> None: ...

class Trace(_message.Message):
    __slots__ = ("traceparent", "tracestate")
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    traceparent: str
    tracestate: str
    def __init__(self, traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("root", "began_ms", "calls", "workers")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    BEGAN_MS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    root: str
    began_ms: int
    calls: _containers.RepeatedScalarFieldContainer[str]
    workers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, root: _Optional[str] = ..., began_ms: _Optional[int] = ..., calls: _Optional[_Iterable[str]] = ..., workers: _Optional[_Iterable[str]] = ...) -> None: ...

class CallOptions(_message.Message):
    __slots__ = ("affinity", "idempotent", "retries", "info", "rebind", "queue_ms", "default_budget", "runtime", "encoded", "errors", "turn", "turns_done", "incarnation", "hops", "may_wait", "chained", "more")
    AFFINITY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    REBIND_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BUDGET_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    TURNS_DONE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    MAY_WAIT_FIELD_NUMBER: _ClassVar[int]
    CHAINED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    affinity: Affinity
    idempotent: bool
    retries: int
    info: bool
    rebind: bool
    queue_ms: int
    default_budget: bool
    runtime: str
    encoded: bool
    errors: BatchErrors
    turn: int
    turns_done: int
    incarnation: int
    hops: int
    may_wait: bool
    chained: bool
    more: bool
    def __init__(self, affinity: _Optional[_Union[Affinity, str]] = ..., idempotent: bool = ..., retries: _Optional[int] = ..., info: bool = ..., rebind: bool = ..., queue_ms: _Optional[int] = ..., default_budget: bool = ..., runtime: _Optional[str] = ..., encoded: bool = ..., errors: _Optional[_Union[BatchErrors, str]] = ..., turn: _Optional[int] = ..., turns_done: _Optional[int] = ..., incarnation: _Optional[int] = ..., hops: _Optional[int] = ..., may_wait: bool = ..., chained: bool = ..., more: bool = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("id", "reason")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CALLER: _ClassVar[Cancel.Reason]
        DEADLINE: _ClassVar[Cancel.Reason]
        SHUTDOWN: _ClassVar[Cancel.Reason]
        RECALL: _ClassVar[Cancel.Reason]
    CALLER: Cancel.Reason
    DEADLINE: Cancel.Reason
    SHUTDOWN: Cancel.Reason
    RECALL: Cancel.Reason
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: Cancel.Reason
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[_Union[Cancel.Reason, str]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("id", "chunks", "bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    chunks: int
    bytes: int
    def __init__(self, id: _Optional[str] = ..., chunks: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "value", "failure", "end", "ran_us", "epoch", "failures", "items")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    RAN_US_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    id: str
    value: Payload
    failure: Failure
    end: StreamEnd
    ran_us: int
    epoch: Epoch
    failures: _containers.RepeatedCompositeFieldContainer[ItemFailure]
    items: int
    def __init__(self, id: _Optional[str] = ..., value: _Optional[_Union[Payload, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ..., ran_us: _Optional[int] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[ItemFailure, _Mapping]]] = ..., items: _Optional[int] = ...) -> None: ...

class ItemFailure(_message.Message):
    __slots__ = ("index", "failure")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    failure: Failure
    def __init__(self, index: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("id", "index", "value", "packed")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    id: str
    index: int
    value: Payload
    packed: int
    def __init__(self, id: _Optional[str] = ..., index: _Optional[int] = ..., value: _Optional[_Union[Payload, _Mapping]] = ..., packed: _Optional[int] = ...) -> None: ...

class StreamEnd(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    def __init__(self, chunks: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "type", "message", "traceback", "language", "details_json")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Failure.Kind]
        COMMAND: _ClassVar[Failure.Kind]
        UNKNOWN_COMMAND: _ClassVar[Failure.Kind]
        INVALID_ARGUMENTS: _ClassVar[Failure.Kind]
        ENCODING: _ClassVar[Failure.Kind]
        PAYLOAD_TOO_LARGE: _ClassVar[Failure.Kind]
        CANCELLED: _ClassVar[Failure.Kind]
        DEADLINE: _ClassVar[Failure.Kind]
        TOOL_NOT_FOUND: _ClassVar[Failure.Kind]
        INTERNAL: _ClassVar[Failure.Kind]
        TOO_MANY_CALLS: _ClassVar[Failure.Kind]
    KIND_UNSPECIFIED: Failure.Kind
    COMMAND: Failure.Kind
    UNKNOWN_COMMAND: Failure.Kind
    INVALID_ARGUMENTS: Failure.Kind
    ENCODING: Failure.Kind
    PAYLOAD_TOO_LARGE: Failure.Kind
    CANCELLED: Failure.Kind
    DEADLINE: Failure.Kind
    TOOL_NOT_FOUND: Failure.Kind
    INTERNAL: Failure.Kind
    TOO_MANY_CALLS: Failure.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    kind: Failure.Kind
    type: str
    message: str
    traceback: str
    language: str
    details_json: bytes
    def __init__(self, kind: _Optional[_Union[Failure.Kind, str]] = ..., type: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., language: _Optional[str] = ..., details_json: _Optional[bytes] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("json", "buffers")
    JSON_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    buffers: _containers.RepeatedCompositeFieldContainer[Buffer]
    def __init__(self, json: _Optional[bytes] = ..., buffers: _Optional[_Iterable[_Union[Buffer, _Mapping]]] = ...) -> None: ...

class NamedPayload(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Payload
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class Buffer(_message.Message):
    __slots__ = ("inline", "segment", "beside")
    INLINE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    BESIDE_FIELD_NUMBER: _ClassVar[int]
    inline: bytes
    segment: Segment
    beside: int
    def __init__(self, inline: _Optional[bytes] = ..., segment: _Optional[_Union[Segment, _Mapping]] = ..., beside: _Optional[int] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("id", "offset", "size")
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    id: str
    offset: int
    size: int
    def __init__(self, id: _Optional[str] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class HostCall(_message.Message):
    __slots__ = ("id", "method", "args", "request_id", "session", "budget_ms", "stream", "credit", "credit_bytes", "traceparent", "tracestate", "chain")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    id: str
    method: str
    args: Payload
    request_id: str
    session: str
    budget_ms: int
    stream: bool
    credit: int
    credit_bytes: int
    traceparent: str
    tracestate: str
    chain: Chain
    def __init__(self, id: _Optional[str] = ..., method: _Optional[str] = ..., args: _Optional[_Union[Payload, _Mapping]] = ..., request_id: _Optional[str] = ..., session: _Optional[str] = ..., budget_ms: _Optional[int] = ..., stream: bool = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., chain: _Optional[_Union[Chain, _Mapping]] = ...) -> None: ...

class HostReply(_message.Message):
    __slots__ = ("id", "value", "failure", "end")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    id: str
    value: Payload
    failure: Failure
    end: StreamEnd
    def __init__(self, id: _Optional[str] = ..., value: _Optional[_Union[Payload, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("ready_json", "running")
    READY_JSON_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    ready_json: bytes
    running: int
    def __init__(self, ready_json: _Optional[bytes] = ..., running: _Optional[int] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("grace_ms",)
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    def __init__(self, grace_ms: _Optional[int] = ...) -> None: ...

class ShutdownReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
