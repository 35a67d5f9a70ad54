"""A batch pipeline on a pool of external interpreters: the UCI digits that scikit-learn ships.

    ./dev demo                                                             # on this machine
    ray job submit --working-dir cluster -- python jobs/digits.py          # as a job of a cluster

Every interpreter loads and scales the data; two models are trained side by side in two sessions (each stays
in its interpreter) and predict the rows that they have not seen through a paced `pool.map`; stateless work is
spread over all interpreters; then a table on stdout and a Parquet file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from showing import join_ray, say

import snakepit_ray as snakepit

ADAPTER = Path(__file__).resolve().parent.parent / "adapters" / "digits.py"
SESSIONS = {"logistic": "digits-logistic", "forest": "digits-forest"}
CHUNK = 10

Columns = dict[str, list[Any]]


def main() -> None:
    args = arguments()
    say(f"Handwritten digits: two models on a pool of {args.workers} external Python interpreters")
    join_ray()
    with snakepit.start(
        name=args.name,
        size=args.workers,
        interpreter=sys.executable,
        adapter=f"{ADAPTER}:Digits",
        affinity="strict_queue",
        on_progress=show_start,
    ) as pool:
        run(pool, Path(args.output))


def run(pool: snakepit.Pool, output: Path) -> None:
    began = time.perf_counter()
    data = ray.get(pool.execute.remote("describe"))
    unseen = data["unseen"]
    shape = f"{data['rows']} images of {data['pixels']} pixels, {data['classes']} digits"
    say(f"data: {shape}; {len(unseen)} rows are held back")
    train(pool)
    chunks = [unseen[start : start + CHUNK] for start in range(0, len(unseen), CHUNK)]
    served: Counter[str] = Counter()
    columns: Columns = {"row": unseen}
    for model in SESSIONS:
        predict(pool, model, chunks, columns, served)
    add_features(pool, chunks, columns, served)
    seconds = time.perf_counter() - began
    report(pool, columns, served, seconds)
    write(output, columns)


def train(pool: snakepit.Pool) -> None:
    """Both models at once; a session's model is in one interpreter from now on."""
    trained = {
        model: pool.execute_in_session.remote(session, "train", {"algorithm": model})
        for model, session in SESSIONS.items()
    }
    for model, ref in trained.items():
        say(f"training {model}: {ray.get(ref)['rows']} rows in session {SESSIONS[model]!r}")


def predict(
    pool: snakepit.Pool, model: str, chunks: list[list[int]], columns: Columns, served: Counter[str]
) -> None:
    """The model's answer for each row, and the true digit."""
    requests = ({"rows": rows} for rows in chunks)
    replies = list(
        shown(
            f"predicting with {model}",
            len(chunks),
            pool.map("predict", requests, session=SESSIONS[model], info=True),
        )
    )
    served.update(reply.worker_id for reply in replies)
    columns["digit"] = joined(replies, "actual", int)
    columns[model] = joined(replies, "predicted", int)


def add_features(
    pool: snakepit.Pool, chunks: list[list[int]], columns: Columns, served: Counter[str]
) -> None:
    """Stateless work, spread over all interpreters."""
    requests = ({"rows": rows} for rows in chunks)
    replies = list(shown("computing features", len(chunks), pool.map("features", requests, info=True)))
    served.update(reply.worker_id for reply in replies)
    for name in ("ink", "x", "y"):
        columns[name] = joined(replies, name, float)


def joined(replies: list[snakepit.Reply], name: str, kind: Callable[[Any], Any]) -> list[Any]:
    """One column of all chunks."""
    return [kind(item) for reply in replies for item in reply.value[name]]


def accuracy(columns: Columns, model: str) -> float:
    pairs = list(zip(columns[model], columns["digit"], strict=True))
    return sum(predicted == actual for predicted, actual in pairs) / len(pairs)


def report(pool: snakepit.Pool, columns: Columns, served: Counter[str], seconds: float) -> None:
    say(f"\n{'model':<12}{'accuracy':>10}")
    for model in SESSIONS:
        say(f"{model:<12}{accuracy(columns, model):>10.2%}")
    say(f"\n{'worker':<16}{'pid':>8}{'answers':>9}")
    for worker in pool.workers():
        say(f"{worker.worker_id:<16}{worker.pid:>8}{served[worker.worker_id]:>9}")
    stats = pool.stats()
    say(f"\n{stats.requests} requests in {seconds:.1f} s, {stats.errors} errors")


def write(output: Path, columns: Columns) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), output)
    say(f"wrote {len(columns['row'])} rows to {output.resolve()}")


def show_start(pool: str, ready: int, failed: int, wanted: int) -> None:
    more = f", {failed} failed" if failed else ""
    progress(f"starting pool {pool!r}: {ready}/{wanted} workers{more}", ready + failed >= wanted)


def shown(what: str, total: int, replies: Iterator[Any]) -> Iterator[Any]:
    """The same replies; says how many have come."""
    for done, reply in enumerate(replies, 1):
        progress(f"{what}: {done}/{total}", done == total)
        yield reply


def progress(text: str, last: bool) -> None:
    """One line that is written over in a terminal; elsewhere only its last state."""
    if sys.stdout.isatty():
        print(f"\r{text}", end="\n" if last else "", flush=True)
    elif last:
        say(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Learn handwritten digits on a pool of external interpreters."
    )
    parser.add_argument("--workers", type=int, default=4, help="interpreters in the pool (default: 4)")
    parser.add_argument("--name", default="digits", help="of the pool (default: digits)")
    parser.add_argument("--output", default="output/digits.parquet", help="the Parquet file that is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
