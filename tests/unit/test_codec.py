"""Values survive the wire, what cannot be carried is named, and damaged data is an EncodingError."""

import array
import collections
import copy
import ctypes
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snakepit_ray.errors import EncodingError, PayloadTooLarge
from snakepit_ray.wire import codec
from snakepit_ray.wire.codec import (
    Encoded,
    Envelope,
    Epoch,
    Reply,
    Unserializable,
    check_size,
    decode_value,
    encode_args,
    encode_value,
)


def there_and_back(value):
    encoded = encode_value(value)
    json.loads(encoded.json)
    return decode_value(encoded.json, encoded.buffers)


def same(one, other):
    """Equal, of the same types throughout, NaN being NaN."""
    if isinstance(other, float):
        assert isinstance(one, float)
        assert (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for key in other:
            same(one[key], other[key])
    elif isinstance(other, list | tuple):
        assert type(one) is list
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert type(one) is type(other)
        assert one == other


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["$snakepit", "float", "\u0000", "é€😀"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(texts, inner, max_size=12),
    max_leaves=40,
)


@given(values)
def test_round_trip(value):
    same(there_and_back(value), value)


@given(st.dictionaries(texts, values, max_size=6))
def test_arguments_round_trip(args):
    encoded = encode_args(args)
    same(decode_value(encoded.json, encoded.buffers), args)
    assert encoded.refs == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 5, "b": 3}, '{"a":5,"b":3}'),
        ([1.0, -0.0, 1e300, 0.1], "[1.0,-0.0,1e+300,0.1]"),
        (2**53 - 1, "9007199254740991"),
        (2**53, '{"$snakepit":"int","value":"9007199254740992"}'),
        (-(2**53), '{"$snakepit":"int","value":"-9007199254740992"}'),
        (math.inf, '{"$snakepit":"float","value":"inf"}'),
        ([-math.inf, math.nan], '[{"$snakepit":"float","value":"-inf"},{"$snakepit":"float","value":"nan"}]'),
        ({"$snakepit": 1}, '{"$snakepit":"object","items":[["$snakepit",1]]}'),
        ({"x": b"ab"}, '{"x":{"$snakepit":"bytes","buffer":0}}'),
        (np.zeros((2, 3)), '{"$snakepit":"tensor","buffer":0,"dtype":"<f8","shape":[2,3]}'),
        (pa.table({"a": [1]}), '{"$snakepit":"table","buffer":0}'),
        ("é", '"é"'),
        ((), "[]"),
        (Unserializable("m.C"), '{"$snakepit":"unserializable","type":"m.C"}'),
    ],
)
def test_the_json_is_what_the_bridge_contract_says(value, text):
    assert encode_value(value).json.decode() == text


class Colour(enum.IntEnum):
    RED = 3


class Word(str, enum.Enum):
    YES = "yes"


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Colour.RED, 3),
        (Word.YES, "yes"),
        (Point(1, 2), {"x": 1, "y": 2}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), math.nan),
        (np.int64(7), 7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.bytes_(b"x"), b"x"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (pa.py_buffer(b"ab"), b"ab"),
        ([np.int8(1), True, 2.0], [1, True, 2.0]),
        ({"deep": [{"x": {np.str_("k"): np.float16(2)}}]}, {"deep": [{"x": {"k": 2.0}}]}),
    ],
)
def test_what_else_an_argument_may_be(value, arrives):
    same(there_and_back(value), arrives)
    same(there_and_back({"in": [value]}), {"in": [arrives]})


@dataclasses.dataclass
class Data:
    x: int = 1


