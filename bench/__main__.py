"""``python -m bench``: measure, print a table, rewrite ``bench/RESULTS.md``.

Figures of one machine say little; compare them within one run.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx2
import msgspec
from google.protobuf.message import Message

from sidecar import __version__
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.rules import RuleSignal, load_rules
from sidecar.redaction.walk_otlp import redact_otlp
from sidecar.settings import default_rules_dir
from tests.captured import captures
from tests.process import SidecarProcess, sidecar_process

ROUNDS = 7
SIGNALS: tuple[RuleSignal, ...] = ("traces", "metrics", "logs")


class Row(msgspec.Struct):
    """One figure."""

    what: str
    figure: str
    goal: str = ""


def main() -> int:
    rows = [*process_figures(), *redaction_figures(), *request_figures()]
    text = report(rows)
    (Path(__file__).parent / "RESULTS.md").write_text(text)
    print(text)
    return 0


def process_figures() -> list[Row]:
    """Measure a process that has just started and does nothing, with default settings."""
    ready, memory = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with sidecar_process({"REDIS_URL": "redis://127.0.0.1:1"}) as sidecar:
            ready.append(time.perf_counter() - started)
            memory.append(resident_bytes(sidecar))
    return [
        Row("start to ready", f"{statistics.median(ready):.2f} s", "≤ 3 s"),
        Row("idle memory (RSS)", f"{statistics.median(memory) / 2**20:.0f} MiB", "≤ 100 MiB"),
    ]


def resident_bytes(sidecar: SidecarProcess) -> int:
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def redaction_figures() -> list[Row]:
    """Measure the redaction of the captured requests, decoding and encoding included."""
    engine = Engine(load_rules(default_rules_dir()))
    rows = []
    for signal in SIGNALS:
        bodies = [(otlp.request, body) for otlp, body in captures() if otlp.signal == signal]
        rate = median_rate(partial(redact_all, engine.redactor(signal), bodies))
        rows.append(Row(f"redaction of captured {signal}, one core", f"{rate:,.0f} records/s"))
    return rows


def redact_all(redactor: Redactor, bodies: list[tuple[type[Message], bytes]]) -> int:
    records = 0
    for kind, body in bodies:
        request = kind.FromString(body)
        records += redact_otlp(request, redactor).kept
        request.SerializeToString()
    return records


def median_rate(once: Callable[[], int]) -> float:
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        count = once()
        rates.append(count / (time.perf_counter() - started))
    return statistics.median(rates)


def request_figures() -> list[Row]:
    """Measure requests one after the other on one connection, the client on the same machine."""
    rows = []
    event = {"event": "chat", "payload": {"user_id": "u", "latency_ms": 12, "model": "m"}}
    body = next(b for otlp, b in captures() if otlp.signal == "traces" and len(b) > 100_000)
    with (
        sidecar_process({"SIDECAR_EXPORTERS": "blackhole"}) as sidecar,
        httpx2.Client(trust_env=False) as client,
    ):
        client.post(f"{sidecar.url}/cache/set", json={"key": "k", "data": "v"})

        def log() -> int:
            for _ in range(100):
                client.post(f"{sidecar.url}/log", json=event).raise_for_status()
            return 100

        def hit() -> int:
            for _ in range(100):
                client.get(f"{sidecar.url}/cache/get?key=k").raise_for_status()
            return 100

        def traces() -> int:
            headers = {"content-type": "application/x-protobuf"}
            url = f"{sidecar.otlp_http_url}/v1/traces"
            client.post(url, content=body, headers=headers).raise_for_status()
            return 512

        rows.append(Row("POST /log, one connection", f"{median_rate(log):,.0f} requests/s"))
        rows.append(
            Row("GET /cache/get, hit, one connection", f"{median_rate(hit):,.0f} requests/s")
        )
        rows.append(Row("captured traces over OTLP/HTTP", f"{median_rate(traces):,.0f} spans/s"))
        rows.append(Row("memory after that (RSS)", f"{resident_bytes(sidecar) / 2**20:.0f} MiB"))
    return rows


def report(rows: list[Row]) -> str:
    lines = [
        "# Results",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, sidecar {__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()}), "
        f"median of {ROUNDS} rounds. The first figures, to be improved.",
        "",
        "| what | figure | must be |",
        "|---|---|---|",
        *(f"| {row.what} | {row.figure} | {row.goal} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
