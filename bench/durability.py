"""What the queue promises, at length: killed, stopped, cut off, and for an hour.

These take minutes to an hour each, so they are measured when they are named only.
"""

import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.process import memory_bytes
from bench.table import Row, Section, progress
from sidecar.redaction.walk_otlp import count_records
from tests.captured import captures
from tests.collector import Collector, open_collector, unused_port
from tests.durability import Survival, survive
from tests.load import metric
from tests.process import SidecarProcess, sidecar_process

_KILLS, _STOPS = 200, 50
_CLIENTS, _THROUGHPUT_SECONDS, _THROUGHPUT_ROUNDS = 32, 8.0, 3
_OUTAGE_SECONDS, _OUTAGE_SPANS = 600.0, 2000
_SOAK_SECONDS, _FULL_LOAD_SECONDS = 3600.0, 20.0
_MIB = 2**20


def _survived(rounds: int, how: str, environ: dict[str, str]) -> Survival:
    async def run() -> Survival:
        async with open_collector() as collector:
            with tempfile.TemporaryDirectory() as directory:
                return await survive(collector, Path(directory), rounds, how, environ)  # type: ignore[arg-type]

    return trio.run(run)


def _kill_rows() -> list[Row]:
    progress(f"{_KILLS} times kill -9 under load")
    survival = _survived(_KILLS, "kill", {})
    return [
        Row("rounds of kill -9, restart", f"{_KILLS}", "200"),
        Row("records acknowledged", f"{survival.acknowledged:,}"),
        Row("of these never exported", f"{survival.missing}", "0"),
        Row("exported more than once", f"{survival.repeated:,}"),
        Row("of these not in the batch under way", f"{survival.not_under_way}", "0"),
    ]


def _stop_rows() -> list[Row]:
    progress(f"{_STOPS} times SIGTERM under load")
    survival = _survived(_STOPS, "stop", {})
    return [
        Row("stops by SIGTERM, exit code 0", f"{survival.exit_codes.count(0)}", f"{_STOPS}"),
        Row("records acknowledged", f"{survival.acknowledged:,}"),
        Row("of these never exported", f"{survival.missing}", "0"),
        Row("exported more than once", f"{survival.repeated:,}"),
    ]


def _batch() -> bytes:
    """Return 512 captured spans as a request of 284 kB."""
    return next(body for otlp, body in captures() if otlp.signal == "traces" and len(body) > 10**5)


class _Client:
    """Posts batches over one connection that stays open."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self._at = urlsplit(sidecar.otlp_http_url).netloc
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> int:
        """Post a batch; return the status."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._at, timeout=60)
        try:
            self._connection.request(
                "POST", "/v1/traces", body, {"content-type": "application/x-protobuf"}
            )
            answer = self._connection.getresponse()
            answer.read()
        except OSError:
            self._connection = None
            raise
        return answer.status


def _throughput_rows() -> list[Row]:
    """Compare queues on disk with the one in memory, in turn."""
    body = _batch()
    spans = {"memory": 0.0, "full": 0.0, "normal": 0.0}
    for _ in range(_THROUGHPUT_ROUNDS):
        for kind in spans:
            progress(f"throughput, queue: {kind}")
            with tempfile.TemporaryDirectory() as directory:
                environ = {"SIDECAR_EXPORTERS": "blackhole"}
                if kind != "memory":
                    environ |= {"SIDECAR_QUEUE_DIR": directory, "SIDECAR_QUEUE_SYNC": kind}
                with sidecar_process(environ) as sidecar:
                    rate = 512 * _rate(sidecar, body, _CLIENTS, _THROUGHPUT_SECONDS)
            spans[kind] = max(spans[kind], rate)
    return [
        Row(f"{_CLIENTS} clients, queue in memory", f"{spans['memory']:,.0f} spans/s"),
        *(
            Row(
                f"{_CLIENTS} clients, queue on disk, {kind} sync",
                f"{spans[kind]:,.0f} spans/s: {spans[kind] / spans['memory']:.0%}",
                "≥ 60 %" if kind == "full" else "",
            )
            for kind in ("full", "normal")
        ),
    ]


def _rate(sidecar: SidecarProcess, body: bytes, clients: int, seconds: float) -> float:
    """Post batches from many clients; return how many a second were acknowledged."""
    deadline = time.monotonic() + seconds
    counts = [0] * clients

    def run(index: int) -> None:
        client = _Client(sidecar)
        while time.monotonic() < deadline:
            counts[index] += client.post(body) == 200

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started)


class _Steady:
    """Posts batches at a steady rate while it runs.

    Attributes:
        accepted: batches that were acknowledged.
        errors: of any other answer, or none.
    """

    def __init__(self, sidecar: SidecarProcess, body: bytes, a_second: float) -> None:
        self.accepted = self.errors = 0
        self._client = _Client(sidecar)
        self._body = body
        self._every = 1 / a_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += self._every
            try:
                status = self._client.post(self._body)
            except OSError:
                status = 0
            if status == 200:
                self.accepted += 1
            else:
                self.errors += 1


def _outage_rows() -> list[Row]:
    return trio.run(_outage)


