"""One JSON line for each span, log record, datapoint or event of a batch.

Every line says what it stands in (signal, resource, scope), so that each can be read alone. Names
are those of the OTLP messages, ids are hexadecimal, 64-bit integers are JSON numbers, other bytes
are base64, and numbers that JSON cannot hold are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
Enumerations go by their names without the prefix, such as ``"server"`` for ``SPAN_KIND_SERVER``;
a value that has no name yet stays a number.
Fields that most records leave empty (flags, trace state, counts of dropped attributes, schema
URLs) are there only when they are set.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.exporter import Refused

_Line = dict[str, Any]


def _names(items: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for name, number in items}


_SPAN_KINDS = _names(Span.SpanKind.items(), "SPAN_KIND_")
_STATUS_CODES = _names(Status.StatusCode.items(), "STATUS_CODE_")
_TEMPORALITIES = _names(AggregationTemporality.items(), "AGGREGATION_TEMPORALITY_")
_encoder = msgspec.json.Encoder()
_event_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def lines(batch: Batch) -> bytes:
    """Return the lines of a batch, each ended by ``\\n``; raises `Refused` if it is malformed."""
    try:
        # Line by line: all lines of a large batch as objects would take many times its size.
        return b"".join(_encoder.encode(line) + b"\n" for line in _LINES[batch.signal](batch.body))
    except (DecodeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(f"malformed {batch.signal}") from None


def _events(body: bytes) -> Iterator[_Line]:
    for event in _event_decoder.decode_lines(body):
        yield {"signal": "events", **event}


def _traces(body: bytes) -> Iterator[_Line]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scoped in group.scope_spans:
            context = _context("traces", group, scoped)
            for span in scoped.spans:
                yield {**context, **_span(span)}


def _logs(body: bytes) -> Iterator[_Line]:
    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scoped in group.scope_logs:
            context = _context("logs", group, scoped)
            for record in scoped.log_records:
                yield {**context, **_log_record(record)}


def _metrics(body: bytes) -> Iterator[_Line]:
    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scoped in group.scope_metrics:
            context = _context("metrics", group, scoped)
            for metric in scoped.metrics:
                for point in _points(metric):
                    yield {**context, **point}


_LINES: dict[Signal, Callable[[bytes], Iterator[_Line]]] = {
    "traces": _traces,
    "metrics": _metrics,
    "logs": _logs,
    "events": _events,
}


def _context(signal: str, group: Any, scoped: Any) -> _Line:
    return {
        "signal": signal,
        "resource": _attributes(group.resource.attributes),
        "scope": _scope(scoped.scope),
        **_set(
            resource_schema_url=group.schema_url,
            scope_schema_url=scoped.schema_url,
            resource_dropped_attributes_count=group.resource.dropped_attributes_count,
            resource_entity_refs=_entity_refs(group.resource),
        ),
    }


def _scope(scope: InstrumentationScope) -> _Line:
    return {
        "name": scope.name,
        "version": scope.version,
        **_set(
            attributes=_attributes(scope.attributes),
            dropped_attributes_count=scope.dropped_attributes_count,
        ),
    }


def _entity_refs(resource: Resource) -> list[_Line]:
    return [
        {
            "type": ref.type,
            "id_keys": list(ref.id_keys),
            "description_keys": list(ref.description_keys),
            **_set(schema_url=ref.schema_url),
        }
        for ref in resource.entity_refs
    ]


def _span(span: Span) -> _Line:
    return {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "kind": _SPAN_KINDS.get(span.kind, span.kind),
        "start_time_unix_nano": span.start_time_unix_nano,
        "end_time_unix_nano": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "events": [_span_event(event) for event in span.events],
        "links": [_link(link) for link in span.links],
        "status": {
            "code": _STATUS_CODES.get(span.status.code, span.status.code),
            "message": span.status.message,
        },
        **_set(
            trace_state=span.trace_state,
            flags=span.flags,
            dropped_attributes_count=span.dropped_attributes_count,
            dropped_events_count=span.dropped_events_count,
            dropped_links_count=span.dropped_links_count,
        ),
    }


def _span_event(event: Span.Event) -> _Line:
    return {
        "name": event.name,
        "time_unix_nano": event.time_unix_nano,
        "attributes": _attributes(event.attributes),
        **_set(dropped_attributes_count=event.dropped_attributes_count),
    }


def _link(link: Span.Link) -> _Line:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "attributes": _attributes(link.attributes),
        **_set(
            trace_state=link.trace_state,
            flags=link.flags,
            dropped_attributes_count=link.dropped_attributes_count,
        ),
    }


def _log_record(record: LogRecord) -> _Line:
    return {
        "time_unix_nano": record.time_unix_nano,
        "observed_time_unix_nano": record.observed_time_unix_nano,
        "severity_number": record.severity_number,
        "severity_text": record.severity_text,
        "event_name": record.event_name,
        "body": _value(record.body),
        "attributes": _attributes(record.attributes),
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        **_set(flags=record.flags, dropped_attributes_count=record.dropped_attributes_count),
    }


def _points(metric: Metric) -> Iterator[_Line]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    head = {
        "name": metric.name,
        "description": metric.description,
        "unit": metric.unit,
        "type": kind,
        **_set(metadata=_attributes(metric.metadata)),
    }
    if kind in {"sum", "histogram", "exponential_histogram"}:
        temporality = data.aggregation_temporality
        head["aggregation_temporality"] = _TEMPORALITIES.get(temporality, temporality)
    if kind == "sum":
        head["is_monotonic"] = data.is_monotonic
    for point in data.data_points:
        yield {
            **head,
            "attributes": _attributes(point.attributes),
            "start_time_unix_nano": point.start_time_unix_nano,
            "time_unix_nano": point.time_unix_nano,
            **_POINTS[kind](point),
            **_set(flags=point.flags),
        }


def _number_point(point: NumberDataPoint) -> _Line:
    return {"value": _either_number(point), **_set(exemplars=_exemplars(point.exemplars))}


def _histogram_point(point: HistogramDataPoint) -> _Line:
    return {
        "count": point.count,
        **_statistics(point),
        "bucket_counts": list(point.bucket_counts),
        "explicit_bounds": [_number(bound) for bound in point.explicit_bounds],
        **_set(exemplars=_exemplars(point.exemplars)),
    }


def _exponential_histogram_point(point: ExponentialHistogramDataPoint) -> _Line:
    return {
        "count": point.count,
        **_statistics(point),
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": _number(point.zero_threshold),
        "positive": _buckets(point.positive),
        "negative": _buckets(point.negative),
        **_set(exemplars=_exemplars(point.exemplars)),
    }


def _summary_point(point: SummaryDataPoint) -> _Line:
    return {
        "count": point.count,
        "sum": _number(point.sum),
        "quantile_values": [
            {"quantile": _number(at.quantile), "value": _number(at.value)}
            for at in point.quantile_values
        ],
    }


_POINTS: dict[str, Callable[[Any], _Line]] = {
    "gauge": _number_point,
    "sum": _number_point,
    "histogram": _histogram_point,
    "exponential_histogram": _exponential_histogram_point,
    "summary": _summary_point,
}


def _statistics(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> _Line:
    fields: tuple[Literal["sum", "min", "max"], ...] = ("sum", "min", "max")
    return {name: _number(getattr(point, name)) for name in fields if point.HasField(name)}


def _buckets(buckets: ExponentialHistogramDataPoint.Buckets) -> _Line:
    return {"offset": buckets.offset, "bucket_counts": list(buckets.bucket_counts)}


def _exemplars(exemplars: Iterable[Exemplar]) -> list[_Line]:
    return [
        {
            "value": _either_number(exemplar),
            "time_unix_nano": exemplar.time_unix_nano,
            "trace_id": exemplar.trace_id.hex(),
            "span_id": exemplar.span_id.hex(),
            "filtered_attributes": _attributes(exemplar.filtered_attributes),
        }
        for exemplar in exemplars
    ]


def _either_number(point: NumberDataPoint | Exemplar) -> float | int | str | None:
    kind = point.WhichOneof("value")
    return None if kind is None else _number(getattr(point, kind))


def _attributes(pairs: Iterable[KeyValue]) -> _Line:
    """Return attributes as an object; of a repeated key, which OTLP forbids, the last one."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "double_value":
        return _number(value.double_value)
    # string_value_strindex is for profiles alone; elsewhere it counts as absent.
    if kind is None or kind == "string_value_strindex":
        return None
    return getattr(value, kind)


def _number(number: float) -> float | int | str:
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _set(**fields: Any) -> _Line:
    return {name: value for name, value in fields.items() if value}
