"""Load whose every record can be told again, from clients that note what was acknowledged.

A record's name is unique: of a span it is its name, of an event its payload's ``name``.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.collector import Received
from tests.process import SidecarProcess

_SPANS = 20
_EXPORT_SECONDS = 2.0


class Acknowledged:
    """The names of all records whose sender may forget them."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def new(self, count: int) -> list[str]:
        """Return names that no record has had."""
        with self._lock:
            return [f"record-{next(self._numbers)}" for _ in range(count)]

    def add(self, names: list[str]) -> None:
        """Note that records were acknowledged."""
        with self._lock:
            self.names.update(names)


@contextmanager
def load(sidecar: SidecarProcess, acknowledged: Acknowledged) -> Iterator[None]:
    """Send from the SDK's two exporters and to ``POST /log``, without a pause, until the end."""
    http = HttpSpans(f"{sidecar.otlp_http_url}/v1/traces", timeout=_EXPORT_SECONDS)
    grpc = GrpcSpans(
        endpoint=f"http://{sidecar.grpc_target}", insecure=True, timeout=_EXPORT_SECONDS
    )
    stopping = threading.Event()
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(base_url=sidecar.url, timeout=_EXPORT_SECONDS))
        senders = [
            lambda: _send_spans(http, acknowledged),
            lambda: _send_spans(grpc, acknowledged),
            lambda: _send_event(client, acknowledged),
        ]
        threads = [
            threading.Thread(target=_repeat, args=(send, stopping), daemon=True) for send in senders
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            # Ends what an exporter still waits for.
            for exporter in (http, grpc):
                exporter.shutdown()
            for thread in threads:
                thread.join()


def _repeat(send: Callable[[], bool], stopping: threading.Event) -> None:
    while not stopping.is_set():
        if not send():
            stopping.wait(0.05)


def _send_spans(exporter: SpanExporter, acknowledged: Acknowledged) -> bool:
    names = acknowledged.new(_SPANS)
    done = exporter.export([_span(name) for name in names]) is SpanExportResult.SUCCESS
    if done:
        acknowledged.add(names)
    return done


_tracer = TracerProvider(resource=Resource({"service.name": "load"})).get_tracer("load")


def _span(name: str) -> ReadableSpan:
    span = _tracer.start_span(name, attributes={"user.email": "alice@example.com"})
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def _send_event(client: httpx2.Client, acknowledged: Acknowledged) -> bool:
    (name,) = acknowledged.new(1)
    body = {"event": "load", "payload": {"name": name, "email": "alice@example.com"}}
    try:
        done = client.post("/log", json=body).status_code == 200
    except httpx2.TransportError:
        return False
    if done:
        acknowledged.add([name])
    return done


def names(request: Received) -> list[str]:
    """Return the names of the records in a request that a collector got."""
    if request.path == "/v1/traces":
        traces = ExportTraceServiceRequest.FromString(request.body)
        return [
            span.name
            for resource in traces.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    logs = ExportLogsServiceRequest.FromString(request.body)
    return [
        pair.value.string_value
        for resource in logs.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        for pair in record.body.kvlist_value.values
        if pair.key == "name"
    ]


class Arrived:
    """What a collector got, request by request."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.requests: list[frozenset[str]] = []

    def add(self, requests: list[Received]) -> None:
        """Take over requests that were answered with success, and forget them."""
        for request in requests:
            found = names(request)
            self.requests.append(frozenset(found))
            self.counts.update(found)
        requests.clear()

    def repeated(self) -> set[str]:
        """Return the names of records that came more than once."""
        return {name for name, count in self.counts.items() if count > 1}


def metric(sidecar: SidecarProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    total = 0.0
    for line in httpx2.get(f"{sidecar.metrics_url}/metrics").text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == f"telemetry_cache_{name}" and all(
            f'{label}="{wanted}"' in sample for label, wanted in labels.items()
        ):
            total += float(value)
    return total


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Return when a condition holds; raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)
