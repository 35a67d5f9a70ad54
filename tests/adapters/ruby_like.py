"""A Runtime of a user's: the example that the contract holds runtimes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snakepit_ray.runtimes import BaseRuntime, PythonRuntime


class RubyLike(BaseRuntime):
    """Trims `data` of process_data on the way in; stamps generate_report on the way out, and allows 120 s."""

    name = "ruby-like"

    def script(self, config: Any) -> str:
        return PythonRuntime().script(config)

    def supported_commands(self) -> list[str]:
        return ["process_data", "generate_report"]

    def prepare_args(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**args, "data": args["data"].strip()} if command == "process_data" else args

    def process_response(self, command: str, result: Any) -> Any:
        return {**result, "processed_at": "now"} if command == "generate_report" else result

    def command_timeout(self, command: str, args: Mapping[str, Any]) -> float | None:
        return 120.0 if command == "generate_report" else None