async def _outage() -> list[Row]:
    body = _batch()
    port = await unused_port()
    with tempfile.TemporaryDirectory() as directory:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "SIDECAR_QUEUE_DIR": directory,
        }
        with sidecar_process(environ) as sidecar:
            idle = memory_bytes(sidecar.process.pid)
            steady = _Steady(sidecar, body, _OUTAGE_SPANS / 512)
            most = 0

            def down() -> None:
                nonlocal most
                ends = time.monotonic() + _OUTAGE_SECONDS
                while (left := ends - time.monotonic()) > 0:
                    progress(f"collector down, {left:.0f} s left")
                    most = max(most, memory_bytes(sidecar.process.pid))
                    time.sleep(1)

            steady.start()
            await trio.to_thread.run_sync(down)
            waiting = metric(sidecar, "queue_records")
            size = sum(file.stat().st_size for file in Path(directory).iterdir())  # noqa: ASYNC240
            async with open_collector(port) as collector:
                # Until the back-off is over.
                await collector.received(1, seconds=60)
                started = time.monotonic()
                # What has come since the last export may wait.
                spans = await _collect(collector, lambda: _waiting(sidecar) <= 2 * 512)
                seconds = time.monotonic() - started
                await trio.to_thread.run_sync(steady.stop)
                spans += await _collect(collector, lambda: not _waiting(sidecar))
    rate = waiting / seconds
    return [
        Row("collector down", f"{_OUTAGE_SECONDS:.0f} s at {_OUTAGE_SPANS:,} spans/s"),
        Row("spans acknowledged", f"{512 * steady.accepted:,}"),
        Row("answers other than 200", f"{steady.errors}", "0"),
        Row("spans lost", f"{512 * steady.accepted - spans:,}", "0"),
        Row("memory above idle, at most", f"{(most - idle) / _MIB:.0f} MiB", "≤ 20 MiB"),
        Row("the queue's files", f"{size / _MIB:.0f} MiB"),
        Row(
            "drained, while more came",
            f"{rate:,.0f} spans/s: {rate / _OUTAGE_SPANS:.1f} times the intake",
            "≥ 5 times",
        ),
    ]


def _waiting(sidecar: SidecarProcess) -> float:
    return metric(sidecar, "queue_records")


async def _collect(collector: Collector, done: Callable[[], bool]) -> int:
    """Count the spans that a collector gets until something holds."""
    spans = 0
    finished = False
    while not finished:
        finished = await trio.to_thread.run_sync(done)
        while collector.requests:
            request = collector.requests.pop()
            spans += count_records(ExportTraceServiceRequest.FromString(request.body))
        await trio.sleep(0.1)
    return spans


def _soak_rows() -> list[Row]:
    return trio.run(_soak)


async def _soak() -> list[Row]:
    body = _batch()
    with tempfile.TemporaryDirectory() as directory:
        async with open_collector() as collector:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "SIDECAR_QUEUE_DIR": directory,
            }
            with sidecar_process(environ) as sidecar:
                full = await trio.to_thread.run_sync(
                    partial(_rate, sidecar, body, 4, _FULL_LOAD_SECONDS)
                )
                steady = _Steady(sidecar, body, full / 2)
                memory: list[int] = []

                def run() -> None:
                    ends = time.monotonic() + _SOAK_SECONDS
                    while (left := ends - time.monotonic()) > 0:
                        progress(f"soak, {left:.0f} s left")
                        memory.append(memory_bytes(sidecar.process.pid))
                        collector.requests.clear()
                        time.sleep(1)

                steady.start()
                await trio.to_thread.run_sync(run)
                await trio.to_thread.run_sync(steady.stop)
                dropped = metric(sidecar, "dropped_records_total")
                rejected = metric(sidecar, "rejected_records_total")
    quarter = len(memory) // 4
    second = statistics.mean(memory[quarter : 2 * quarter])
    last = statistics.mean(memory[3 * quarter :])
    return [
        Row("time", f"{_SOAK_SECONDS:.0f} s", "3600 s"),
        Row("load", f"{512 * full / 2:,.0f} spans/s, half of what it takes"),
        Row("answers other than 200", f"{steady.errors}", "0"),
        Row("records dropped or rejected", f"{dropped + rejected:.0f}", "0"),
        Row(
            "memory, second and last quarter",
            f"{second / _MIB:.1f} MiB, {last / _MIB:.1f} MiB",
            "within 5 MiB",
        ),
    ]


KILLS = Section(
    "Killed under load",
    "kill -9 at random moments under load from the OpenTelemetry SDK's two OTLP exporters and "
    "POST /log, restart, and at the end drain; queue on disk with full sync.",
    _kill_rows,
)
STOPS = Section(
    "Stopped under load",
    "SIGTERM at random moments under the same load, restart, and at the end drain.",
    _stop_rows,
)
THROUGHPUT = Section(
    "Queue on disk and in memory",
    f"OTLP/HTTP, captured batches of 512 spans, redacted with the rules that ship; best of "
    f"{_THROUGHPUT_ROUNDS} rounds of {_THROUGHPUT_SECONDS:.0f} s in turn.",
    _throughput_rows,
)
OUTAGE = Section(
    "Collector down",
    "Captured batches of 512 spans go on coming in; the clients share the machine.",
    _outage_rows,
)
SOAK = Section(
    "Soak",
    "Captured batches of 512 spans at half of the measured full load, an OTLP collector behind, "
    "queue on disk with full sync.",
    _soak_rows,
)
