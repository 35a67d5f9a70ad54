"""Arrays and tables through Ray: what comes back is what went, out of band, once, and nobody holds more than
it must."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.errors import EncodingError
from tests.conftest import wait_until
from tests.ray.conftest import adapter

pytestmark = pytest.mark.ray

LARGE = 100_000  # elements: out of band, and in the object store


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[snakepit.Pool]:
    name = f"arrays-{os.urandom(4).hex()}"
    with snakepit.start(name=name, size=2, adapter=adapter("arrays.py:Arrays")) as pool:
        yield pool
        wait_until(lambda: all_released(pool), 30, "every range given back")


def all_released(pool: snakepit.Pool) -> bool:
    """Both interpreters say that nobody looks at a result of theirs any more."""
    sessions = [f"look-{number}" for number in range(8)]  # so that both are asked
    return all(pool.execute("lent", session=session) == 0 for session in sessions)


def random_array(dtype: str, shape: Any) -> Any:
    data = np.random.default_rng(7).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if dtype == "|b1":
        return (np.frombuffer(data, "u1") & 1).view("?").reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


# ---- values -----------------------------------------------------------------------------------------------

DTYPES = ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
TIMES = ["<M8[ns]", "<M8[D]", "<m8[us]"]


@pytest.mark.parametrize("dtype", [*DTYPES, *TIMES])
def test_every_dtype_comes_back_bit_for_bit(pool: snakepit.Pool, dtype: str) -> None:
    small, large = random_array(dtype, (7, 3)), random_array(dtype, (300, 400))
    back = pool.execute("same", {"x": {"large": large, "list": [small, random_array(dtype, (0, 4))]}})
    for sent, got in ((large, back["large"]), (small, back["list"][0])):
        assert got.dtype == sent.dtype and got.shape == sent.shape
        assert got.tobytes() == sent.tobytes()
    assert back["list"][1].shape == (0, 4)


def test_every_layout_comes_back_as_its_values(pool: snakepit.Pool) -> None:
    base = np.arange(600_000.0).reshape(600, 1000)
    forms = {
        "0-d": np.array(2.5),
        "fortran": np.asfortranarray(base),
        "strided": base[::2, ::3],
        "reversed": base[::-1],
        "big-endian": base.astype(">f8"),
        "broadcast": np.broadcast_to(np.arange(1000.0), (300, 1000)),
    }
    back = pool.execute("same", {"x": forms})
    for name, sent in forms.items():
        assert np.array_equal(back[name], sent), name
        assert not np.asarray(back[name]).flags.writeable


def test_tables_and_bytes_travel_out_of_band(pool: snakepit.Pool) -> None:
    table = pa.table({"n": range(LARGE), "s": [f"text {i}" for i in range(LARGE)]})
    data = os.urandom(1_000_000)
    back = pool.execute("same", {"x": [table, data]})
    assert back[0].equals(table) and back[1] == data


def test_results_are_read_only_views_of_the_object_store(pool: snakepit.Pool) -> None:
    ref = pool.execute.remote("same", {"x": np.arange(float(LARGE))})
    first, second = ray.get(ref), ray.get(ref)
    assert not first.flags.writeable
    assert first.__array_interface__["data"] == second.__array_interface__["data"]


# ---- every way --------------------------------------------------------------------------------------------


def test_refs_of_values_and_of_results_are_resolved_at_the_worker(pool: snakepit.Pool) -> None:
    put = ray.put(np.ones(LARGE))
    once = pool.execute.remote("plus_one", {"x": put})
    twice = pool.execute.remote("plus_one", {"x": once})
    assert ray.get(pool.execute.remote("total", {"x": twice})) == 3.0 * LARGE
    whole = ray.put({"x": np.ones(LARGE)})
    assert pool.execute("total", whole) == float(LARGE)


def test_a_strict_session_that_lives_elsewhere_gets_the_buffers_along(pool: snakepit.Pool) -> None:
    for number in range(8):  # of new sessions some are claimed by another worker than the one they come to
        strict = {"session": f"strict-{number}", "affinity": "strict_queue"}
        array = np.full(LARGE, float(number))
        assert pool.execute("total", {"x": array}, **strict) == number * LARGE


def test_map_and_batches_carry_arrays(pool: snakepit.Pool) -> None:
    items = [{"x": np.full(5_000, float(i))} for i in range(60)]
    assert list(pool.map("total", items)) == [5_000.0 * i for i in range(60)]
    back = ray.get(pool.execute_batch.remote("plus_one", items))
    assert [(array[0], array.shape) for array in back] == [(i + 1.0, (5_000,)) for i in range(60)]
    mixed = [{"x": np.ones(LARGE)}, {"y": 1}, {"x": np.ones(3)}]
    back = pool.execute_batch("total", mixed, return_exceptions=True)
    assert back[0] == LARGE and back[2] == 3.0 and isinstance(back[1], snakepit.InvalidArguments)


ODD = ["a", "masked", "b", "longdouble", "unreadable", "c"]
WORDS = {1: "its mask would be lost", 3: "send float(value)", 4: "no valid Arrow IPC stream"}


def outcomes(results: list[Any]) -> list[Any]:
    """The values; of an error those of WORDS that it says."""
    said = [[words for words in WORDS.values() if words in str(one)] for one in results]
    return [said[i][0] if isinstance(one, EncodingError) else one for i, one in enumerate(results)]


def test_a_result_that_cannot_be_carried_or_read_takes_no_other_along(pool: snakepit.Pool) -> None:
    items = [{"kind": kind} for kind in ODD]
    expected = [WORDS.get(i, {"kind": kind}) for i, kind in enumerate(ODD)]
    assert outcomes(pool.execute_batch("odd", items, return_exceptions=True)) == expected
    assert outcomes(list(pool.map("odd", items, return_exceptions=True))) == expected

    async def together() -> list[Any]:
        return await asyncio.gather(*(pool.call("odd", item) for item in items), return_exceptions=True)

    assert outcomes(asyncio.run(together())) == expected


def test_a_chunk_that_cannot_be_read_ends_its_stream_after_those_before_it(pool: snakepit.Pool) -> None:
    chunks = pool.stream("odd_stream", {"kinds": ["a", "b", "unreadable", "c"]})
    assert [next(chunks), next(chunks)] == [{"kind": "a"}, {"kind": "b"}]
    with pytest.raises(EncodingError, match="chunk: the payload is damaged: table"):
        next(chunks)


def test_an_array_that_a_batch_item_changes_later_is_what_it_was(pool: snakepit.Pool) -> None:
    back = pool.execute_batch("counted", [{"n": 20_000}] * 10, session="counting", affinity="strict_queue")
    assert [set(array.tolist()) for array in back] == [{float(i)} for i in range(1, 11)]


def test_streams_carry_arrays_and_give_their_memory_back(pool: snakepit.Pool, tmp_path: Path) -> None:
    args = {"n": LARGE, "count": 30, "path": str(tmp_path / "made")}
    assert [chunk[0] for chunk in pool.stream("chunks", args)] == [float(i) for i in range(30)]
    refs = list(pool.execute_stream.remote("chunks", args))
    assert [ray.get(ref)[-1] for ref in refs] == [float(i) for i in range(30)]


def test_a_consumer_that_stops_holds_the_producer_and_ends_it(pool: snakepit.Pool, tmp_path: Path) -> None:
    made = tmp_path / "made"
    stream = pool.stream("chunks", {"n": LARGE, "count": 10_000, "path": str(made)})
    assert next(stream)[0] == 0.0
    stream.close()
    wait_until(made.exists, 30, "the generator has ended")
    wait_until(lambda: made.read_text() != "", 30, "and said how far it came")
    assert int(made.read_text()) < 100


# ---- bounds -----------------------------------------------------------------------------------------------


def test_what_finds_no_room_is_slower_and_right(start: Any) -> None:
    x = np.random.default_rng(5).random(1_000_000)
    pool = start(size=1, adapter=adapter("arrays.py:Arrays"), shared_memory="1MB")
    assert pool.execute("same", {"x": x}).tobytes() == x.tobytes()


def test_arrays_do_not_count_for_max_message_size_and_json_does(start: Any) -> None:
    pool = start(size=1, adapter=adapter("arrays.py:Arrays"), max_message_size="1MB")
    assert pool.execute("total", {"x": np.ones(1_000_000)}) == 1_000_000.0
    assert pool.execute("plus_one", {"x": np.ones(1_000_000)}).shape == (1_000_000,)
    with pytest.raises(snakepit.PayloadTooLarge):
        pool.execute("same", {"x": "x" * 1_100_000})


def test_a_crash_under_large_requests_leaves_nothing_behind(start: Any, tmp_path: Path) -> None:
    pool = start(size=1, adapter=adapter("arrays.py:Arrays"))
    x = np.ones(1_000_000)
    (before,) = pool.workers()
    begun = tmp_path / "begun"
    running = pool.execute.remote("wait", {"x": x, "path": str(begun)})
    wait_until(begun.exists, 30, "it runs: what only holds a slot would go to the next interpreter")
    waiting = pool.execute.remote("plus_one", {"x": x})
    wait_until(lambda: pool.stats().waiting == 1, 30, "the other one waits")
    os.kill(before.pid, signal.SIGKILL)
    with pytest.raises(snakepit.WorkerCrashed):
        ray.get(running, timeout=60)
    assert ray.get(waiting, timeout=60)[0] == 2.0
    wait_until(lambda: mapped_by(before.actor_pid) <= 2, 30, "the memories of the dead one are closed")


def mapped_by(pid: int) -> int:
    """Shared memories of interpreters that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:snakepit-arena")


