"""The time to an answer of GET /livez while large bodies are redacted."""

from bench.process import memory_bytes
from bench.table import Row, Section, progress
from tests.flood import (
    BODY_BYTES,
    JSON,
    NDJSON,
    PROTOBUF,
    answer_times,
    events,
    flood,
    quantile,
    traces,
)
from tests.process import sidecar_process

SECONDS = 30
GOAL = "p99 ≤ 50 ms"


def rows() -> list[Row]:
    lines = events()
    rows = []
    for what, path, media_type, body in (
        ("OTLP/HTTP traces", "/v1/traces", PROTOBUF, traces()),
        ("NDJSON to /log/batch", "/log/batch", NDJSON, lines),
        ("a JSON array to /log/batch", "/log/batch", JSON, b"[%b]" % lines.replace(b"\n", b",")),
    ):
        progress(f"GET /livez beside {what}")
        with sidecar_process({"SIDECAR_EXPORTERS": "blackhole"}) as sidecar:
            with flood(sidecar.url + path, body, media_type):
                times = answer_times(f"{sidecar.url}/livez", SECONDS)
            memory = memory_bytes(sidecar.process.pid, "VmHWM")
        p50, p99, most = (1000 * quantile(times, share) for share in (0.5, 0.99, 1.0))
        figure = f"p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms"
        rows.append(Row(f"GET /livez beside {what}", figure, GOAL))
        rows.append(Row(f"peak memory (RSS), {what}", f"{memory / 2**20:.0f} MiB"))
    return rows


SECTION = Section(
    "Under pressure",
    f"Bodies of {BODY_BYTES // 2**20} MiB with five findings in each KiB, one after the other, and "
    f"beside them GET /livez every 10 ms on a connection of its own, for {SECONDS} s.",
    rows,
)
