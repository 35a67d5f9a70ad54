"""Tools that this process registers: what is said of a function, where it runs, and what the router is told.

- The router knows the names: a name is given once, whichever process registers it.
- What cannot be a tool fails here, before the router is asked.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from snakepit_ray.client.directory import Directory
from snakepit_ray.client.tool_host import ToolHost
from snakepit_ray.client.tool_info import describe
from snakepit_ray.config import checks
from snakepit_ray.core.tools.tool import HERE, Tool, ToolInfo
from snakepit_ray.errors import DuplicateTool, EncodingError, ToolNotFound
from snakepit_ray.port import control, ray_port

TELL_SECONDS = 30.0
_hosts: dict[str, ToolHost] = {}  # by directory
_lock = threading.Lock()


def register(
    directory: Directory,
    functions: Mapping[str, Callable[..., Any]],
    session: str | None,
    where: str,
    description: str = "",
    parameters: Any = None,
) -> None:
    """Registers functions under their names, all or none. Raises ConfigError, DuplicateTool."""
    directory.check_open()
    checks.checked("register_tool", {"session": session}, {"session": checks.optional(checks.session_id)})
    tools = []
    for name, function in functions.items():
        info = describe(name, function, session, where, description, parameters)
        tools.append((_made(directory, info, function), function))
    _refuse_prefixes(functions)
    host = _host(directory) if where == HERE else None
    if host is not None:
        host.add(tools)
    try:
        _ask(directory, "add_tools", [tool for tool, _ in tools])
    except BaseException:
        if host is not None:
            ids = {tool.id for tool, _ in tools}
            host.remove(lambda tool: tool.id in ids)
        raise


def unregister(directory: Directory, name: str, session: str | None) -> None:
    """Takes a tool away. Raises ToolNotFound."""
    directory.check_open()
    if not _ask(directory, "remove_tool", name, session or ""):
        names = [info.name for info in listed(directory) if info.session == (session or "")]
        raise ToolNotFound.named(name, names)
    with _lock:
        host = _hosts.get(directory.id)
    if host is not None:
        host.remove(lambda tool: tool.key == (session or "", name))


def listed(directory: Directory) -> list[ToolInfo]:
    """The tools that there are, by session and name."""
    directory.check_open()
    found: list[ToolInfo] = _ask(directory, "list_tools")
    return found


def _made(directory: Directory, info: ToolInfo, function: Any) -> Tool:
    tool_id = secrets.token_hex(8)
    if info.where == HERE:
        return Tool(info, tool_id, owner=directory.id)
    try:
        return Tool(info, tool_id, code=ray.cloudpickle.dumps(function))
    except Exception as error:
        raise EncodingError(
            f"tool {info.name!r} cannot travel: pickling it raised {type(error).__name__}: {error}; take "
            'where="here", which runs it in this process',
            path=info.name,
        ) from error


def _refuse_prefixes(names: Sequence[str] | Mapping[str, Any]) -> None:
    """A name such as "py.add" means the command "add" of the pool "py" where such a pool runs."""
    dotted = [name for name in names if "." in name]
    pools = ray_port.pool_names() if dotted else []
    for name in dotted:
        for pool in pools:
            if name.startswith(f"{pool}."):
                raise DuplicateTool(
                    f"{name!r} means a command of the pool {pool!r}, which runs; take another name", tool=name
                )


def _host(directory: Directory) -> ToolHost:
    with _lock:
        for key in [key for key, host in _hosts.items() if host.is_closed]:
            del _hosts[key]
        host = _hosts.get(directory.id)
        if host is None:
            host = _hosts[directory.id] = ToolHost(directory)
        return host


def _ask(directory: Directory, method: str, *args: Any) -> Any:
    return control.ask(directory.router, directory.config.name, TELL_SECONDS, method, *args)