def _lost():
    yield 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "set: send sorted(value) or list(value)"),
        (frozenset(), "frozenset: send sorted"),
        (range(3), "range: send list(value)"),
        (_lost(), "generator: send list(value)"),
        (collections.deque(), "collections.deque: send list(value)"),
        (
            datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
            "datetime.datetime: send value.isoformat()",
        ),
        (decimal.Decimal(1), "decimal.Decimal: send str(value) or float(value)"),
        (pathlib.Path("x"), "send str(value)"),
        (1j, "complex: send [value.real, value.imag]"),
        (Data(), "send dataclasses.asdict(value)"),
        (object(), "object: send JSON values, an array, a table or bytes"),
        (int, "type: send JSON values"),
        (np.ndarray, "type: send JSON values"),
        (test_round_trip, "code does not travel"),
        (np.array([object()]), "an array of objects; send value.tolist()"),
        (np.array(["x"]), "an array of strings; send value.tolist()"),
        (np.array([b"x"]), "an array of byte strings"),
        (np.zeros(2, [("a", "i4")]), "its field names would be lost"),
        (np.zeros(2, "M8"), "datetime64 without a unit"),
        (np.zeros(2, np.longdouble), "not portable"),
        (np.ma.masked_array([1, 2], [0, 1]), "its mask would be lost"),
        ("\ud800x", "a string with the lone surrogate '\\ud800' at 0"),
        ({"\udfff": 1}, "a string with the lone surrogate"),
        ({1: 2}, "the key 1 (int)"),
        ({None: 2}, "the key None (NoneType)"),
        ([10**5000], "an integer of 16610 bits"),
        (pa.array(["a", "b"]), 'send pyarrow.table({"value": value})'),
    ],
)
def test_what_cannot_be_carried_is_named_with_its_path(value, said):
    for wrapped in (value, [0, value]):
        with pytest.raises(EncodingError) as caught:
            encode_args({"ok": 1, "x": [1, 2, 3, wrapped]})
        place = 'args["x"][3]' + ("" if wrapped is value else "[1]") + ("[0]" if type(value) is list else "")
        assert str(caught.value).startswith(f"{place}: cannot encode ")
        assert caught.value.path == place
        assert said in str(caught.value)


def test_objects_that_fail_when_asked_are_errors_too():
    class Broken:
        def __dlpack__(self, **options):
            raise RuntimeError("it is on the GPU")

        __dlpack_device__ = __dlpack__

    with pytest.raises(EncodingError, match=r'args\["x"\]: cannot encode .*RuntimeError: it is on the GPU'):
        encode_args({"x": Broken()})


def test_cycles_and_depth():
    cycle = {"a": []}
    cycle["a"].append(cycle)
    with pytest.raises(EncodingError, match=r'value\["a"\]\[0\]: cannot encode dict that contains itself'):
        encode_value(cycle)
    twice = []
    twice += [twice, twice]
    with pytest.raises(EncodingError, match="contains itself"):
        encode_value(twice)
    shared = [1]
    assert there_and_back([shared, shared]) == [[1], [1]]
    for levels, fine in [(200, True), (201, False), (100_000, False)]:
        deep = 1.0
        for i in range(levels):
            deep = [deep] if i % 2 else {"k": deep}
        if fine:
            assert there_and_back(deep) == deep
            assert there_and_back([math.nan, deep["k"] if isinstance(deep, dict) else deep[0]])[1] is not None
        else:
            with pytest.raises(EncodingError, match="more than 200 levels"):
                encode_value(deep)
        while isinstance(deep, list | dict):  # a deep one is not to be freed recursively
            deep = deep[0] if isinstance(deep, list) else deep["k"]


@pytest.mark.parametrize("args", [None, [1], "x", 3, [("a", 1)]])
def test_arguments_are_a_mapping(args):
    with pytest.raises(EncodingError, match="the arguments are a mapping from names to values"):
        encode_args(args)


# ---- refs --------------------------------------------------------------------------------------------------


class Ref:
    """Stands for ray.ObjectRef."""


def test_refs_at_the_top_are_taken_out():
    ref, other = Ref(), Ref()
    encoded = encode_args({"a": ref, "b": 1, "c": other}, Ref)
    assert (encoded.json, encoded.refs) == (b'{"b":1}', [("a", ref), ("c", other)])
    assert encode_args(ref, Ref) == Encoded(b"{}", [], [("", ref)])


@pytest.mark.parametrize("nested", [{"x": [Ref()]}, {"x": {"y": Ref()}}])
def test_refs_deeper_down_are_errors(nested):
    with pytest.raises(
        EncodingError, match=r'^args\["x"\]\[.*\]: cannot encode .*Ref here: send refs at the top level'
    ):
        encode_args(nested, Ref)
    with pytest.raises(EncodingError, match="cannot encode"):
        encode_args(nested)


def test_names_of_refs_are_checked():
    with pytest.raises(EncodingError, match=r"the key 1 \(int\)"):
        encode_args({1: Ref()}, Ref)


# ---- arrays and tables -------------------------------------------------------------------------------------

DTYPES = [
    "b1",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
    "M8[ns]",
    "M8[D]",
    "M8[25s]",
    "m8[us]",
    "m8[h]",
]