# ---- honesty ----------------------------------------------------------------------------------------------


class Peaks(threading.Thread):
    """The most private memory that some processes have had, in bytes beyond what they had before."""

    def __init__(self, **pids: int) -> None:
        super().__init__(daemon=True)
        self.pids = pids
        self.before = {name: anonymous(pid) for name, pid in pids.items()}
        self.most = dict.fromkeys(pids, 0)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.001):
            for name, pid in self.pids.items():
                self.most[name] = max(self.most[name], anonymous(pid) - self.before[name])

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def anonymous(pid: int) -> int:
    """Private bytes of a process (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def test_no_process_holds_a_copy_that_it_need_not(start: Any) -> None:
    pool = start(size=1, adapter=adapter("arrays.py:Arrays"))
    x = np.ones(10_000_000)  # 80 MB
    for _ in range(2):
        assert pool.execute("plus_one", {"x": x})[0] == 2.0
    (worker,) = pool.workers()
    pids = {"caller": os.getpid(), "actor": worker.actor_pid, "interpreter": worker.pid}
    with Peaks(**pids) as taking:
        assert pool.execute("total", {"x": x}) == 10_000_000.0
    with Peaks(**pids) as giving:
        result = pool.execute("plus_one", {"x": x})
    assert result[-1] == 2.0
    slack = x.nbytes // 4
    # An argument is in no private memory but the caller's own array; a result in the interpreter's, once.
    assert all(peak < slack for peak in taking.most.values()), taking.most
    assert giving.most["caller"] < slack and giving.most["actor"] < slack, giving.most
    assert giving.most["interpreter"] < x.nbytes + slack, giving.most


NODES = """
import sys
import numpy as np, ray
from ray.cluster_utils import Cluster
import snakepit_ray as snakepit

cluster = Cluster()
cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
for name in ("a", "b"):
    cluster.add_node(False, num_cpus=1, resources={name: 1}, object_store_memory=100_000_000)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
pools = {
    name: snakepit.start(name=name, size=1, adapter=sys.argv[1], resources={name: 0.1})
    for name in ("a", "b")
}
where = {node["NodeID"]: name for node in ray.nodes() for name in ("a", "b") if name in node["Resources"]}

def places(ref):
    found = ray.experimental.get_object_locations([ref])[ref]["node_ids"]
    return sorted(where.get(node, "driver") for node in found)

made = pools["a"].execute.remote("filled", {"n": 1_000_000, "value": 2.0})
ray.wait([made], fetch_local=False)
print(places(made))
total = pools["b"].execute.remote("total", {"x": made})
print(ray.get(total), places(made))
snakepit.shutdown()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow  # a cluster of three nodes
def test_a_ref_from_pool_to_pool_moves_once_and_never_to_the_caller() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", NODES, adapter("arrays.py:Arrays")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.splitlines() == ["['a']", "2000000.0 ['a', 'b']"], ran.stdout + ran.stderr
