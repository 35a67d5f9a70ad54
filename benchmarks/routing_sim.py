"""Prints what the pool's queues cost against one ideal central FIFO, cell by cell, as a markdown table.

    python benchmarks/routing_sim.py [--quick] [--jobs N] [--json PATH]

Times are milliseconds of waiting; messages are those that the router handles in a second. A cell is "ok"
when the mean wait keeps to 1.3 x ideal + 12 ms; "capped" says that the router spaced the reports to stay
under 1,000/s.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.core.scenarios import Result, Scenario  # noqa: E402  (found by the line above)
from tests.core.simulation import simulate  # noqa: E402

SIZES = (4, 16, 256, 1000)
LOADS = (0.5, 0.8, 0.95)
HEADER = (
    "| workers x capacity | callers | service | load | ideal | ours | bound | | p99 | messages/s | peak "
    "| delegated | idle p99 |"
)


def sized(scenario: dict[str, object]) -> Scenario:
    """With requests enough for 4 simulated seconds, and 20,000 at least."""
    draft = Scenario(**scenario)  # type: ignore[arg-type]
    return Scenario(**scenario, requests=max(20_000, int(4 * draft.rate)))  # type: ignore[arg-type]


def grid(quick: bool) -> Iterator[Scenario]:
    for workers in SIZES[:2] if quick else SIZES:
        for capacity in (1, 8):
            for service in ("exponential", "heavy"):
                base = {"workers": workers, "capacity": capacity, "service": service}
                for load in LOADS:
                    for callers in (1, 64):
                        yield sized({**base, "load": load, "callers": callers})
                yield sized({**base, "load": 0.8, "callers": 8, "churn": True})


def row(result: Result) -> dict[str, object]:
    return {
        **asdict(result.scenario),
        "ideal_ms": 1e3 * result.ideal,
        "mean_ms": 1e3 * result.mean,
        "bound_ms": 1e3 * result.bound,
        "p99_ms": 1e3 * result.p99,
        "messages_s": result.messages,
        "peak_s": result.peak,
        "kinds_s": result.kinds,
        "capped": result.capped,
        "delegated": result.delegated,
        "idle_p99_ms": 1e3 * result.idle_p99,
        "ok": result.mean <= result.bound,
    }


def measure(scenario: Scenario) -> dict[str, object]:
    return row(simulate(scenario))


def line(cell: dict[str, object]) -> str:
    verdict = "ok" if cell["ok"] else "capped" if cell["capped"] else "MISS"
    churn = ", churn" if cell["churn"] else ""
    return (
        "| {workers} x {capacity} | {callers} | {service}{more} | {load} | {ideal_ms:.1f} | {mean_ms:.1f} "
        "| {bound_ms:.1f} | {verdict} | {p99_ms:.0f} | {messages_s:.0f} | {peak_s:.0f} | {delegated:.2f} "
        "| {idle_p99_ms:.1f} |"
    ).format(**cell, more=churn, verdict=verdict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 and 16 workers only")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, help="write the cells there")
    options = parser.parse_args()
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    cells = []
    with Pool(options.jobs, maxtasksperchild=4) as pool:
        for cell in pool.imap(measure, grid(options.quick)):
            cells.append(cell)
            print(line(cell), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(cells, indent=1))


if __name__ == "__main__":
    main()
