"""The OTLP walker: every string is reached, and nothing else is changed."""

import re
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.receivers.otlp import OTLP_SIGNALS, OtlpSignal
from sidecar.redaction.engine import Engine
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_otlp import Outcome, count_records, redact_otlp
from sidecar.settings import default_rules_dir
from tests.captured import captures, flat
from tests.redaction.test_engine import engine

SHIPPED = Engine(load_rules(default_rules_dir()))
EMAIL = "alice@example.com"


def walk(request: Message, signal: str = "logs", compiled: Engine = SHIPPED) -> Outcome:
    return redact_otlp(request, compiled.redactor(signal))  # type: ignore[arg-type]


@st.composite
def messages(
    draw: st.DrawFn, kind: type[Message], text: st.SearchStrategy[str], depth: int = 0
) -> Any:
    """Build messages of any OTLP type from its descriptor: every field, every oneof."""
    message = kind()
    chosen = {
        oneof.name: draw(st.sampled_from([field.name for field in oneof.fields]))
        for oneof in message.DESCRIPTOR.oneofs
    }
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if (oneof and chosen[oneof.name] != field.name) or depth > 11:
            continue
        values = [
            draw(scalar_or_message(message, field, text, depth))
            for _ in range(
                draw(st.integers(0, 2)) if field.is_repeated else draw(st.integers(0, 1))
            )
        ]
        for value in values:
            if isinstance(value, Message):
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(value)
            elif field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def scalar_or_message(
    message: Message, field: Any, text: st.SearchStrategy[str], depth: int
) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        inner = getattr(message, field.name)
        kind = type(inner.add() if field.is_repeated else inner)
        message.ClearField(field.name)
        return messages(kind, text, depth + 1)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(min_size=8, max_size=16)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats(allow_nan=False)
    return st.integers(0, 2**31 - 1)


METRIC_NAME = re.compile(r".*\.metrics\[\d+\]\.name")
SIGNALS = st.sampled_from(OTLP_SIGNALS)
CLEAN = st.sampled_from(["", "chat", "GET /api/models", "gpt-mini", "a.b", "été", "{user_id}"])
DIRTY = st.sampled_from([EMAIL, "x 457-55-5462", "c%20alice%40example.com", "clean"])


@settings(max_examples=150)
@given(st.data(), SIGNALS)
def test_telemetry_without_personal_data_comes_out_byte_for_byte(
    data: st.DataObject, otlp: OtlpSignal
) -> None:
    request = data.draw(messages(otlp.request, CLEAN))
    before = request.SerializeToString(deterministic=True)
    outcome = walk(request, otlp.signal)
    assert request.SerializeToString(deterministic=True) == before
    assert (outcome.changed, outcome.failed) == (0, 0)
    assert outcome.kept == count_records(request)


@settings(max_examples=150)
@given(st.data(), SIGNALS)
def test_every_string_is_reached_and_nothing_else_changes(
    data: st.DataObject, otlp: OtlpSignal
) -> None:
    request = data.draw(messages(otlp.request, DIRTY))
    before = list(flat(request))
    outcome = walk(request, otlp.signal)
    after = list(flat(request))
    assert outcome.failed == 0
    assert len(after) == len(before)
    for (path, old), (_, new) in zip(before, after, strict=True):
        if isinstance(old, str) and not METRIC_NAME.fullmatch(path):
            assert not any(piece in new for piece in (EMAIL, "457-55", "alice%40")), path
        else:
            assert new == old, path
    again = request.SerializeToString(deterministic=True)
    walk(request, otlp.signal)
    assert request.SerializeToString(deterministic=True) == again


@pytest.mark.parametrize("otlp", OTLP_SIGNALS, ids=lambda otlp: otlp.signal)
def test_captured_bytes_are_counted_right(otlp: OtlpSignal) -> None:
    for captured, body in captures():
        if captured is otlp:
            request = otlp.request.FromString(body)
            assert walk(request, otlp.signal).kept == count_records(request) > 0


def log_record(**fields: Any) -> tuple[ExportLogsServiceRequest, Any]:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(**fields)
    return request, record


def test_nested_values_bytes_and_keys_are_redacted() -> None:
    request, record = log_record()
    inner = record.body.kvlist_value.values.add(key=EMAIL).value.array_value.values
    inner.add(bytes_value=EMAIL.encode())
    inner.add(bytes_value=b"\xff " + EMAIL.encode())
    inner.add(int_value=4111111111111111)
    inner.add(double_value=0.5)
    record.attributes.add(key="user.password").value.bool_value = True
    assert walk(request).changed == 1
    (entry,) = record.body.kvlist_value.values
    assert entry.key == "[REDACTED_EMAIL]"
    values = entry.value.array_value.values
    assert values[0].bytes_value == b"[REDACTED_EMAIL]"
    assert values[1].bytes_value == b"\xff [REDACTED_EMAIL]"
    assert values[2].string_value == "[REDACTED_CARD]"
    assert values[3].double_value == 0.5
    assert record.attributes[0].value.string_value == "[REDACTED]"


def test_what_this_version_does_not_know_is_taken_out() -> None:
    request, _ = log_record()
    # Field 999, length-delimited.
    hidden = request.SerializeToString() + b"\xba\x3e" + bytes([len(EMAIL)]) + EMAIL.encode()
    decoded = ExportLogsServiceRequest.FromString(hidden)
    assert EMAIL.encode() in decoded.SerializeToString()
    walk(decoded)
    assert EMAIL.encode() not in decoded.SerializeToString()


def test_a_record_whose_redaction_fails_is_dropped_and_the_others_stay() -> None:
    compiled = engine({"pattern": "boom", "action": {"replace": {"with": "boomboom"}}})
    request, _ = log_record(severity_text="boom")
    request.resource_logs[0].scope_logs[0].log_records.add(severity_text="fine")
    outcome = walk(request, compiled=compiled)
    assert (outcome.kept, outcome.failed) == (1, 1)
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert record.severity_text == "fine"


def test_a_resource_whose_redaction_fails_takes_its_records_along() -> None:
    compiled = engine({"pattern": "boom", "action": {"replace": {"with": "boomboom"}}})
    request, _ = log_record(severity_text="fine")
    request.resource_logs[0].resource.attributes.add(key="a").value.string_value = "boom"
    request.resource_logs.add().scope_logs.add().log_records.add()
    outcome = walk(request, compiled=compiled)
    assert (outcome.kept, outcome.failed) == (1, 1)
    assert count_records(request) == 1


def test_rules_drop_attributes_and_records() -> None:
    compiled = engine(
        {"keys": ["a"], "action": {"drop": {}}}, {"keys": ["b"], "action": {"drop_record": {}}}
    )
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for keys in (["a", "x"], ["b"], ["a"]):
        span = spans.add()
        for key in keys:
            span.attributes.add(key=key).value.string_value = "v"
    outcome = walk(request, "traces", compiled)
    assert (outcome.kept, outcome.dropped, outcome.changed) == (2, 1, 2)
    assert [[item.key for item in span.attributes] for span in spans] == [["x"], []]


def test_findings_are_counted_by_key_and_rule() -> None:
    request, record = log_record()
    record.body.string_value = f"{EMAIL} {EMAIL}"
    record.attributes.add(key="client.user.email").value.string_value = EMAIL
    assert dict(walk(request).report.counts) == {
        ("logrecord.body", "email"): 2,
        ("client.user.email", "user-email"): 1,
    }
