"""The showcase commands that yield. files.py and training.py hold what they do to real data.

- A pause ends early when the request is cancelled.
- What is opened is closed however the stream ends.
- A stream over a file never holds more of it than one chunk.
"""

from __future__ import annotations

import random
import time
from typing import Optional

from snakepit_bridge.adapter.commands import command
from snakepit_bridge.adapter.context import SessionContext


def pause(ctx: SessionContext, milliseconds: float) -> None:
    """Sleeps; a cancellation ends it, and the command."""
    if milliseconds > 0:
        ctx.wait(milliseconds / 1000)
    ctx.raise_if_cancelled()


class StreamCommands:
    """The streaming half of the showcase adapter."""

    # ---- counting ----------------------------------------------------------------------------------------

    @command
    def stream_data(self, ctx: SessionContext, count: int = 5, delay: float = 0.0):
        """`count` chunks, `delay` seconds apart."""
        for i in range(count):
            if i and delay:
                pause(ctx, delay * 1000)
            yield {"index": i, "total": count, "timestamp": time.time(), "is_final": i == count - 1}

    @command
    def ping_stream(self, ctx: SessionContext, count: int = 10, delay_ms: float = 0):
        """Says pong `count` times."""
        for i in range(count):
            yield {"message": f"pong {i + 1}", "index": i, "timestamp": time.time()}
            pause(ctx, delay_ms)

    @command
    def stream_progress(self, ctx: SessionContext, steps: int = 10, delay_ms: float = 100):
        """Steps of some work, with their share of the whole in percent; also as reports of progress."""
        for step in range(1, steps + 1):
            pause(ctx, delay_ms)
            message = f"step {step} of {steps}"
            ctx.progress(step, steps, message)
            share = round(100 * step / steps, 1)
            last = step == steps
            yield {"step": step, "total": steps, "progress": share, "message": message, "is_final": last}

    @command
    def stream_fibonacci(self, ctx: SessionContext, count: int = 20, delay_ms: float = 0):
        """The first Fibonacci numbers."""
        value, following = 0, 1
        for index in range(1, count + 1):
            yield {"index": index, "value": value}
            value, following = following, value + following
            pause(ctx, delay_ms)

    @command
    def generate_dataset(self, ctx: SessionContext, rows: int = 1000, chunk_size: int = 100, seed: int = 0):
        """Rows of ten normal numbers, a chunk at a time: how many so far, and the first of the chunk."""
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        source = random.Random(seed)
        for first in range(0, rows, chunk_size):
            ctx.raise_if_cancelled()
            count = min(chunk_size, rows - first)
            made = [[source.gauss(0.0, 1.0) for _ in range(10)] for _ in range(count)]
            yield {"rows_in_chunk": count, "total_rows": first + count, "data_sample": made[0]}

    @command
    def infinite_stream(self, ctx: SessionContext, delay_ms: float = 500):
        """Goes on until nobody takes any more."""
        index = 0
        while True:
            yield {"message": f"message {index}", "index": index, "timestamp": time.time()}
            index += 1
            pause(ctx, delay_ms)

    # ---- work --------------------------------------------------------------------------------------------

    @command
    def batch_process(self, ctx: SessionContext, items: list, delay_ms: float = 0):
        """Each item and its result, with the share of the whole in percent."""
        for index, item in enumerate(items):
            pause(ctx, delay_ms)
            ctx.progress(index + 1, len(items))
            result = item.upper() if isinstance(item, str) else item
            share = round(100 * (index + 1) / len(items), 1)
            yield {"progress": share, "index": index, "item": item, "result": result}

    @command
    def batch_inference(
        self,
        ctx: SessionContext,
        batch_items: Optional[list] = None,
        images: Optional[list] = None,
        model_path: Optional[str] = None,
    ):
        """A prediction for each item: numbers, a name, the path of a file, an image; by a model that
        distributed_training wrote, or by a rule of thumb.
        """
        from snakepit_bridge.adapters.showcase.training import Model, predict

        model = Model.load(model_path) if model_path else None
        items = [*(batch_items or ()), *(images or ())]
        for index, item in enumerate(items):
            ctx.raise_if_cancelled()
            label, confidence = predict(item, model)
            name = item if isinstance(item, (str, int, float)) else f"item {index}"
            image = index >= len(batch_items or ())
            yield {"item": name, "image": name if image else None, "prediction": label,
                   "confidence": round(confidence, 4)}  # fmt: skip
        yield {"is_final": True, "total_processed": len(items)}

    @command
    def process_dataset(self, ctx: SessionContext, file_path: str, chunk_size: int = 1000):
        """Reads a CSV, JSON-lines or text file record by record."""
        from snakepit_bridge.adapters.showcase.files import chunks_of, count_records

        total, done = count_records(file_path), 0
        for records in chunks_of(file_path, chunk_size):
            ctx.raise_if_cancelled()
            done += len(records)
            ctx.progress(done, total, "records")
            yield {"progress": _percent(done, total), "records_processed": done, "total_records": total}
        yield {"is_final": True, "total_processed": done}

    @command
    def process_large_dataset(self, ctx: SessionContext, file_path: str, chunk_size: int = 10_000):
        """The same for large files; the end has mean, smallest and largest of every numeric column."""
        from snakepit_bridge.adapters.showcase.files import Statistics, chunks_of, count_records

        total, done, statistics = count_records(file_path), 0, Statistics()
        for records in chunks_of(file_path, chunk_size):
            ctx.raise_if_cancelled()
            for record in records:
                statistics.add(record)
            done += len(records)
            ctx.progress(done, total, "rows")
            yield {"progress_percent": _percent(done, total), "processed_rows": done, "total_rows": total}
        yield {"is_final": True, "final_stats": statistics.result()}

    @command
    def tail_and_analyze(
        self, ctx: SessionContext, file_path: str, follow: bool = True, poll_ms: float = 100
    ):
        """Each line of a log with its level and what was counted so far; with `follow` it waits for more,
        also when the file is cut off or replaced.
        """
        from snakepit_bridge.adapters.showcase.files import LogCounts, tail

        counts = LogCounts()
        for line in tail(file_path, follow, lambda: pause(ctx, max(1.0, poll_ms))):
            yield counts.take(line)

    @command
    def distributed_training(
        self,
        ctx: SessionContext,
        model_config: dict = {},  # noqa: B006 - never changed
        dataset_path: Optional[str] = None,
        epochs: int = 3,
    ):
        """Logistic regression on a CSV file (last column: the label), or on made up data; the model is
        written to model_config["output_path"] or a temporary file.
        """
        from snakepit_bridge.adapters.showcase import training

        seed = int(model_config.get("seed", 0))
        rows = training.load_rows(dataset_path) if dataset_path else training.synthetic_rows(400, seed)
        features, labels = rows
        split = max(1, int(0.8 * len(features)))
        model = training.Model([0.0] * len(features[0]))
        for epoch in range(1, epochs + 1):
            ctx.raise_if_cancelled()
            rate = float(model_config.get("learning_rate", 0.1))
            loss = model.learn(features[:split], labels[:split], rate)
            accuracy = model.accuracy(features[split:] or features, labels[split:] or labels)
            ctx.progress(epoch, epochs, f"loss {loss:.4f}")
            yield {"epoch": epoch, "train_loss": loss, "val_acc": accuracy}
        yield {"is_final": True, "final_model_path": model.save(model_config.get("output_path"))}


def _percent(done: int, total: int) -> float:
    return round(100 * done / total, 1) if total else 100.0
