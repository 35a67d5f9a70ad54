"""The showcase commands that need nothing but Python. text.py and arrays.py hold what the others compute,
streams.py has those that yield.

- numpy is imported by the commands that make arrays, never at the start.
- Counters belong to a session and to this interpreter.
"""

from __future__ import annotations

import os
import sys
import time

from snakepit_bridge.adapter.commands import command
from snakepit_bridge.adapter.context import SessionContext
from snakepit_bridge.adapters.showcase.streams import StreamCommands
from snakepit_bridge.adapters.threaded import ThreadSafeAdapter

VERSION = "2.0.0"
_STARTED = time.monotonic()
_OPERATIONS = {"upper": str.upper, "lower": str.lower, "reverse": lambda text: text[::-1], "length": len}
_ERRORS = {"value": ValueError, "runtime": RuntimeError, "generic": Exception}


class ShowcaseAdapter(StreamCommands, ThreadSafeAdapter):
    """Commands to try a pool with."""

    def __init__(self) -> None:
        self._counters: dict = {}

    # ---- basics ------------------------------------------------------------------------------------------

    @command(idempotent=True)
    def ping(self) -> dict:
        """Says pong."""
        return {"status": "pong", "timestamp": time.time()}

    @command(idempotent=True)
    def echo(self, /, **kw) -> dict:
        """Gives back what it got."""
        return {"echoed": kw}

    @command(idempotent=True)
    def add(self, a: float, b: float) -> dict:
        """a + b."""
        return {"result": a + b}

    @command(idempotent=True)
    def compute(self, operation: str, a: float, b: float = 0) -> dict:
        """Arithmetic: add, subtract, multiply, divide, power, sqrt."""
        from snakepit_bridge.adapters.showcase.text import compute

        return {"operation": operation, "result": compute(operation, a, b)}

    @command(idempotent=True)
    def info(self) -> dict:
        """What runs here."""
        import platform

        return {
            "language": "python",
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "pid": os.getpid(),
            "adapter": type(self).__name__,
        }

    @command(idempotent=True)
    def adapter_info(self) -> dict:
        """Name, version and abilities of this adapter."""
        capabilities = [
            "basic",
            "sessions",
            "text",
            "binary",
            "embeddings",
            "tensors",
            "concurrency",
            "streams",
        ]
        return {"adapter_name": type(self).__name__, "version": VERSION, "capabilities": capabilities}

    @command(idempotent=True)
    def get_stats(self, ctx: SessionContext) -> dict:
        """Memory and processor use of this interpreter."""
        used = time.process_time() / max(time.monotonic() - _STARTED, 1e-9)
        system = {
            "timestamp": time.time(),
            "pid": os.getpid(),
            "memory_usage_mb": _memory_mb(),
            "cpu_percent": round(100 * used, 2),
        }
        adapter = {"name": type(self).__name__, "version": VERSION, "session_id": ctx.session_id}
        return {"adapter": adapter, "system": system, "success": True}

    @command
    def error_demo(self, error_type: str = "value") -> dict:
        """Raises: value, runtime or generic."""
        kind = _ERRORS.get(error_type)
        if kind is None:
            raise ValueError(f"unknown error_type {error_type!r}: there are {', '.join(sorted(_ERRORS))}")
        raise kind(f"this is a {error_type} error, asked for by error_demo")

    @command(idempotent=True)
    def process_text(self, text: str, operation: str = "upper") -> dict:
        """upper, lower, reverse or length of a text."""
        function = _OPERATIONS.get(operation)
        if function is None:
            words = f"unknown operation {operation!r}"
            return {"success": False, "error": words, "available_operations": sorted(_OPERATIONS)}
        return {"original": text, "operation": operation, "result": function(text), "success": True}

    # ---- work --------------------------------------------------------------------------------------------

    @command(idempotent=True)
    def sleep_task(self, ctx: SessionContext, duration_ms: float = 100, task_number: int = 0) -> dict:
        """Sleeps; a cancellation ends it early."""
        ctx.wait(duration_ms / 1000)
        ctx.raise_if_cancelled()
        return {"task_number": task_number, "slept_ms": duration_ms}

    @command(idempotent=True)
    def cpu_bound_task(self, ctx: SessionContext, task_id: object = 0, duration_ms: float = 100) -> dict:
        """Computes for about so long."""
        started = time.perf_counter()
        end, total, first = started + duration_ms / 1000, 0, 0
        while time.perf_counter() < end:
            for number in range(first, first + 1000):
                total = (total * 31 + number * number) % 1_000_000
            first += 1000
            ctx.raise_if_cancelled()
        took = (time.perf_counter() - started) * 1000
        return {"task_id": task_id, "result": total, "actual_duration_ms": round(took, 3)}

    @command(idempotent=True)
    def lightweight_task(self, iteration: int = 0) -> dict:
        """Twice the iteration."""
        return {"iteration": iteration, "result": iteration * 2}

    @command(idempotent=True)
    def concurrent_demo(self, task_count: int = 5) -> dict:
        """Runs tasks in threads of its own."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(max(task_count, 1), 16)) as threads:
            results = list(
                threads.map(lambda number: {"task": number, "result": number * number}, range(task_count))
            )
        return {"task_count": task_count, "completed": len(results), "results": results}

    # ---- sessions ----------------------------------------------------------------------------------------

    @command
    def set_counter(self, ctx: SessionContext, value: int = 0) -> dict:
        """Sets this session's counter."""
        with self.acquire_lock():
            self._counters[ctx.session_id] = value
        return {"value": value}

    @command(idempotent=True)
    def get_counter(self, ctx: SessionContext) -> dict:
        """This session's counter; 0 at first."""
        return {"value": self._counters.get(ctx.session_id, 0)}

    @command
    def increment_counter(self, ctx: SessionContext, by: int = 1) -> dict:
        """Adds to this session's counter."""
        with self.acquire_lock():
            value = self._counters[ctx.session_id] = self._counters.get(ctx.session_id, 0) + by
        return {"value": value}

    @command(idempotent=True)
    def get_variable(self, ctx: SessionContext, name: str) -> dict:
        """A variable of this session."""
        value, version = ctx.get_versioned(name)
        return {"name": name, "value": value, "version": version}

    @command(idempotent=True)
    def generate_text(self, ctx: SessionContext, prompt: str) -> dict:
        """Goes on from a prompt, as the session's variables temperature and max_tokens say."""
        from snakepit_bridge.adapters.showcase.text import go_on_from

        given, _ = ctx.get_many(["temperature", "max_tokens"]) if ctx.session_id else ({}, [])
        used = {"temperature": 0.7, "max_tokens": 20, **given}
        return {"prompt": prompt, "text": go_on_from(prompt, **used), **used}

    @command(idempotent=True)
    def get_worker_info(self, ctx: SessionContext, call_number: object = None) -> dict:
        """Which interpreter serves, and whom."""
        return {
            "worker_pid": os.getpid(),
            "worker_id": ctx.worker_id,
            "session_id": ctx.session_id,
            "call_number": call_number,
            "python": sys.version.split()[0],
        }

    # ---- arrays, text, bytes -----------------------------------------------------------------------------

    @command(idempotent=True)
    def create_tensor(self, shape: list, name: str = "tensor", fill_value: float = 0.0) -> dict:
        """An array of float64, or nested lists where numpy is missing."""
        from snakepit_bridge.adapters.showcase.arrays import filled

        return {"name": name, **filled(shape, fill_value)}

    @command(idempotent=True)
    def create_embedding(self, text: str, dimensions: int = 128) -> dict:
        """A unit vector made from the words of a text."""
        from snakepit_bridge.adapters.showcase.text import embed

        vector = embed(text, dimensions)
        norm = sum(x * x for x in vector) ** 0.5
        return {"text": text, "dimensions": dimensions, "embedding": vector, "norm": norm}

    @command(idempotent=True)
    def generate_embeddings(self, texts: list, model: str = "hashing", dimensions: int = 128) -> dict:
        """An embedding of each text, as one array where numpy is there."""
        from snakepit_bridge.adapters.showcase.arrays import matrix
        from snakepit_bridge.adapters.showcase.text import embed

        rows = [embed(text, dimensions) for text in texts]
        return {
            "model": model,
            "dimensions": dimensions,
            "count": len(rows),
            "embeddings": matrix(rows, dimensions),
        }

    @command(idempotent=True)
    def process_images(self, images: list, return_tensors: bool = False) -> dict:
        """Shape, mean and range of each image; with return_tensors also the images scaled to 0..1."""
        from snakepit_bridge.adapters.showcase.arrays import process_images

        return process_images(images, return_tensors)

    @command(idempotent=True)
    def ml_analyze_text(self, text: str) -> dict:
        """Counts, frequent words and the sentiment of a text by a small lexicon."""
        from snakepit_bridge.adapters.showcase.text import analyze

        return analyze(text)

    @command(idempotent=True)
    def process_binary(self, data: bytes, operation: str = "checksum") -> dict:
        """checksum (SHA-256), crc32, length, reverse or histogram of bytes."""
        from snakepit_bridge.adapters.showcase.text import process_binary

        return {"operation": operation, "size": len(data), "result": process_binary(bytes(data), operation)}


def _memory_mb() -> float:
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:  # no /proc: the peak is the next best
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 2)
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)
