"""Sessions and variables as callers use them, over a store in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import snakepit_ray as snakepit
from snakepit_ray.client.records import Change, PastValue
from snakepit_ray.client.session import Session
from snakepit_ray.testing import FakePool
from tests.conftest import wait_until


@pytest.fixture
def pool() -> Iterator[Any]:
    with FakePool({"a": lambda: 1}, name="fake", session_ttl=100.0, max_sessions=60) as pool:
        yield pool


@pytest.fixture
def variables(pool: Any) -> Any:
    return pool.session("s").variables


# ---- sessions ----------------------------------------------------------------------------------------------


def test_a_handle_sends_nothing_and_its_first_use_makes_the_session(pool: Any) -> None:
    session = pool.session("s")
    assert not pool.sessions.exists("s")
    assert session.variables.get("x", 3) == 3
    assert pool.sessions.get("s").pool == "fake"
    assert pool.sessions.get("s").ttl == 100.0


def test_with_a_ttl_it_is_made_at_once(pool: Any) -> None:
    pool.session("s", ttl="1m", metadata={"user": [1]})
    info = pool.sessions.get("s")
    assert (info.ttl, info.metadata) == (60.0, {"user": [1]})
    pool.session("s", ttl=5, metadata={})  # joins: it belongs to the session
    assert pool.sessions.get("s").ttl == 60.0


def test_fifty_creates_at_once_make_one_session(pool: Any) -> None:
    with ThreadPoolExecutor(50) as threads:
        infos = [*threads.map(lambda _: pool.sessions.create("s"), range(50))]
    assert len({info.generation for info in infos}) == 1
    assert [info.id for info in pool.sessions.list()] == ["s"]


def test_a_session_that_has_ended_stays_so_for_handles_that_knew_it(pool: Any) -> None:
    old = pool.session("s")
    old.variables.register("x", "integer", 1)
    assert pool.sessions.delete("s")
    with pytest.raises(snakepit.SessionNotFound, match="no session 's'"):
        old.variables.get("x")
    with pytest.raises(snakepit.SessionNotFound):
        old.variables.register("x", "integer", 1)
    assert pool.session("s").variables.get("x") is None
    assert not pool.sessions.delete("t")


def test_metadata_is_changed_by_a_function_here(pool: Any) -> None:
    pool.sessions.create("s", metadata={"n": 0})
    runs = []

    def one_more(metadata: dict[str, Any]) -> dict[str, Any]:
        runs.append(threading.get_ident())
        return {"n": metadata["n"] + 1}

    with ThreadPoolExecutor(8) as threads:
        infos = [*threads.map(lambda _: pool.sessions.update("s", one_more), range(40))]
    assert pool.sessions.get("s").metadata == {"n": 40}
    assert sorted(info.version for info in infos) == [*range(2, 42)]
    assert len({*runs}) <= 8
    assert pool.sessions.update("s", metadata={"m": 1}, ttl=7).metadata == {"m": 1}
    assert pool.sessions.get("s").ttl == 7.0


def test_a_function_that_fails_changes_nothing(pool: Any) -> None:
    pool.sessions.create("s", metadata={"n": 0})
    with pytest.raises(ZeroDivisionError):
        pool.sessions.update("s", lambda metadata: 1 // 0)
    with pytest.raises(snakepit.InvalidArguments, match=r"metadata: got None"):
        pool.sessions.update("s", lambda metadata: metadata.clear())
    with pytest.raises(snakepit.InvalidArguments, match="not both"):
        pool.sessions.update("s", dict, metadata={})
    assert pool.sessions.get("s").metadata == {"n": 0}
    with pytest.raises(snakepit.SessionNotFound):
        pool.sessions.update("t", dict)


def test_sessions_are_listed_found_and_counted(pool: Any) -> None:
    for name in ("a1", "a2", "b1"):
        pool.sessions.create(name)
    assert [info.id for info in pool.sessions.list()] == ["a1", "a2", "b1"]
    assert [info.id for info in pool.sessions.list("a*", pool="fake")] == ["a1", "a2"]
    assert pool.sessions.list(pool="other") == []
    assert pool.sessions.stats().sessions == 3
    assert pool.sessions.cleanup_expired() == 0


def test_more_sessions_than_a_page(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit_ray.client.session_talks.PAGE", 2)
    names = [f"s{number}" for number in range(5)]
    for name in names:
        pool.sessions.create(name)
    assert [info.id for info in pool.sessions.list()] == names


def test_a_pool_has_so_many_sessions(pool: Any) -> None:
    for number in range(60):
        pool.sessions.create(str(number))
    with pytest.raises(snakepit.SessionQuotaExceeded):
        pool.sessions.create("more")
    with pytest.raises(snakepit.SessionQuotaExceeded):
        pool.session("more").variables.get("x")
    assert pool.sessions.create("1").id == "1"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda pool: pool.sessions.create(""), "the id of a session: got ''"),
        (lambda pool: pool.sessions.get(7), r"the id of a session: got 7 \(int\)"),
        (lambda pool: pool.sessions.create("s", ttl="soon"), "ttl: got 'soon'"),
        (lambda pool: pool.sessions.create("s", ttl=-1), "ttl: got -1"),
        (lambda pool: pool.sessions.create("s", metadata=[1]), "metadata: got"),
        (lambda pool: pool.session("s", metadata={"a": {1}}), "metadata: got"),
        (lambda pool: pool.sessions.list(""), "a pattern: got"),
        (lambda pool: pool.sessions.list(pool=pool), "pool: got <FakePool"),
        (lambda pool: pool.sessions.update("s", "no"), "pass a function"),
        (lambda pool: pool.session("s").variables.get(7), r"the name of a variable: got 7 \(int\)"),
        (lambda pool: pool.session("s").variables.get_many("x"), "expected a list of names"),
        (lambda pool: pool.session("s").variables.list(None), "a pattern: got None"),
        (lambda pool: pool.session("s").variables.register("x", 7, 1), "there is no type 7"),
        (lambda pool: pool.session("s").variables.register("x", "float", 1, ["min"]), r"constraints: got \["),
        (lambda pool: pool.session("s").variables.register("x", "float", 1, {7: 1}), "no constraint 7"),
        (lambda pool: pool.session("s").variables.register("x", "float", 1, {}, []), r"metadata: got \[\]"),
        (lambda pool: pool.session("s").variables.set_many({}, atomic=1), "atomic: got 1"),
        (lambda pool: pool.session("s").variables.set_many({7: 1}), "the name of a variable: got 7"),
        (lambda pool: pool.session("s").variables.import_(7), "the document: got 7"),
        (lambda pool: pool.sessions.store_program("s", "", 1), "the id of a program: got"),
        (lambda pool: pool.sessions.store_global_program("p", 1, ttl=None), "ttl: got None"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    pool: Any, call: Callable[[Any], Any], says: str
) -> None:
    with pytest.raises(snakepit.InvalidArguments, match=says):
        call(pool)
    assert pool.sessions.list() == []


def test_the_id_of_a_handle_is_checked_as_ever(pool: Any) -> None:
    for make in (lambda: pool.session(""), lambda: pool.session("", ttl=1)):
        with pytest.raises(snakepit.ConfigError, match="session: got ''"):
            make()


def test_programs(pool: Any) -> None:
    program = {"code": "x", "weights": np.arange(3.0)}
    pool.sessions.store_program("s", "p", program)
    kept = pool.sessions.get_program("s", "p")
    assert kept["code"] == "x"
    assert kept["weights"].tolist() == [0.0, 1.0, 2.0]
    assert pool.sessions.get("s").programs == ("p",)
    pool.sessions.update_program("s", "p", 2)
    assert pool.sessions.get_program("s", "p") == 2
    assert pool.sessions.get_program("s", "q", "none") == "none"
    with pytest.raises(snakepit.InvalidArguments):
        pool.sessions.update_program("s", "q", 2)
    with pytest.raises(snakepit.SessionNotFound):
        pool.sessions.get_program("t", "p")


def test_global_programs(pool: Any) -> None:
    pool.sessions.store_global_program("p", None, ttl="1h")
    assert pool.sessions.get_global_program("p", "default") is None
    assert pool.sessions.get_global_program("q", "default") == "default"
    assert [pool.sessions.delete_global_program("p") for _ in range(2)] == [True, False]


# ---- variables ---------------------------------------------------------------------------------------------


def test_a_variable_is_registered_read_and_written(variables: Any) -> None:
    assert variables.register("rate", "float", 1, {"min": 0, "max": 2}, {"by": "me"}) == 1
    assert variables.get("rate") == 1.0
    assert variables.set("rate", 1.5) == 2
    value, version = variables.get_versioned("rate")
    assert (value, version) == (1.5, 2)
    (info,) = variables.list()
    assert (info.name, info.type, info.value, info.version) == ("rate", "float", 1.5, 2)
    assert (info.constraints, info.metadata) == ({"min": 0, "max": 2}, {"by": "me"})
    variables.delete("rate")
    assert variables.get("rate") is None


def test_a_variable_that_is_not_there(variables: Any) -> None:
    variables.register("temperature", "float", 1)
    for call in (
        lambda: variables.set("temperatur", 1),
        lambda: variables.get_versioned("temperatur"),
        lambda: variables.delete("temperatur"),
        lambda: variables.history("temperatur"),
        lambda: variables.rollback("temperatur", 1),
    ):
        with pytest.raises(snakepit.VariableNotFound, match=r"did you mean 'temperature'\?.*register"):
            call()


def test_a_write_that_expects_another_version_changes_nothing(variables: Any) -> None:
    variables.register("x", "integer", 1)
    assert variables.set("x", 2, expected_version=1) == 2
    with pytest.raises(snakepit.VersionConflict):
        variables.set("x", 3, expected_version=1)
    with pytest.raises(snakepit.VersionConflict):
        variables.delete("x", expected_version=1)
    for wrong in (0, "1", True, 1.0):
        with pytest.raises(snakepit.InvalidArguments, match="a version: got"):
            variables.set("x", 3, expected_version=wrong)
    assert variables.get_versioned("x") == (2, 2)


def test_values_are_checked(variables: Any) -> None:
    variables.register("x", "float", 1, {"max": 2})
    with pytest.raises(snakepit.ConstraintViolation, match="max=2"):
        variables.set("x", 3)
    with pytest.raises(snakepit.VariableTypeError, match="'x' is a float"):
        variables.set("x", "3")
    with pytest.raises(snakepit.InvalidArguments, match="no constraint 'mx'"):
        variables.register("y", "float", 1, {"mx": 2})
    with pytest.raises(snakepit.InvalidArguments, match="no type 'flaot'"):
        variables.register("y", "flaot", 1)
    with pytest.raises(snakepit.EncodingError, match=r'variables\["x"\]\["a"\]: cannot encode set'):
        variables.set("x", {"a": {1}})
    assert variables.get_versioned("x") == (1.0, 1)


def test_a_ref_is_no_value(pool: Any, variables: Any) -> None:
    ref = pool.execute.remote("a")
    with pytest.raises(snakepit.EncodingError, match=r'variables\["x"\]: a session keeps values and no'):
        variables.register("x", "dict", ref)
    with pytest.raises(snakepit.EncodingError, match=r"ray\.get it first"):
        variables.register("x", "dict", {"a": ref})


def test_a_value_is_what_it_was_when_it_was_given(variables: Any) -> None:
    array, items = np.zeros(100_000), [1, 2]
    variables.register("t", "tensor", array)
    variables.register("l", "list", items)
    array[:] = 1
    items.append(3)
    kept = variables.get("t")
    assert kept.sum() == 0
    assert not kept.flags.writeable
    assert variables.get("l") == [1, 2]


def test_what_is_given_and_what_is_got_shares_nothing_with_the_store(pool: Any, variables: Any) -> None:
    choices, metadata = ["a", "b"], {"by": ["me"]}
    variables.register("c", "choice", "a", {"choices": choices}, metadata)
    pool.sessions.update("s", metadata=metadata)
    choices.append("c")
    metadata["by"].append("you")
    variables.list()[0].constraints["choices"].append("d")
    pool.sessions.get("s").metadata["by"].append("them")
    for wrong in ("c", "d"):
        with pytest.raises(snakepit.ConstraintViolation):
            variables.set("c", wrong)
    assert variables.list()[0].metadata == {"by": ["me"]}
    assert pool.sessions.get("s").metadata == {"by": ["me"]}


def test_many_at_one_moment(variables: Any) -> None:
    for name in ("a", "b"):
        variables.register(name, "integer", 0)
    assert variables.set_many({"a": 1, "b": 2}) == {"a": 2, "b": 2}
    with pytest.raises(snakepit.VariableTypeError):
        variables.set_many({"a": 3, "b": "no"})
    found = variables.get_many(["b", "c", "a"])
    assert (found.found, found.missing) == ({"a": 1, "b": 2}, ["c"])
    outcome = variables.set_many({"a": 3, "b": "no", "c": 1}, atomic=False)
    assert outcome["a"] == 3
    assert {name: type(error) for name, error in outcome.items() if name != "a"} == {
        "b": snakepit.VariableTypeError,
        "c": snakepit.VariableNotFound,
    }
    assert variables.get_many(["a", "b"]).found == {"a": 3, "b": 2}
    assert variables.set_many({}) == {}
    with pytest.raises(snakepit.InvalidArguments, match="values: got"):
        variables.set_many([("a", 1)])


def test_names_by_a_pattern(variables: Any) -> None:
    for name in ("loss.train", "loss.test", "rate"):
        variables.register(name, "float", 0)
    assert [one.name for one in variables.list("loss.*")] == ["loss.test", "loss.train"]
    assert variables.list("x*") == []


def test_versions_are_kept_and_brought_back(variables: Any) -> None:
    variables.register("x", "integer", 0)
    for value in range(1, 15):
        variables.set("x", value)
    history = variables.history("x")
    assert [(one.version, one.value) for one in history] == [(number, number - 1) for number in range(6, 16)]
    assert isinstance(history[0], PastValue)
    assert [one.at for one in history] == sorted(one.at for one in history)
    assert variables.rollback("x", 7) == 16
    assert variables.get_versioned("x") == (6, 16)
    with pytest.raises(snakepit.InvalidArguments, match=r"no version 1 any more: it keeps 7, 8"):
        variables.rollback("x", 1)


def test_an_array_is_brought_back(variables: Any) -> None:
    variables.register("t", "tensor", np.arange(12, dtype="int16").reshape(3, 4))
    variables.set("t", np.zeros(1))
    variables.rollback("t", 1)
    kept = variables.get("t")
    assert (kept.dtype, kept.shape, kept[2, 3]) == (np.dtype("int16"), (3, 4), 11)


EVERYTHING: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "float": ("float", float("-inf"), {"max": 2}),
    "integer": ("integer", 2**80, {}),
    "string": ("string", "\u00e9\U0001f600", {"max_length": 5}),
    "boolean": ("boolean", False, {}),
    "choice": ("choice", "a", {"choices": ["a", "b"]}),
    "module": ("module", "os.path", {}),
    "list": ("list", [1, [2.5, None], b"bytes"], {}),
    "dict": ("dict", {"a": {"b": np.arange(3)}}, {}),
    "embedding": ("embedding", np.arange(4, dtype="float32"), {"dimensions": 4}),
    "tensor": ("tensor", np.arange(30_000, dtype="uint16").reshape(100, 3, 100), {"shape": [None, 3, 100]}),
}


def test_what_is_exported_is_imported_exactly(pool: Any) -> None:
    one, other = (pool.session(name).variables for name in "ab")
    for name, (kind, value, constraints) in EVERYTHING.items():
        one.register(name, kind, value, constraints, {"m": 1})
    document = one.export()
    assert other.import_(document) == dict.fromkeys(EVERYTHING, 1)
    assert repr(other.export()) == repr(document)
    tensor = other.get("tensor")
    assert (tensor.dtype, tensor.shape) == (np.dtype("uint16"), (100, 3, 100))
    assert (tensor == EVERYTHING["tensor"][1]).all()


def test_a_document_without_arrays_is_json(pool: Any) -> None:
    one, other = (pool.session(name).variables for name in "ab")
    one.register("x", "float", 1.5, {"min": 0})
    other.import_(json.loads(json.dumps(one.export())))
    assert other.get("x") == 1.5
    assert other.list()[0].constraints == {"min": 0}


def test_an_import_is_all_or_nothing_and_says_what_is_wrong(variables: Any) -> None:
    good = {"type": "float", "value": 1, "constraints": {}, "metadata": {}}
    head = {"format": "snakepit-variables", "version": 1}
    with pytest.raises(snakepit.VariableTypeError):
        variables.import_({**head, "variables": {"a": good, "b": {**good, "value": "no"}}})
    assert variables.list() == []
    for wrong, says in (
        ({}, "the document: got"),
        ({**head, "version": 2}, "the document: got"),
        ({**head, "variables": []}, "variables of the document"),
        ({**head, "variables": {"a": {"type": "float"}}}, "variable 'a' of the document"),
    ):
        with pytest.raises(snakepit.InvalidArguments, match=says):
            variables.import_(wrong)


def test_the_forms_for_asyncio_are_the_same(pool: Any) -> None:
    async def body() -> None:
        session = await pool.asession("s", metadata={"a": 1})
        assert (await pool.sessions.aget("s")).metadata == {"a": 1}
        variables = session.variables
        assert await variables.aregister("x", "integer", 0) == 1
        await asyncio.gather(*(variables.aset("x", number) for number in range(100)))
        assert await variables.aget_versioned("x") == (99, 101)
        with pytest.raises(snakepit.VariableNotFound):
            await variables.aset("y", 1)

    asyncio.run(body())


def test_each_method_has_a_form_for_asyncio_with_the_same_signature() -> None:
    import inspect

    from snakepit_ray.client.pool import Pool
    from snakepit_ray.client.sessions import Sessions
    from snakepit_ray.client.variables import Variables

    for kind in (Sessions, Variables):
        names = [name for name in vars(kind) if name[0] != "_"]
        forms = {name: f"a{name}" for name in names if f"a{name}" in names}
        assert len(forms) * 2 == len(names)
        for name, form in forms.items():
            one, other = (inspect.signature(getattr(kind, each)) for each in (name, form))
            assert one.parameters == other.parameters, name
    assert inspect.signature(Pool.session) == inspect.signature(Pool.asession)


# ---- changes -----------------------------------------------------------------------------------------------


def test_a_watcher_sees_what_is_there_and_ends_with_the_newest(variables: Any) -> None:
    variables.register("x", "integer", 0)
    variables.register("y", "integer", 0)
    seen: list[Change] = []

    def watch() -> None:
        with variables.watch("x") as changes:
            for change in changes:
                seen.append(change)
                if change.value == 50:
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    wait_until(lambda: seen)
    for value in range(1, 51):
        variables.set("x", value)
        variables.set("y", value)
    thread.join(20)
    assert not thread.is_alive()
    assert {change.name for change in seen} == {"x"}
    assert seen[0] == Change("x", 0, 1)
    versions = [change.version for change in seen]
    assert versions == sorted({*versions})
    assert versions[-1] == 51
    assert sum(change.skipped + 1 for change in seen) == 51


def test_a_watcher_sees_a_variable_go(variables: Any) -> None:
    variables.register("x", "integer", 7)
    with variables.watch(["x", "z*"]) as changes:
        assert next(changes).value == 7
        variables.delete("x")
        variables.register("z1", "integer", 8)
        assert {(one.name, one.value, one.deleted) for one in (next(changes), next(changes))} == {
            ("x", None, True),
            ("z1", 8, False),
        }


def test_the_end_of_a_session_ends_its_watchers(pool: Any) -> None:
    session = pool.session("s")
    session.variables.register("x", "integer", 7)
    changes = session.variables.watch()
    assert next(changes).value == 7
    threading.Timer(0.05, pool.sessions.delete, ["s"]).start()
    with pytest.raises(snakepit.SessionNotFound):
        next(changes)
    with pytest.raises(StopIteration):
        next(changes)


def test_closing_a_watcher_from_another_thread_ends_it(pool: Any, variables: Any) -> None:
    changes = variables.watch()
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(not [*changes]))
    thread.start()
    wait_until(lambda: pool.sessions.stats().watchers == 1)
    changes.close()
    thread.join(20)
    assert ended == [True]
    wait_until(lambda: pool.sessions.stats().watchers == 0)


def test_the_end_of_the_pool_ends_a_watcher(pool: Any, variables: Any) -> None:
    changes = variables.watch()
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            next(changes)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    wait_until(lambda: pool.sessions.stats().watchers == 1)
    pool.shutdown()
    thread.join(20)
    assert [type(one) for one in ended] == [snakepit.PoolClosed]


def test_a_watcher_for_asyncio(pool: Any, variables: Any) -> None:
    async def body() -> None:
        await variables.aregister("x", "integer", 0)
        seen = []
        async with variables.awatch("x") as changes:
            async for change in changes:
                seen.append(change.value)
                if change.value == 3:
                    break
                await variables.aset("x", change.value + 1)
        assert seen == [0, 1, 2, 3]
        waiting = asyncio.ensure_future(anext(variables.awatch("y")))
        await asyncio.to_thread(wait_until, lambda: pool.sessions.stats().watchers == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(wait_until, lambda: pool.sessions.stats().watchers == 0)

    asyncio.run(body())


def test_what_is_no_pattern(variables: Any) -> None:
    for wrong in (7, [], [""]):
        with pytest.raises(snakepit.InvalidArguments):
            variables.watch(wrong)


def test_a_pool_that_is_closed(pool: Any, variables: Any) -> None:
    pool.shutdown()
    for call in (lambda: variables.get("x"), lambda: pool.sessions.list(), lambda: pool.session("s", ttl=1)):
        with pytest.raises(snakepit.PoolClosed):
            call()


def test_a_session_says_what_it_is(pool: Any, variables: Any) -> None:
    assert repr(variables) == "<Variables of session 's'>"
    assert repr(pool.sessions) == "<Sessions seen by pool 'fake'>"
    assert Session.variables.__doc__
