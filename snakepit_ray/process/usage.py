"""What a process and its descendants use.

- What cannot be read is None, never 0.
"""

from __future__ import annotations

import psutil

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # v2, v1


def machine_memory() -> int:
    """Bytes of memory that this machine has, or this container may use (cgroups(7))."""
    total = int(psutil.virtual_memory().total)
    for path in CGROUP_LIMITS:
        try:
            with open(path) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def cpu_seconds(pid: int) -> float | None:
    """Processor time of one process so far, user and system."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def tree_rss(pid: int) -> int | None:
    """Resident bytes of a process and all its descendants; None when the process itself cannot be read."""
    try:
        process = psutil.Process(pid)
        total = int(process.memory_info().rss)
        children = process.children(recursive=True)
    except psutil.Error:
        return None
    return total + sum(_rss(child) for child in children)


def mapped(pid: int, name: str) -> int:
    """Resident bytes of the memory with that name (memfd_create(2)) which a process has mapped; 0 when it
    cannot be read (proc(5), smaps)."""
    total, ours = 0, False
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024 * ours
                elif "-" in line.split(" ", 1)[0]:
                    ours = f"/memfd:{name} " in line
    except OSError:
        return 0
    return total


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended between the two looks
        return 0
