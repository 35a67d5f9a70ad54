"""Configuration says all that is wrong, with what was got and expected; units; TOML; call options."""

import json
import math
import pickle
import textwrap

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.config import (
    DEFAULT_OPTIONS,
    POOL_KEYS,
    RESERVED,
    Affinity,
    CallOptions,
    CircuitBreakerConfig,
    FrozenMap,
    PoolConfig,
    duration,
    environment_default,
    load_object,
    load_toml,
    read_toml,
    size,
)
from snakepit_ray.errors import ConfigError

DEFAULTS = {  # the table of contract.md
    "name": "default",
    "runtime": "python",
    "interpreter": None,
    "adapter": "showcase",
    "adapter_args": {},
    "env": {},
    "cwd": None,
    "size": None,
    "max_workers": 1000,
    "profile": "process",
    "threads_per_worker": 10,
    "max_queue_size": 1000,
    "queue_timeout": 5.0,
    "request_timeout": 60.0,
    "startup_timeout": 30.0,
    "startup_batch_size": 8,
    "startup_batch_delay": 0.0,
    "worker_ttl": None,
    "worker_max_requests": None,
    "worker_max_memory": None,
    "ttl_jitter": 0.1,
    "recycle_overlap": True,
    "fork_starts": "auto",
    "retries": 3,
    "retry_backoff": 0.1,
    "circuit_breaker": None,
    "unserializable": "error",
    "health_check_interval": 5.0,
    "heartbeat_timeout": 10.0,
    "shutdown_grace": 2.0,
    "cancel_grace": 2.0,
    "affinity": "hint",
    "session_ttl": 3600.0,
    "max_sessions": 10_000,
    "session_store": "sqlite",
    "session_sweep_interval": 60.0,
    "num_cpus": 0,
    "num_gpus": 0,
    "resources": {},
    "placement": "spread",
    "wire": "auto",
    "labels": {},
    "thread_limits": None,
    "lane": "auto",
    "binary_threshold": 10_240,
    "max_message_size": 100 * 1024 * 1024,
    "shared_memory": None,
}


class Trimming:
    """Enough of a Runtime for the configuration to take it."""

    name = "trimming"

    def executable(self, config):
        return "/bin/sh"


