"""Requests to a running sidecar."""

import httpx2

from bench.process import memory_bytes
from bench.table import ROUNDS, Row, Section, median_rate, progress
from tests.captured import captures
from tests.process import SidecarProcess, sidecar_process

_EVENT = {"event": "chat", "payload": {"user_id": "u", "latency_ms": 12, "model": "m"}}


def rows() -> list[Row]:
    with (
        sidecar_process({"SIDECAR_EXPORTERS": "blackhole"}) as sidecar,
        httpx2.Client(trust_env=False) as client,
    ):
        rows = _request_rows(sidecar, client)
        memory = memory_bytes(sidecar.process.pid)
    return [*rows, Row("memory after that (RSS)", f"{memory / 2**20:.0f} MiB")]


def _request_rows(sidecar: SidecarProcess, client: httpx2.Client) -> list[Row]:
    body = next(b for otlp, b in captures() if otlp.signal == "traces" and len(b) > 100_000)
    client.post(f"{sidecar.url}/cache/set", json={"key": "k", "data": "v"})

    def log() -> int:
        for _ in range(100):
            client.post(f"{sidecar.url}/log", json=_EVENT).raise_for_status()
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

    rows = []
    for what, once, unit in (
        ("POST /log, one connection", log, "requests/s"),
        ("GET /cache/get, hit, one connection", hit, "requests/s"),
        ("captured traces over OTLP/HTTP", traces, "spans/s"),
    ):
        progress(what)
        rows.append(Row(what, f"{median_rate(once):,.0f} {unit}"))
    return rows


SECTION = Section(
    "Requests",
    "One after the other on one connection, the client on the same machine, "
    f"median of {ROUNDS} rounds.",
    rows,
)
