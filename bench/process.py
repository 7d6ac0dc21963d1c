"""What ``/proc`` tells of a process, and where the sidecar is installed alone."""

import sys
from pathlib import Path

# Where only what the product needs is installed, as in the image: packages of the tests are
# imported by others when they are there, and take some MiB.
_ALONE = Path(__file__).parents[1] / ".venv/product/bin/python"
PYTHON = str(_ALONE) if _ALONE.exists() else sys.executable


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of ``/proc/<pid>/status``: ``VmRSS`` is now, ``VmHWM`` the most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