def test_the_defaults_are_the_contracts():
    assert PoolConfig().to_dict() == DEFAULTS
    assert set(POOL_KEYS) == set(DEFAULTS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size: got 0 (int), expected a whole number of at least 1, or None"),
        ({"size": -1}, "size: got -1 (int), expected a whole number of at least 1"),
        ({"size": "4"}, "size: got '4' (str), expected a whole number"),
        ({"size": True}, "size: got True (bool), expected a whole number"),
        ({"size": 1.5}, "size: got 1.5 (float), expected a whole number"),
        ({"size": 100_000}, "size: got 100000, expected at most max_workers=1000; raise max_workers"),
        ({"sise": 4}, "unknown pool setting 'sise'; did you mean 'size'?"),
        ({"affinity": "strict"}, "did you mean 'strict_queue'?"),
        ({"profile": "threads"}, "expected one of 'process', 'thread'; did you mean 'thread'?"),
        ({"queue_timeout": "5"}, "queue_timeout: got '5' (str), expected seconds or a duration"),
        ({"queue_timeout": -1}, "not negative"),
        ({"queue_timeout": math.nan}, "finite"),
        ({"queue_timeout": math.inf}, "finite"),
        ({"request_timeout": 0}, "more than 0 seconds"),
        ({"request_timeout": "100d"}, "at most 4e+06 seconds"),
        ({"worker_max_memory": "2GX"}, 'expected bytes or a size such as "512KiB"'),
        ({"worker_max_memory": 5}, "at least 1048576 bytes"),
        ({"ttl_jitter": 1.5}, "a number of at least 0 and at most 1"),
        ({"recycle_overlap": 1}, "expected True or False"),
        ({"name": ""}, "1 to 64 of A-Z"),
        ({"name": "-x"}, "1 to 64 of A-Z"),
        ({"name": "x" * 65}, "1 to 64 of A-Z"),
        ({"name": "x\n"}, "1 to 64 of A-Z"),
        (
            {"env": {"A": 1}},
            "env: got {'A': 1} (dict), expected a mapping from names to strings; 'A' has 1 (int)",
        ),
        ({"env": [("A", "b")]}, "expected a mapping from names to strings"),
        ({"adapter_args": {"a": object()}}, "a mapping from strings to JSON values"),
        ({"adapter_args": {"a": math.nan}}, "a mapping from strings to JSON values"),
        ({"adapter_args": {1: 2}}, "a mapping from strings to JSON values"),
        ({"adapter_args": {"a": [{"b": {1: 2}}]}}, "the key 1 (int) in ['a'][0]['b'] is no string"),
        ({"circuit_breaker": {"failure": 3}}, "did you mean 'failures'?"),
        ({"circuit_breaker": {"failures": 0}}, "failures: got 0 (int)"),
        ({"circuit_breaker": 3}, "a mapping with failures, window, reset"),
        (
            {"affinity": "strict_fail_fast"},
            "one of 'hint', 'strict_queue': 'strict_fail_fast' is not in this version",
        ),
        ({"runtime": "node"}, "'node' is not in this version"),
        ({"runtime": "pyton"}, "did you mean 'python'?"),
        ({"runtime": 3}, "or a Runtime object"),
        ({"adapter": ""}, "a string that is not empty"),
        ({"interpreter": "a\0b"}, "a string that is not empty"),
        ({"max_message_size": 10}, "at least 1024 bytes"),
        ({"num_gpus": 1.5}, "a share of one GPU (0 to 1) or a whole number of them"),
        ({"num_gpus": -1}, "a number of at least 0"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_got_and_expected(settings, said):
    with pytest.raises(ConfigError) as caught:
        PoolConfig.build(settings)
    assert said in str(caught.value)
    assert caught.value.key == next(iter(settings))


def test_one_error_says_all_that_is_wrong():
    with pytest.raises(ConfigError) as caught:
        PoolConfig.build(name="ml", size=0, queue_timeout="soon", affinity="none")
    for key in ("size", "queue_timeout", "affinity"):
        assert f"{key}: got" in str(caught.value)
    assert str(caught.value).startswith("pool 'ml': ")


@pytest.mark.parametrize("key", RESERVED)
def test_reserved_keys_are_refused_as_not_there_yet(key):
    with pytest.raises(ConfigError, match=f"'{key}': this version does not have it yet"):
        PoolConfig.build({key: 1})


def test_it_is_frozen_picklable_hashable_and_json():
    config = PoolConfig.build(
        size=4,
        env={"A": "b"},
        adapter_args={"deep": {"list": [1, 2.0]}},
        circuit_breaker={"failures": 3, "window": "1m"},
        resources={"slot": 0.5},
        labels={"zone": "a"},
        runtime=Trimming(),
    )
    with pytest.raises(AttributeError):
        config.size = 5
    again = pickle.loads(cloudpickle.dumps(config.merge(runtime="python")))
    assert again == config.merge(runtime="python")
    assert hash(again) == hash(config.merge(runtime="python"))
    assert again.circuit_breaker == CircuitBreakerConfig(failures=3, window=60.0)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["runtime"] == f"{__name__}:Trimming"
    assert PoolConfig.build(plain) == config.merge(runtime=plain["runtime"])


def test_settings_are_copied():
    env, deep = {"A": "b"}, {"x": [1]}
    config = PoolConfig.build(env=env, adapter_args=deep)
    env["A"] = "changed"
    deep["x"].append(2)
    assert dict(config.env) == {"A": "b"}
    assert dict(config.adapter_args) == {"x": [1]}
    with pytest.raises(TypeError):
        config.env["A"] = "c"
    assert isinstance(config.env, FrozenMap)


def test_what_follows_from_the_settings():
    assert (PoolConfig().capacity, PoolConfig().effective_thread_limits) == (1, 1)
    threads = PoolConfig(profile="thread", threads_per_worker=6)
    assert (threads.capacity, threads.effective_thread_limits) == (6, 6)
    assert PoolConfig(profile="thread", thread_limits=2).effective_thread_limits == 2
    assert PoolConfig(max_queue_size=10).queue_share(4) == 3
    assert PoolConfig(max_queue_size=None).queue_share(4) is None
    assert PoolConfig(max_queue_size=0).queue_share(4) == 0
    assert PoolConfig().stream_timeout == 300.0
    assert PoolConfig(request_timeout=600.0).stream_timeout == 600.0


@pytest.mark.parametrize(("cpus", "expected"), [(0, 1), (0.5, 1), (4, 8), (4000, 1000)])
def test_the_size_follows_the_cluster(cpus, expected):
    assert PoolConfig().with_size(cpus).size == expected
    assert PoolConfig(size=3).with_size(cpus).size == 3


def test_merging_keeps_the_rest():
    config = PoolConfig.build({"size": 2}, queue_timeout="1m").merge(size=3)
    assert (config.size, config.queue_timeout) == (3, 60.0)
    with pytest.raises(ConfigError, match="sise"):
        config.merge(sise=1)


# ---- units -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h", 3600),
        ("30s", 30),
        ("500ms", 0.5),
        ("1.5m", 90),
        ("1h30m", 5400),
        (" 2 d ", 172800),
        (3, 3),
        (0.5, 0.5),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)
    assert isinstance(duration(text), float)


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GiB", 2 * 1024**3), ("100MB", 10**8), ("1.5 KiB", 1536), ("10kb", 10_000), ("7B", 7), (12, 12)],
)
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "5", "h", "1x", "-1s", "1h x", None, True, [], "1e3s", "\u0661s"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize("text", ["", "5", "GiB", "2G", "-1MB", 1.5, None, True, -1])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="size"):
        size(text)