@given(
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.lists(st.integers(0, 4), max_size=4),
    st.binary(max_size=64),
    st.sampled_from(["C", "F", "reversed", "strided"]),
)
def test_arrays_of_every_kind_round_trip(dtype, order, shape, seed, layout):
    count = math.prod(shape)
    kind = np.dtype(order + dtype)
    raw = np.resize(np.frombuffer(seed or b"\0", "u1"), count * kind.itemsize)
    source = ((raw & 1) if dtype == "b1" else raw).view(kind).reshape(shape)
    if layout == "F":
        source = np.asfortranarray(source) if shape else source
    elif layout == "reversed" and shape:
        source = source[::-1]
    elif layout == "strided" and shape:
        source = np.repeat(source, 2, axis=0)[::2]
    arrived = there_and_back(source)
    assert arrived.dtype == kind.newbyteorder("<")
    assert arrived.shape == source.shape
    assert arrived.tobytes() == source.astype(kind.newbyteorder("<")).tobytes()
    assert not arrived.flags.writeable
    assert arrived.flags.c_contiguous


def test_arrays_are_not_copied():
    source = np.arange(1000.0)
    encoded = encode_value(source)
    assert np.shares_memory(np.frombuffer(encoded.buffers[0], "u1"), source)
    assert np.shares_memory(decode_value(encoded.json, encoded.buffers), source)
    with pytest.raises(ValueError, match="read-only"):
        decode_value(encoded.json, encoded.buffers)[0] = 1
    assert source.flags.writeable


def test_whatever_speaks_dlpack_or_has_a_buffer():
    class Dlpack:
        def __init__(self, data):
            self.data = data

        def __dlpack__(self, **options):
            return self.data.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.data.__dlpack_device__()

    expected = np.arange(3, dtype="i2")
    for source in (
        Dlpack(expected),
        array.array("h", [0, 1, 2]),
        (ctypes.c_short * 3)(0, 1, 2),
        memoryview(expected),
    ):
        arrived = there_and_back([source])[0]
        assert arrived.dtype == "<i2"
        assert arrived.tolist() == [0, 1, 2]
    assert there_and_back(np.complex64(1 + 2j)).tolist() == 1 + 2j
    assert there_and_back(np.datetime64("2026-01-01", "D")).shape == ()


TABLE = pa.table({"a": [1, None, 3], "s": ["x", "é", None], "l": [[1.5], [], None]})


@pytest.mark.parametrize(
    "source",
    [TABLE, TABLE.slice(1), TABLE.slice(0, 0), TABLE.to_batches()[0], TABLE.to_reader(), pa.table({})],
    ids=["table", "slice", "empty", "batch", "reader", "no columns"],
)
def test_tables_round_trip(source):
    expected = source if isinstance(source, pa.Table) else TABLE
    arrived = there_and_back({"t": source})["t"]
    assert isinstance(arrived, pa.Table)
    assert arrived.equals(expected)


def test_anything_with_an_arrow_stream_is_a_table():
    class Frame:
        def __arrow_c_stream__(self, requested_schema=None):
            return TABLE.__arrow_c_stream__(requested_schema)

    assert there_and_back(Frame()).equals(TABLE)


def test_sizes_are_checked():
    small = encode_args({"x": "a" * 100})
    check_size(small, 200)
    with pytest.raises(PayloadTooLarge) as caught:
        check_size(small, 50)
    assert (caught.value.size, caught.value.limit) == (len(small.json), 50)
    assert "raise max_message_size" in str(caught.value)
    big = encode_args({"x": np.zeros(10_000), "y": b"a" * 100})
    check_size(big, 1000)
    with pytest.raises(PayloadTooLarge):
        check_size(big, 1000, threshold=None)
    with pytest.raises(PayloadTooLarge):
        check_size(big, len(big.json) + 99)


# ---- damaged data ------------------------------------------------------------------------------------------


def tagged(**tag):
    return json.dumps({"$snakepit": tag.pop("tag"), **tag}).encode()


