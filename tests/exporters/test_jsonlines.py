import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import (
    LogRecord,
    ResourceLogs,
    ScopeLogs,
    SeverityNumber,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from sidecar.exporters.jsonlines import lines
from sidecar.pipeline.batch import SIGNALS, Batch, Signal
from sidecar.pipeline.exporter import Refused

TRACE_ID, SPAN_ID, PARENT_ID = b"\x01" * 16, b"\x02" * 8, b"\x03" * 8
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
T1, T2 = 1_767_323_045_000_000_001, 1_767_323_045_000_000_002


def pair(key: str, value: AnyValue) -> KeyValue:
    return KeyValue(key=key, value=value)


def text(key: str, value: str) -> KeyValue:
    return pair(key, AnyValue(string_value=value))


RESOURCE = Resource(
    attributes=[text("service.name", "open-webui")],
    dropped_attributes_count=1,
    entity_refs=[EntityRef(type="service", id_keys=["a"], description_keys=["b"], schema_url="se")],
)
SCOPE = InstrumentationScope(
    name="scope", version="1", attributes=[text("s", "t")], dropped_attributes_count=2
)
CONTEXT = {
    "resource": {"service.name": "open-webui"},
    "resource_dropped_attributes_count": 1,
    "resource_entity_refs": [
        {"type": "service", "id_keys": ["a"], "description_keys": ["b"], "schema_url": "se"}
    ],
    "resource_schema_url": "sr",
    "scope": {"name": "scope", "version": "1", "attributes": {"s": "t"}}
    | {"dropped_attributes_count": 2},
    "scope_schema_url": "ss",
}


def decoded(signal: Signal, body: bytes) -> list[dict[str, Any]]:
    output = lines(Batch(signal, body, 1))
    assert output.endswith(b"\n")
    return [msgspec.json.decode(line) for line in output.splitlines()]


def metric_line(metric: Metric) -> dict[str, Any]:
    scoped = ScopeMetrics(scope=SCOPE, metrics=[metric], schema_url="ss")
    group = ResourceMetrics(resource=RESOURCE, scope_metrics=[scoped], schema_url="sr")
    request = ExportMetricsServiceRequest(resource_metrics=[group])
    [line] = decoded("metrics", request.SerializeToString())
    assert CONTEXT.items() <= line.items()
    assert line["signal"] == "metrics"
    return {key: value for key, value in line.items() if key not in {*CONTEXT, "signal"}}


def test_span_with_every_field() -> None:
    span = Span(
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        trace_state="k=v",
        parent_span_id=PARENT_ID,
        flags=1,
        name="GET /",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=T1,
        end_time_unix_nano=T2,
        attributes=[text("a", "b")],
        dropped_attributes_count=3,
        events=[
            Span.Event(
                time_unix_nano=T1, name="e", attributes=[text("c", "d")], dropped_attributes_count=4
            )
        ],
        dropped_events_count=5,
        links=[
            Span.Link(
                trace_id=TRACE_ID,
                span_id=SPAN_ID,
                trace_state="l=m",
                attributes=[text("e", "f")],
                dropped_attributes_count=6,
                flags=2,
            )
        ],
        dropped_links_count=7,
        status=Status(code=Status.STATUS_CODE_ERROR, message="no"),
    )
    scoped = ScopeSpans(scope=SCOPE, spans=[span], schema_url="ss")
    group = ResourceSpans(resource=RESOURCE, scope_spans=[scoped], schema_url="sr")
    request = ExportTraceServiceRequest(resource_spans=[group])
    assert decoded("traces", request.SerializeToString()) == [
        {
            "signal": "traces",
            **CONTEXT,
            "name": "GET /",
            "trace_id": "01" * 16,
            "span_id": "02" * 8,
            "parent_span_id": "03" * 8,
            "kind": "server",
            "start_time_unix_nano": T1,
            "end_time_unix_nano": T2,
            "attributes": {"a": "b"},
            "events": [
                {
                    "name": "e",
                    "time_unix_nano": T1,
                    "attributes": {"c": "d"},
                    "dropped_attributes_count": 4,
                }
            ],
            "links": [
                {
                    "trace_id": "01" * 16,
                    "span_id": "02" * 8,
                    "attributes": {"e": "f"},
                    "trace_state": "l=m",
                    "flags": 2,
                    "dropped_attributes_count": 6,
                }
            ],
            "status": {"code": "error", "message": "no"},
            "trace_state": "k=v",
            "flags": 1,
            "dropped_attributes_count": 3,
            "dropped_events_count": 5,
            "dropped_links_count": 7,
        }
    ]


def test_log_record_with_every_field() -> None:
    record = LogRecord(
        time_unix_nano=T1,
        observed_time_unix_nano=T2,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        severity_text="INFO",
        body=AnyValue(string_value="hello"),
        attributes=[text("a", "b")],
        dropped_attributes_count=1,
        flags=1,
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        event_name="chat",
    )
    scoped = ScopeLogs(scope=SCOPE, log_records=[record], schema_url="ss")
    group = ResourceLogs(resource=RESOURCE, scope_logs=[scoped], schema_url="sr")
    request = ExportLogsServiceRequest(resource_logs=[group])
    assert decoded("logs", request.SerializeToString()) == [
        {
            "signal": "logs",
            **CONTEXT,
            "time_unix_nano": T1,
            "observed_time_unix_nano": T2,
            "severity_number": 9,
            "severity_text": "INFO",
            "event_name": "chat",
            "body": "hello",
            "attributes": {"a": "b"},
            "trace_id": "01" * 16,
            "span_id": "02" * 8,
            "flags": 1,
            "dropped_attributes_count": 1,
        }
    ]


POINT: dict[str, Any] = {
    "start_time_unix_nano": T1,
    "time_unix_nano": T2,
    "attributes": [text("a", "b")],
}
POINT_LINE = {"start_time_unix_nano": T1, "time_unix_nano": T2, "attributes": {"a": "b"}}
HEAD: dict[str, Any] = {"name": "m", "description": "d", "unit": "s"}
EXEMPLAR = Exemplar(
    filtered_attributes=[text("x", "y")],
    time_unix_nano=T1,
    as_int=4,
    span_id=SPAN_ID,
    trace_id=TRACE_ID,
)
EXEMPLAR_LINE = {
    "value": 4,
    "time_unix_nano": T1,
    "trace_id": "01" * 16,
    "span_id": "02" * 8,
    "filtered_attributes": {"x": "y"},
}


def test_gauge() -> None:
    point = NumberDataPoint(**POINT, as_double=1.5, exemplars=[EXEMPLAR], flags=1)
    metric = Metric(**HEAD, gauge=Gauge(data_points=[point]), metadata=[text("k", "v")])
    assert metric_line(metric) == {
        **HEAD,
        **POINT_LINE,
        "type": "gauge",
        "metadata": {"k": "v"},
        "value": 1.5,
        "exemplars": [EXEMPLAR_LINE],
        "flags": 1,
    }


def test_sum() -> None:
    point = NumberDataPoint(**POINT, as_int=-(2**63))
    metric = Metric(
        **HEAD, sum=Sum(data_points=[point], aggregation_temporality=CUMULATIVE, is_monotonic=True)
    )
    assert metric_line(metric) == {
        **HEAD,
        **POINT_LINE,
        "type": "sum",
        "aggregation_temporality": "cumulative",
        "is_monotonic": True,
        "value": -(2**63),
    }


def test_histogram() -> None:
    point = HistogramDataPoint(
        **POINT,
        count=3,
        sum=math.inf,
        bucket_counts=[1, 2],
        explicit_bounds=[0.5],
        exemplars=[EXEMPLAR],
        max=9.0,
    )
    metric = Metric(**HEAD, histogram=Histogram(data_points=[point], aggregation_temporality=DELTA))
    assert metric_line(metric) == {
        **HEAD,
        **POINT_LINE,
        "type": "histogram",
        "aggregation_temporality": "delta",
        "count": 3,
        "sum": "Infinity",
        "max": 9.0,
        "bucket_counts": [1, 2],
        "explicit_bounds": [0.5],
        "exemplars": [EXEMPLAR_LINE],
    }


def test_exponential_histogram() -> None:
    buckets = ExponentialHistogramDataPoint.Buckets
    point = ExponentialHistogramDataPoint(
        **POINT,
        count=2**64 - 1,
        sum=0.0,
        scale=-2,
        zero_count=1,
        zero_threshold=0.25,
        positive=buckets(offset=-1, bucket_counts=[1, 2]),
        negative=buckets(offset=3, bucket_counts=[4]),
        min=-1.0,
    )
    data = ExponentialHistogram(data_points=[point], aggregation_temporality=CUMULATIVE)
    assert metric_line(Metric(**HEAD, exponential_histogram=data)) == {
        **HEAD,
        **POINT_LINE,
        "type": "exponential_histogram",
        "aggregation_temporality": "cumulative",
        "count": 2**64 - 1,
        "sum": 0.0,
        "min": -1.0,
        "scale": -2,
        "zero_count": 1,
        "zero_threshold": 0.25,
        "positive": {"offset": -1, "bucket_counts": [1, 2]},
        "negative": {"offset": 3, "bucket_counts": [4]},
    }


def test_summary() -> None:
    quantile = SummaryDataPoint.ValueAtQuantile(quantile=0.5, value=math.nan)
    point = SummaryDataPoint(**POINT, count=2, sum=-math.inf, quantile_values=[quantile])
    assert metric_line(Metric(**HEAD, summary=Summary(data_points=[point]))) == {
        **HEAD,
        **POINT_LINE,
        "type": "summary",
        "count": 2,
        "sum": "-Infinity",
        "quantile_values": [{"quantile": 0.5, "value": "NaN"}],
    }


def test_datapoint_without_a_value_and_an_unknown_temporality() -> None:
    data = Sum(data_points=[NumberDataPoint()])
    data.aggregation_temporality = 77  # type: ignore[assignment]
    line = metric_line(Metric(sum=data))
    assert (line["value"], line["aggregation_temporality"]) == (None, 77)


def test_attribute_values_of_every_kind() -> None:
    values = {
        "text": AnyValue(string_value="line\nbreak"),
        "bool": AnyValue(bool_value=False),
        "int": AnyValue(int_value=2**63 - 1),
        "double": AnyValue(double_value=math.nan),
        "bytes": AnyValue(bytes_value=b"\xff\x00"),
        "none": AnyValue(),
        "index": AnyValue(string_value_strindex=1),
        "list": AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
        "map": AnyValue(kvlist_value=KeyValueList(values=[text("k", "v")])),
    }
    record = LogRecord(attributes=[pair(key, value) for key, value in values.items()])
    group = ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])
    request = ExportLogsServiceRequest(resource_logs=[group])
    [line] = decoded("logs", request.SerializeToString())
    assert line["attributes"] == {
        "text": "line\nbreak",
        "bool": False,
        "int": 2**63 - 1,
        "double": "NaN",
        "bytes": "/wA=",
        "none": None,
        "index": None,
        "list": [1, None],
        "map": {"k": "v"},
    }


def test_event_keeps_its_payload_as_it_is() -> None:
    body = (
        b'{"event_id":"1","event":"e","timestamp":"t","payload":{"n":1.50,"m":99999999999999999}}'
    )
    assert lines(Batch("events", body, 1)) == b'{"signal":"events",' + body[1:] + b"\n"


def test_every_record_is_one_line() -> None:
    event = b'{"event":"e","payload":{"text":"a\\nb"}}'
    assert len(decoded("events", b"\n".join([event] * 5))) == 5


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(SIGNALS), st.binary(max_size=60))
def test_any_bytes_become_lines_or_are_refused(signal: Signal, body: bytes) -> None:
    try:
        output = lines(Batch(signal, body, 1))
    except Refused:
        return
    for line in output.splitlines():
        assert msgspec.json.decode(line)["signal"] == signal


@pytest.mark.parametrize("signal", SIGNALS)
def test_malformed_body_is_refused(signal: Signal) -> None:
    with pytest.raises(Refused):
        lines(Batch(signal, b"\xff\xff", 1))