@given(st.floats(0, 1e6), st.integers(0, 10**12))
def test_numbers_are_themselves(seconds, count):
    assert duration(seconds) == seconds
    assert size(count) == count
    assert size(f"{count}B") == pytest.approx(count)


@given(
    st.dictionaries(
        st.sampled_from(POOL_KEYS),
        st.none()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.booleans()
        | st.just({})
        | st.just([]),
        max_size=6,
    )
)
def test_any_settings_give_a_config_or_a_config_error(settings):
    try:
        config = PoolConfig.build(settings)
    except ConfigError:
        return
    assert PoolConfig.build(json.loads(json.dumps(config.to_dict()))) == config


# ---- TOML and the environment ------------------------------------------------------------------------------


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "snakepit.toml"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_toml_has_pools_over_defaults(toml, tmp_path):
    path = toml(
        """
        [defaults]
        size = 2
        queue_timeout = "10s"
        [pools.ml]
        adapter = "adapters/ml.py"
        cwd = "work"
        interpreter = "venv/bin/python"
        size = 3
        [pools.ml.env]
        HF_HOME = "/models"
        [pools.text]
        adapter = "texts:Texts"
        interpreter = "python3.12"
        """
    )
    ml, text = load_toml(path)
    assert (ml.name, ml.size, ml.queue_timeout, dict(ml.env)) == ("ml", 3, 10.0, {"HF_HOME": "/models"})
    assert ml.adapter == str(tmp_path / "adapters/ml.py")
    assert ml.cwd == str(tmp_path / "work")
    assert ml.interpreter == str(tmp_path / "venv/bin/python")
    assert (text.name, text.size, text.adapter, text.interpreter) == ("text", 2, "texts:Texts", "python3.12")
    assert text.cwd is None


