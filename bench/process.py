"""A process that has just started and does nothing."""

import statistics
import time
from pathlib import Path

from bench.table import ROUNDS, Row, Section
from tests.process import sidecar_process


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of ``/proc/<pid>/status``: ``VmRSS`` is now, ``VmHWM`` the most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def rows() -> list[Row]:
    ready, memory = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with sidecar_process({"REDIS_URL": "redis://127.0.0.1:1"}) as sidecar:
            ready.append(time.perf_counter() - started)
            memory.append(memory_bytes(sidecar.process.pid))
    return [
        Row("start to ready", f"{statistics.median(ready):.2f} s", "≤ 3 s"),
        Row("idle memory (RSS)", f"{statistics.median(memory) / 2**20:.0f} MiB", "≤ 100 MiB"),
    ]


SECTION = Section("A process at rest", f"With default settings, median of {ROUNDS} starts.", rows)
