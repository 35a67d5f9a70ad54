"""The names that users type: completion, `import *`, `help`, and the types of keywords."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

import snakepit_ray as snakepit
from snakepit_ray import errors
from snakepit_ray.client.pool import Pool
from snakepit_ray.client.session import Session
from snakepit_ray.config import PoolConfig

FORMS = ("execute", "execute_batch", "execute_in_session", "execute_stream", "execute_in_session_stream")


def test_completion_offers_what_there_is() -> None:
    names = dir(snakepit)
    assert {"start", "connect", "Pool", "PoolConfig", "HALT", "WorkerCrashed", "errors"} <= set(names)
    assert all(getattr(snakepit, name) is not None for name in snakepit.__all__)


def test_every_name_is_in_every_list() -> None:
    """What is loaded when it is first used, what type checkers read, and `__all__`."""
    tree = ast.parse(Path(snakepit.__file__).read_text())
    (checking,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    read = {alias.name for node in checking.body for alias in node.names}
    raised = {name for name in errors.__all__ if name[0].isupper()}
    assert read == {*snakepit._HOMES, *raised}
    assert set(snakepit.__all__) == {"__version__", *read}


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'snakepit_ray' has no attribute 'strat'"):
        _ = snakepit.strat


def test_completion_does_not_load_ray() -> None:
    script = "import sys, snakepit_ray; dir(snakepit_ray); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@pytest.mark.parametrize(("kind", "forms"), [(Pool, FORMS), (Session, ("execute", "execute_stream"))])
def test_help_documents_the_forms_of_a_call(kind: type, forms: tuple[str, ...]) -> None:
    text = pydoc.plain(pydoc.render_doc(kind))
    for name in forms:
        documented = inspect.getdoc(getattr(kind, name))
        assert documented
        shown = textwrap.indent(documented, " |      ", lambda line: True)
        assert f"\n |  {name}\n{shown}\n" in text, name


@pytest.mark.parametrize("name", FORMS)
def test_what_help_shows_of_a_form_is_what_the_form_itself_says(name: str) -> None:
    form = getattr(Pool(cast(Any, _Directory())), name)
    documented = inspect.getdoc(getattr(Pool, name))
    assert documented == inspect.cleandoc(form.__doc__)
    assert f"pool.{name}(" in documented
    assert f"pool.{name}.remote(" in documented


def test_a_form_costs_no_function_call_and_a_method_can_be_replaced() -> None:
    pool = Pool(cast(Any, _Directory()))
    assert all(inspect.ismemberdescriptor(getattr(Pool, name)) for name in FORMS)
    assert not {*FORMS} & {*vars(pool)}
    with mock.patch.object(pool, "map", return_value=[1]):
        assert pool.map("add", []) == [1]


class _Directory:
    """What a handle asks of its directory when it is made."""

    config = PoolConfig()

    def new_id(self) -> str:
        return "1"

    def declared(self, command: str) -> None:
        return None