def tensor(**changes):
    return tagged(**{"tag": "tensor", "buffer": 0, "dtype": "<f8", "shape": [1], **changes})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{}}",
        b"[1,]",
        b"nul",
        b"\xff",
        b'"\xc3"',
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'["$snakepit",' * 5000,
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\uDFFF":[]}',
        b"{'a':1}",
        b"\x00",
        b"\xef\xbb\xbf1",
        tagged(tag="nonsense"),
        tagged(tag=1),
        tagged(tag=None),
        tagged(tag=["x"]),
        tagged(tag={"$snakepit": "int"}),
        tagged(tag="float"),
        tagged(tag="float", value=1),
        tagged(tag="float", value="1"),
        tagged(tag="float", value=[]),
        tagged(tag="int"),
        tagged(tag="int", value=5),
        tagged(tag="int", value="1_0"),
        tagged(tag="int", value="9" * 5000),
        tagged(tag="int", value="\u0661"),
        tagged(tag="bytes"),
        tagged(tag="bytes", buffer=1),
        tagged(tag="bytes", buffer=-1),
        tagged(tag="bytes", buffer=True),
        tagged(tag="bytes", buffer="0"),
        tagged(tag="bytes", buffer=0.0),
        tagged(tag="bytes", buffer=10**30),
        tagged(tag="table", buffer=0),
        tagged(tag="object"),
        tagged(tag="object", items={}),
        tagged(tag="object", items=[1]),
        tagged(tag="object", items=[["a"]]),
        tagged(tag="object", items=[[1, 2]]),
        tagged(tag="unserializable"),
        tensor(buffer=7),
        tensor(dtype="O"),
        tensor(dtype="|O8"),
        tensor(dtype=">f8"),
        tensor(dtype="<f16"),
        tensor(dtype="<U2"),
        tensor(dtype=[["a", "<f8"]]),
        tensor(dtype=None),
        tensor(dtype="<M8"),
        tensor(dtype="<M8[0s]"),
        tensor(dtype="<M8[99999999999999999999s]"),
        tensor(shape=[2]),
        tensor(shape=[-1]),
        tensor(shape=[-1, -1]),
        tensor(shape=[1.0]),
        tensor(shape=[True]),
        tensor(shape="1"),
        tensor(shape=None),
        tensor(shape=[2**62, 4]),
        tensor(shape=[0, 2**70]),
        tensor(shape=[2**64, 2**64]),
        tensor(shape=[1] * 100),
        tensor(shape=[10**400]),
        tensor(shape=[]) + b"x",
        b'{"\\u0024snakepit":"nonsense"}',
    ],
)
def test_damaged_payloads_are_encoding_errors(raw):
    with pytest.raises(EncodingError, match="result: the payload is"):
        decode_value(raw, [b"\0" * 8], "result")


def test_white_space_and_escapes_are_fine():
    assert decode_value(b' {"a": [1, "\\ud83d\\ude00", "\\u00e9"]} \n') == {"a": [1, "😀", "é"]}
    assert decode_value(b'{"\\u0024snakepit":"int","value":"1"}') == 1
    assert decode_value(b'{"x":{"$snakepit":"unserializable","type":"m.C"}}') == {"x": Unserializable("m.C")}


@given(values, st.data())
def test_a_damaged_encoding_is_a_value_or_an_encoding_error(value, data):
    encoded = encode_value([value, np.arange(4.0), b"abc", TABLE])
    raw = bytearray(encoded.json)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(
            st.integers(0, 255) | st.sampled_from(b'[]{}",:0129-$')
        )
    buffers = data.draw(st.permutations(encoded.buffers))
    try:
        decode_value(bytes(raw), buffers)
    except EncodingError:
        return


@given(st.data())
def test_a_damaged_table_is_a_table_or_an_encoding_error(data):
    encoded = encode_value(TABLE)
    raw = bytearray(encoded.buffers[0])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        table = decode_value(encoded.json, [bytes(raw)])
    except EncodingError:
        return
    assert isinstance(table, pa.Table)
    table.to_pylist()


@given(st.binary(max_size=60), st.lists(st.binary(max_size=10), max_size=2))
def test_any_bytes_are_a_value_or_an_encoding_error(raw, buffers):
    try:
        decode_value(raw, buffers)
    except EncodingError:
        return


@given(values)
def test_encoding_does_not_change_the_value(value):
    before = copy.deepcopy(value)
    encode_value(value)
    same_or_equal = json.dumps(before, default=repr) == json.dumps(value, default=repr)
    assert same_or_equal


# ---- envelopes ---------------------------------------------------------------------------------------------

INFO = ("w1", (1, 2), 123, "node", "req", 0.5, 0.25, 1, False)


class Shouting:
    """A runtime's last word."""

    def process_response(self, command, result):
        return f"{command}: {result}!"


class Failing:
    def process_response(self, command, result):
        raise LookupError("no")


@pytest.fixture
def kept():
    codec.keep_encoded(True)
    yield
    codec.keep_encoded(False)


def enveloped(value, **more):
    encoded = encode_value(value)
    return Envelope(encoded.json, encoded.buffers, **more)


def test_an_envelope_arrives_as_its_value():
    before = codec.decoded_count()
    assert pickle.loads(pickle.dumps(Envelope(b'{"result":8}'), 5)) == {"result": 8}
    assert codec.decoded_count() == before + 1
    source = np.arange(3000.0)
    for protocol in (2, 3, 4, 5):
        arrived = pickle.loads(pickle.dumps(enveloped([source, b"x"]), protocol))
        assert arrived[0].tolist() == source.tolist()
        assert arrived[1] == b"x"