def test_a_broken_pool_fails_alone(toml):
    path = toml("[pools.good]\nsize = 1\n[pools.bad]\nsize = 0\n[pools.worse]\nsise = 1\n")
    found = read_toml(str(path))
    assert isinstance(found["good"], PoolConfig)
    assert "[pools.bad]: pool 'bad': size: got 0" in str(found["bad"])
    with pytest.raises(ConfigError) as caught:
        load_toml(path)
    assert "pools.bad" in str(caught.value)
    assert "pools.worse" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pool.x]\n", "unknown table 'pool'; did you mean 'pools'?"),
        ("", "no pools; write at least one table"),
        ("[pools]\n", "no pools"),
        ("pools = 3", "pools: got int, expected a table"),
        ("[pools]\nx = 3", "[pools.x]: got int, expected a table"),
        ("[pools.x", "is not TOML"),
        ('[pools.x]\nname = "y"', "name: got 'y', expected the table's own name"),
        ('[pools."-x"]', "1 to 64 of"),
        ("defaults = 1\n[pools.x]", "defaults: got int"),
        ("[pools.x]\nsize = 0", "snakepit.toml [pools.x]: pool 'x': size: got 0"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(toml, text, said):
    with pytest.raises(ConfigError) as caught:
        load_toml(toml(text))
    assert said in str(caught.value)
    assert "snakepit.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_toml(tmp_path / "none.toml")


def test_the_environment(monkeypatch):
    monkeypatch.setenv("SNAKEPIT_PYTHON", "/usr/bin/python3")
    assert environment_default("SNAKEPIT_PYTHON") == "/usr/bin/python3"
    monkeypatch.setenv("SNAKEPIT_PYTHON", "")
    assert environment_default("SNAKEPIT_PYTHON") is None
    monkeypatch.delenv("SNAKEPIT_PYTHON")
    assert environment_default("SNAKEPIT_PYTHON") is None


def test_objects_are_found_by_name():
    assert load_object("json:JSONDecoder.decode") is json.JSONDecoder.decode
    for name, said in [
        ("json", "module, a colon"),
        (":x", "module, a colon"),
        ("no.such:x", "cannot be imported"),
        ("json:nothing", "has no 'nothing'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            load_object(name)


# ---- call options ------------------------------------------------------------------------------------------


def test_options_merge_and_are_checked():
    options = DEFAULT_OPTIONS.merge(
        session="user_1", timeout="1.5m", affinity="strict_queue", idempotent=True
    )
    assert options == CallOptions(
        session="user_1", timeout=90.0, affinity=Affinity.STRICT_QUEUE, idempotent=True
    )
    assert options.merge() is options
    assert options.merge(retries=2).session == "user_1"
    assert pickle.loads(pickle.dumps(options)) == options
    assert CallOptions() == DEFAULT_OPTIONS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time_out": 3}, "unknown call option 'time_out'; did you mean 'timeout'?"),
        ({"timeout": 0}, "timeout: got 0 (int), expected more than 0 seconds, or None"),
        ({"timeout": "3"}, "expected seconds or a duration"),
        ({"affinity": "strict-queue"}, "did you mean 'strict_queue'?"),
        ({"session": ""}, "a string of 1 to 1024 bytes of UTF-8"),
        ({"session": "\ud800"}, "a string of 1 to 1024 bytes of UTF-8"),
        ({"session": "ä" * 513}, "a string of 1 to 1024 bytes of UTF-8"),
        ({"session": 7}, "a string of 1 to 1024 bytes of UTF-8"),
        ({"retries": -1}, "a whole number of at least 0"),
        ({"info": 1}, "True or False"),
        ({"rebind": None}, "True or False"),
        ({"idempotent": "yes"}, "True or False, or None"),
    ],
)
def test_options_that_are_wrong(options, said):
    with pytest.raises(ConfigError) as caught:
        DEFAULT_OPTIONS.merge(**options)
    assert said in str(caught.value)


def test_affinity_is_a_string():
    assert str(Affinity.STRICT_QUEUE) == f"{Affinity.STRICT_QUEUE}" == "strict_queue"
    assert Affinity.HINT == "hint"
    assert [member.strict for member in Affinity] == [False, True]
