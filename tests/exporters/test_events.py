from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from sidecar.exporters.events import to_otlp, unix_nano
from sidecar.pipeline.exporter import Refused

NOW = 1_767_323_045_000_000_000


def line(payload: object, timestamp: str = "2026-01-02T03:04:05.25Z") -> bytes:
    event = {"event_id": "e1", "event": "chat", "timestamp": timestamp, "payload": payload}
    return msgspec.json.encode(event)


def record_of(payload: object, timestamp: str = "2026-01-02T03:04:05.25Z") -> LogRecord:
    request = ExportLogsServiceRequest.FromString(to_otlp(line(payload, timestamp), NOW))
    [record] = request.resource_logs[0].scope_logs[0].log_records
    return record


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)


def test_event_becomes_a_log_record_with_an_event_name() -> None:
    record = record_of({"model": "llama"})
    assert record.event_name == "chat"
    assert record.time_unix_nano == 1_767_323_045_250_000_000
    assert record.observed_time_unix_nano == NOW
    assert [(a.key, a.value.string_value) for a in record.attributes] == [("log.record.uid", "e1")]
    assert plain(record.body) == {"model": "llama"}


def test_resource_and_scope_name_the_sidecar() -> None:
    group = ExportLogsServiceRequest.FromString(to_otlp(line({}), NOW)).resource_logs[0]
    attributes = {a.key: a.value.string_value for a in group.resource.attributes}
    assert attributes["service.name"] == "telemetry-cache-sidecar"
    assert group.scope_logs[0].scope.name == "telemetry-cache-sidecar"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), json_values))
def test_payload_of_any_json_is_kept(payload: dict[str, Any]) -> None:
    assert plain(record_of(payload).body) == msgspec.json.decode(msgspec.json.encode(payload))


def test_integer_beyond_64_bits_is_kept_as_text() -> None:
    assert plain(record_of({"n": 2**63, "m": -(2**63)}).body) == {
        "n": "9223372036854775808",
        "m": -(2**63),
    }


def test_nesting_too_deep_for_protobuf_is_kept_as_text() -> None:
    nested: Any = 1
    for _ in range(200):
        nested = {"k": nested}
    body = plain(record_of(nested).body)
    depth = 0
    while isinstance(body, dict):
        body, depth = body["k"], depth + 1
    inner = msgspec.json.decode(body)
    while isinstance(inner, dict):
        inner, depth = inner["k"], depth + 1
    assert (inner, depth) == (1, 200)


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_nesting_beyond_the_decoder_is_refused(depth: int) -> None:
    nested = b'{"k":' * depth + b"1" + b"}" * depth
    body = b'{"event_id":"e","event":"x","payload":' + nested + b"}"
    with pytest.raises(Refused):
        to_otlp(body, NOW)


@pytest.mark.parametrize("payload", [b"1e999", b"9" * 5000, b'"\\ud800"', b"{"])
def test_payload_that_is_no_json_is_refused(payload: bytes) -> None:
    body = b'{"event_id":"e","event":"x","payload":' + payload + b"}"
    with pytest.raises(Refused):
        to_otlp(body, NOW)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-02T03:04:05Z", NOW),
        ("2026-01-02T03:04:05", NOW),
        ("2026-01-02T05:04:05+02:00", NOW),
        ("2026-01-02T03:04:05.000001Z", NOW + 1000),
        ("1969-12-31T23:59:59Z", None),
        ("2500-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("noon", None),
        ("", None),
    ],
)
def test_timestamp_as_unix_nanoseconds(timestamp: str, expected: int | None) -> None:
    assert unix_nano(timestamp) == expected


def test_event_without_a_readable_time_has_only_the_observed_one() -> None:
    assert record_of({}, timestamp="noon").time_unix_nano == 0
