"""A process that has just started and does nothing."""

import statistics
import sys
import time
from pathlib import Path

from bench.table import ROUNDS, Row, Section
from tests.process import sidecar_process

# Where only what the product needs is installed, as in the image: packages of the tests are
# imported by others when they are there, and take some MiB.
_ALONE = Path(__file__).parents[1] / ".venv/product/bin/python"


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of ``/proc/<pid>/status``: ``VmRSS`` is now, ``VmHWM`` the most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def rows() -> list[Row]:
    python = str(_ALONE) if _ALONE.exists() else sys.executable
    ready, memory = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with sidecar_process({"REDIS_URL": "redis://127.0.0.1:1"}, python) as sidecar:
            ready.append(time.perf_counter() - started)
            memory.append(memory_bytes(sidecar.process.pid))
    return [
        Row("start to ready", f"{statistics.median(ready):.2f} s", "≤ 3 s"),
        Row("idle memory (RSS)", f"{statistics.median(memory) / 2**20:.0f} MiB", "≤ 100 MiB"),
    ]


SECTION = Section(
    "A process at rest",
    f"With default settings and without the packages of the tests, median of {ROUNDS} starts.",
    rows,
)
