"""Errors survive pickling and Ray, are caught by type, and say what to do."""

import builtins
import copy
import inspect
import pickle
import traceback

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray import errors
from snakepit_ray.errors import (
    CallerFault,
    CommandError,
    ConfigError,
    DeadlineExceeded,
    NotNow,
    PayloadTooLarge,
    PoolSaturated,
    QueueTimeout,
    RequestCancelled,
    SnakepitError,
    ToolNotFound,
    UnknownCommand,
    WorkerCrashed,
    WorkerFault,
    command_error,
    failure_to_error,
)
from snakepit_ray.errors.command import BUILDERS, KINDS
from snakepit_ray.wire._pb import interpreter_pb2 as pb

CONTRACT = [
    "PoolNotFound",
    "PoolExists",
    "PoolClosed",
    "CircuitOpen",
    "PoolSaturated",
    "QueueTimeout",
    "DeadlineExceeded",
    "RequestCancelled",
    "WorkerBusy",
    "WorkerStartError",
    "WorkerCrashed",
    "SessionNotFound",
    "SessionExpired",
    "SessionQuotaExceeded",
    "SessionWorkerLost",
    "VariableNotFound",
    "VariableTypeError",
    "ConstraintViolation",
    "VersionConflict",
    "ToolNotFound",
    "DuplicateTool",
    "UnknownCommand",
    "InvalidArguments",
    "CommandError",
    "EncodingError",
    "PayloadTooLarge",
    "ProtocolMismatch",
    "ConfigError",
]

CLASSES = [getattr(errors, name) for name in CONTRACT]
UNMIXED = [
    "StopIteration",
    "StopAsyncIteration",
    "MemoryError",
    "UnicodeError",
    "UnicodeDecodeError",
    "UnicodeEncodeError",
    "UnicodeTranslateError",
    "ExceptionGroup",
    "BaseExceptionGroup",
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "Exception",
    "BaseException",
    "NoSuchThing",
    "print",
    "int",
    "__name__",
]
MIXED = [
    name
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, Exception) and name not in UNMIXED
]

HELPED = [
    errors.PoolNotFound.named("ml", ["mk"]),
    errors.PoolExists.named("ml"),
    errors.PoolClosed.named("ml"),
    errors.CircuitOpen.opened("ml", 5, 60, 12.5),
    PoolSaturated.full("ml", 1000, 1000),
    QueueTimeout.after(5.01, 5.0, "ml", 3),
    DeadlineExceeded.after(60.0, "running", "add"),
    RequestCancelled.because("the caller cancelled it", "add", may_have_started=False),
    errors.WorkerBusy.pinned("s", "w1", 1, 1),
    WorkerCrashed.from_exit("w1", -9, "last words", ["python", "main.py"], begun=0),
    errors.SessionNotFound.named("s"),
    errors.SessionExpired.after("s", 3700.0, 3600.0),
    errors.SessionQuotaExceeded.of("max_sessions", 10, 10),
    errors.SessionWorkerLost.of("s", "crashed", (1, 2), (1, 3)),
    errors.VariableNotFound.named("x", "s", ["y"]),
    errors.VersionConflict.of("x", 1, 2),
    ToolNotFound.named("serch", ["search"]),
    errors.DuplicateTool.named("search"),
    UnknownCommand.named("ad", ["add", "echo"]),
    PayloadTooLarge.of(200, 100),
    ConfigError.unknown("pool setting", ["sise"], ["size"]),
    command_error("ValueError", "bad", "Traceback: ...", "python", "add"),
    command_error("MyError", "bad", language="ruby"),
]


def filled(cls):
    """An instance with every optional attribute set to something that is not its default."""
    values = {
        "exit_code": 3,
        "may_have_started": False,
        "stderr_tail": "tail",
        "argv": ("a",),
        "details": {"k": 1},
    }
    names = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "message")]
    facts = {
        name: values.get(name, ("x", "y") if name in ("nearest", "commands", "available") else name)
        for name in names
    }
    return cls("what happened", **facts), facts


def same(one, other):
    assert type(one) is type(other)
    assert one.args == other.args
    assert vars(one) == vars(other)
    assert str(one) == str(other)


def test_the_tree_holds_every_error_of_the_contract():
    assert all(issubclass(cls, SnakepitError) for cls in CLASSES)
    for cls in CLASSES:
        assert cls.__name__ in errors.__doc__
        assert cls.__module__ == "snakepit_ray.errors"
        assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES, ids=CONTRACT)