def test_large_buffers_are_out_of_band_and_views():
    source = np.arange(3000.0)
    buffers = []
    raw = pickle.dumps(enveloped({"a": source, "b": b"small"}), 5, buffer_callback=buffers.append)
    assert (len(raw) < 1000, len(buffers)) == (True, 1)
    arrived = pickle.loads(raw, buffers=buffers)
    assert np.shares_memory(arrived["a"], source)
    assert not arrived["a"].flags.writeable


def test_info_makes_a_reply():
    reply = pickle.loads(pickle.dumps(enveloped({"x": 1}, info=INFO), 5))
    assert reply == Reply({"x": 1}, "w1", Epoch(1, 2), 123, "node", "req", 0.5, 0.25, 1, False)
    assert reply.epoch.number == 2
    assert pickle.loads(pickle.dumps(reply)) == reply


def test_a_runtime_has_the_last_word():
    name = f"{__name__}:Shouting"
    assert pickle.loads(pickle.dumps(enveloped(1, runtime=name, command="add"), 5)) == "add: 1!"
    reply = pickle.loads(pickle.dumps(enveloped(1, runtime=name, command="add", info=INFO), 5))
    assert reply.value == "add: 1!"


def test_worker_actors_keep_envelopes_encoded(kept):
    before = codec.decoded_count()
    source = np.arange(3000.0)
    arrived = pickle.loads(pickle.dumps(enveloped([source], info=INFO), 5))
    assert isinstance(arrived, Envelope)
    assert codec.decoded_count() == before
    assert arrived.json == encode_value([source]).json
    # What a worker relays for another arrives whole where it is read: info and the runtime's last word.
    relayed = pickle.loads(pickle.dumps(arrived, 5)).value()
    assert relayed.value[0].tolist() == source.tolist()
    assert relayed.worker_id == "w1"
    shouting = enveloped(1, runtime=f"{__name__}:Shouting", command="add", info=INFO)
    hooked = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(shouting, 5)), 5))
    assert isinstance(hooked, Envelope)
    assert hooked.value().value == "add: 1!"


SCRIPT = """
import pickle, sys
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope
from snakepit_ray.errors import EncodingError
for damaged in (Envelope(b"{"), BatchEnvelope([BatchPart(b"[1]", 1), BatchPart(b"{", 1)])):
    try:
        print(pickle.loads(pickle.dumps(damaged, 5)))
    except EncodingError as error:
        print("EncodingError", error.path)
print(sorted({"ray", "grpc", "numpy", "pyarrow"} & set(sys.modules)))
"""


def test_without_ray_a_damaged_envelope_raises_and_nothing_heavy_is_imported():
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert out.splitlines() == ["EncodingError result", "EncodingError results[1]", "[]"]


@pytest.mark.ray
def test_through_ray(ray_cluster):
    ray = ray_cluster

    @ray.remote(num_cpus=0, max_retries=0)
    def make(*state):
        return Envelope(*state)

    encoded = encode_value({"x": np.arange(100_000.0), "b": b"x" * 100_000})
    sent = codec.portable_buffers(encoded.buffers)
    value = ray.get(make.remote(encoded.json, sent))
    assert value["x"].tolist() == list(range(100_000))
    assert not value["x"].flags.owndata
    assert value["b"] == b"x" * 100_000
    with pytest.raises(EncodingError, match="the payload is damaged") as caught:
        ray.get(make.remote(b"{"))
    assert caught.value.path == "result"
    with pytest.raises(LookupError, match="no"):
        ray.get(make.remote(b"1", [], None, f"{__name__}:Failing", "add"))
    assert ray.get(make.remote(b"1", [], INFO)).worker_id == "w1"


@pytest.mark.ray
def test_awaited_refs_raise_the_same(ray_cluster):
    ray = ray_cluster

    @ray.remote(num_cpus=0, max_retries=0)
    def make():
        return Envelope(b"{")

    @ray.remote(num_cpus=0)
    class Waiter:
        async def wait(self, refs):
            try:
                await refs[0]
            except EncodingError as error:
                return str(error)
            return "no error"

    waiter = Waiter.remote()
    assert "the payload is damaged" in ray.get(waiter.wait.remote([make.remote()]))


@pytest.fixture(scope="module")
def ray_cluster():
    import ray

    mine = not ray.is_initialized()
    if mine:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    if mine:
        ray.shutdown()


@given(st.integers(0, 30))
def test_long_and_short_containers_are_checked_alike(n):
    assume(n)
    for bad in (math.inf, 2**60, b"x", {"$snakepit": 1}):
        value = {f"k{i}": [i] * n for i in range(n)}
        value[f"k{n - 1}"] = [0] * n + [bad]
        same(there_and_back(value), value)
