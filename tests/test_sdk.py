"""The real OpenTelemetry Python SDK, with each of its exporters, through a running sidecar."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import trio
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sidecar.redaction.walk_otlp import count_records
from tests.captured import leaks
from tests.collector import open_collector
from tests.process import SidecarProcess, sidecar_process

EMAIL = "alice.johnson@example.com"
CARD = "4111 1111 1111 1111"
Exporters = tuple[Any, Any, Any]


def grpc_exporters(sidecar: SidecarProcess, compressed: bool) -> Exporters:
    compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
    options: dict[str, Any] = {
        "endpoint": f"http://{sidecar.grpc_target}",
        "insecure": True,
        "compression": compression,
    }
    return GrpcSpans(**options), GrpcMetrics(**options), GrpcLogs(**options)


def http_exporters(sidecar: SidecarProcess, compressed: bool) -> Exporters:
    compression = Compression.Gzip if compressed else Compression.NoCompression
    base = f"{sidecar.otlp_http_url}/v1"
    return (
        HttpSpans(f"{base}/traces", compression=compression),
        HttpMetrics(f"{base}/metrics", compression=compression),
        HttpLogs(f"{base}/logs", compression=compression),
    )


def emit(exporters: Exporters) -> None:
    """Send twenty spans, a metric with an exemplar and ten log records, all of them leaking."""
    spans, metrics, logs = exporters
    resource = Resource({"service.name": "app", "owner": EMAIL})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(spans))
    meters = MeterProvider([PeriodicExportingMetricReader(metrics)], resource=resource)
    logging_provider = LoggerProvider(resource=resource)
    logging_provider.add_log_record_processor(BatchLogRecordProcessor(logs))
    logger = logging_provider.get_logger("app")
    histogram = meters.get_meter("app").create_histogram("latency")
    for index in range(20):
        with tracing.get_tracer("app").start_as_current_span(f"ask {EMAIL}") as span:
            span.set_attribute("index", index)
            span.set_attribute("cards", [CARD, "none"])
            span.add_event("pay", {"card": CARD.replace(" ", "-")})
            histogram.record(index, {"user": EMAIL})
            if index % 2:
                logger.emit(body=f"card {CARD} of {EMAIL}", attributes={"user": EMAIL})
            span.record_exception(ValueError(f"no account for {EMAIL}"))
    for provider in (tracing, meters, logging_provider):
        provider.shutdown()


@pytest.mark.parametrize("exporters", [grpc_exporters, http_exporters])
@pytest.mark.parametrize("compressed", [False, True])
async def test_the_sdk_exports_through_the_sidecar(
    exporters: Callable[[SidecarProcess, bool], Exporters], compressed: bool
) -> None:
    async with open_collector() as collector:

        def run() -> int:
            with sidecar_process({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as sidecar:
                emit(exporters(sidecar, compressed))
                return sidecar.stop()

        assert await trio.to_thread.run_sync(run) == 0
        messages = (collector.traces(), collector.metrics(), collector.logs())
        assert [count_records(message) for message in messages] == [20, 1, 10]
        assert [leaks(message) for message in messages] == [[], [], []]
        spans = list(all_spans(collector.traces()))
        assert sorted(attribute(span, "index").int_value for span in spans) == list(range(20))
        assert {span.name for span in spans} == {"ask [REDACTED_EMAIL]"}
        cards = [value.string_value for value in attribute(spans[0], "cards").array_value.values]
        assert cards == ["[REDACTED_CARD]", "none"]


def all_spans(request: Any) -> Iterator[Any]:
    for group in request.resource_spans:
        for scoped in group.scope_spans:
            yield from scoped.spans


def attribute(span: Any, key: str) -> Any:
    return next(item.value for item in span.attributes if item.key == key)