@pytest.mark.parametrize("through", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_pickling_keeps_type_message_and_attributes(cls, through):
    error, facts = filled(cls)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(through.dumps(error, protocol))
        same(again, error)
        assert {name: getattr(again, name) for name in facts} == facts
    same(copy.copy(error), error)
    same(copy.deepcopy(error), error)
    same(pickle.loads(pickle.dumps(cls())), cls())


@pytest.mark.parametrize("cls", CLASSES, ids=CONTRACT)
def test_no_class_attribute_hides_an_instance_attribute(cls):
    """Ray's dual class reads what the class does not have from the original."""
    _, facts = filled(cls)
    assert [name for name in facts if hasattr(cls, name)] == []


@pytest.mark.parametrize("error", HELPED, ids=lambda error: type(error).__name__)
def test_helpers_make_errors_that_survive(error):
    assert len(error.args) == 1
    same(pickle.loads(pickle.dumps(error)), error)
    assert len(str(error)) > 3


def test_messages_have_the_numbers_and_what_to_do():
    full = PoolSaturated.full("ml", 1001, 1000)
    assert str(full).startswith(
        "pool 'ml' is saturated: 1001 requests wait at the pool, the limit is 1000; raise"
    )
    assert (full.pool, full.waiting, full.limit) == ("ml", 1001, 1000)
    late = QueueTimeout.after(5.02, 5.0, "ml", 3)
    assert "queue_timeout=5 s (waited 5.02 s, 3 requests were still before it)" in str(late)
    assert "it was not executed" in str(DeadlineExceeded.after(1.5, "waiting"))
    assert "it may have had effects" in str(DeadlineExceeded.after(1.5, "running", "train"))
    assert "did you mean 'search'?" in str(ToolNotFound.named("serch", ["search", "other"]))
    unknown = UnknownCommand.named("ad", ["echo", "add"])
    assert (unknown.nearest, unknown.commands) == (("add",), ("add", "echo"))
    assert "epoch 1.2, now 1.3" in str(errors.SessionWorkerLost.of("s", "crashed", (1, 2), (1, 3)))


@pytest.mark.parametrize(
    ("returncode", "exit_code", "signal", "words"),
    [
        (3, 3, None, "exited with code 3"),
        (-9, None, "SIGKILL", "was ended by SIGKILL (9)"),
        (-11, None, "SIGSEGV", "was ended by SIGSEGV (11)"),
        (-99, None, "signal 99", "was ended by signal 99 (99)"),
        (None, None, None, "nobody saw its exit code"),
    ],
)
def test_a_crash_explains_itself(returncode, exit_code, signal, words):
    error = WorkerCrashed.from_exit("w1", returncode, "boom\n", ["python", "main.py"])
    assert (error.exit_code, error.signal, error.may_have_started) == (exit_code, signal, True)
    assert words in str(error)
    assert "boom" in str(error)
    assert "python main.py" in str(error)
    assert "may have started" in str(error)
    assert "safe to send it again" in str(WorkerCrashed.from_exit("w1", 1, begun=0))


def test_the_worker_crash_is_pessimistic_by_default():
    assert WorkerCrashed("gone").may_have_started is True
    assert RequestCancelled("stop").may_have_started is True


# ---- CommandError ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXED)
def test_command_errors_are_the_builtin_of_the_same_name(name):
    error = CommandError.from_remote(name, "'quoted' message", "Traceback\n  line 1\n", "python", "add")
    assert isinstance(error, CommandError)
    assert isinstance(error, getattr(builtins, name))
    assert error.args == ("'quoted' message",)
    for through in (pickle, cloudpickle):
        again = pickle.loads(through.dumps(error))
        same(again, error)
    same(copy.copy(error), error)
    assert (error.remote_type, error.message, error.language, error.command) == (
        name,
        "'quoted' message",
        "python",
        "add",
    )
    assert error.traceback == "Traceback\n  line 1\n"


@pytest.mark.parametrize("name", MIXED)
def test_what_python_prints_has_message_and_remote_traceback(name):
    error = CommandError.from_remote(name, "the message", "Traceback\n  line 1\n", "python", "add")
    assert str(error).startswith(
        "the message\n\nRaised by command 'add' in the python interpreter:\n  Traceback\n"
    )
    assert "the message" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", UNMIXED)
def test_builtins_that_would_do_harm_are_plain_command_errors(name):
    error = CommandError.from_remote(name, "m", language="ruby")
    assert type(error) is CommandError
    assert str(error) == f"{name}: m (raised by a command in the ruby interpreter)"
    same(pickle.loads(pickle.dumps(error)), error)


@given(st.text(), st.text(), st.text(), st.text())
def test_any_remote_text_makes_an_error(type_name, message, trace, language):
    error = command_error(type_name, message, trace, language)
    assert error.message == message
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_classes_are_made_once():
    assert type(command_error("ValueError", "a")) is type(command_error("ValueError", "b"))
    assert type(command_error("IOError", "a")) is type(command_error("OSError", "a"))


# ---- the wire's failures -----------------------------------------------------------------------------------


def test_every_kind_of_the_proto_is_mapped():
    kinds = dict(pb.Failure.Kind.items())
    assert set(kinds) == set(BUILDERS)
    assert all(KINDS[number] == name for name, number in kinds.items())
    for name, number in kinds.items():
        by_name = failure_to_error(name, "T", "m", "tb", "python", {}, "add")
        by_number = failure_to_error(number, "T", "m", "tb", "python", {}, "add")
        assert isinstance(by_name, SnakepitError)
        same(by_name, by_number)


@pytest.mark.parametrize(
    ("kind", "details", "cls", "facts"),
    [
        ("COMMAND", {}, CommandError, {"remote_type": "T", "message": "m", "traceback": "tb"}),
        (
            "UNKNOWN_COMMAND",
            {"nearest": ["add"], "commands": ["add", "echo"]},
            UnknownCommand,
            {"nearest": ("add",), "commands": ("add", "echo"), "command": "cmd"},
        ),
        ("INVALID_ARGUMENTS", {"missing": ["a"]}, errors.InvalidArguments, {"details": {"missing": ["a"]}}),
        ("ENCODING", {"path": 'result["x"]'}, errors.EncodingError, {"path": 'result["x"]'}),
        ("PAYLOAD_TOO_LARGE", {"size": 12, "limit": 10}, PayloadTooLarge, {"size": 12, "limit": 10}),
        ("CANCELLED", {}, RequestCancelled, {"command": "cmd", "may_have_started": True}),
        ("DEADLINE", {"budget_s": 1.5}, DeadlineExceeded, {"budget_s": 1.5, "where": "running"}),
        ("TOOL_NOT_FOUND", {"available": ["t"]}, ToolNotFound, {"available": ("t",)}),
        ("INTERNAL", {}, WorkerFault, {}),
        ("KIND_UNSPECIFIED", {}, WorkerFault, {}),
        (77, {}, WorkerFault, {}),
    ],
)
def test_failures_become_errors(kind, details, cls, facts):
    error = failure_to_error(kind, "T", "m", "tb", "python", details, "cmd")
    assert type(error) is cls
    assert {name: getattr(error, name) for name in facts} == facts


@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(["nearest", "commands", "size", "limit", "available", "path", "budget_s", "tool"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.floats(),
    ),
)
def test_strange_details_do_no_harm(kind, details):
    assert str(failure_to_error(kind, "T", "m", "", "", details))


def test_groups_say_whose_fault_it_is():
    assert isinstance(HELPED[4], NotNow)
    assert not isinstance(HELPED[4], CallerFault)
    assert isinstance(HELPED[9], WorkerFault)


# ---- through Ray -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    import ray

    mine = not ray.is_initialized()
    if mine:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    if mine:
        ray.shutdown()


@pytest.mark.ray
def test_every_error_is_caught_by_type_through_ray_get(cluster):
    @cluster.remote(num_cpus=0, max_retries=0)
    def fail(error):
        raise pickle.loads(error)

    cases = [filled(cls) for cls in CLASSES] + [(error, vars(error)) for error in HELPED]
    cases += [
        (e, vars(e)) for e in (command_error(name, "the message", "tb", "python", "add") for name in MIXED)
    ]
    refs = [fail.remote(pickle.dumps(error)) for error, _ in cases]
    for (error, facts), ref in zip(cases, refs, strict=True):
        with pytest.raises(type(error)) as caught:
            cluster.get(ref)
        assert isinstance(caught.value, SnakepitError)
        assert {name: getattr(caught.value, name) for name in facts} == facts
        assert str(error).strip().split("\n")[0] in str(caught.value)
        if isinstance(error, CommandError) and type(error) is not CommandError:
            assert isinstance(caught.value, getattr(builtins, error.remote_type))
            assert (
                "the message" in "".join(traceback.format_exception(caught.value)) or error.message == "bad"
            )
