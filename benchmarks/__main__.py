"""`./dev bench NAME`: runs one benchmark, or all, one after the other."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "wire_shape",
    "frames",
    "unary",
    "lane",
    "context_state",
    "batches",
    "growth",
    "streams",
    "startup",
    "starts",
    "routing_sim",
    "recycling",
    "recovery",
    "soak",
    "tensors",
    "memory",
    "state",
)

WITH_ARGUMENTS = ("versions",)  # not among all


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if wanted not in (*NAMES, *WITH_ARGUMENTS, "all"):
        print(f"benchmarks: {', '.join((*NAMES, *WITH_ARGUMENTS))}, or all; got {wanted!r}", file=sys.stderr)
        return 2
    for name in NAMES if wanted == "all" else (wanted,):
        print(f"## {name}\n", flush=True)
        status = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[2:]], check=False
        ).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
