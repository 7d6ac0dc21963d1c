"""The walk over encoded requests: the same as over decoded ones, whatever they hold."""

from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from sidecar.receivers.otlp import OTLP_SIGNALS, OtlpSignal
from sidecar.redaction.walk_otlp import Outcome, redact_encoded, redact_otlp
from tests.captured import captures
from tests.redaction.test_engine import engine
from tests.redaction.test_walk_otlp import SHIPPED, messages

T = TypeVar("T")
TEXTS = st.sampled_from(["", "plain", "mail ada@example.com", "4111 1111 1111 1111"])
DROPPING = engine({"keys": ["span.name", "service", "key"], "action": {"drop_record": {}}})


def run(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: T = finished.value
            return result


def encoded(otlp: OtlpSignal, body: bytes, compiled: Any = SHIPPED) -> tuple[bytes, Outcome]:
    return run(redact_encoded(otlp.request, body, compiled.redactor(otlp.signal)))


def flat(outcome: Outcome) -> list[Any]:
    counts = outcome.report.counts
    return [outcome.kept, outcome.changed, outcome.failed, outcome.dropped, counts]


def known(otlp: OtlpSignal, body: bytes) -> Message:
    """Decode a request, without the fields that this version does not know."""
    request = otlp.request.FromString(body)
    request.DiscardUnknownFields()
    return request


def check_same(otlp: OtlpSignal, body: bytes, compiled: Any = SHIPPED) -> None:
    request = otlp.request.FromString(body)
    expected = redact_otlp(request, compiled.redactor(otlp.signal))
    redacted, outcome = encoded(otlp, body, compiled)
    assert known(otlp, redacted) == request
    assert flat(outcome) == flat(expected)


def test_captured_requests_come_out_the_same() -> None:
    for otlp, body in captures():
        check_same(otlp, body)


@pytest.mark.parametrize("otlp", OTLP_SIGNALS, ids=lambda otlp: otlp.signal)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_request_comes_out_the_same(otlp: OtlpSignal, data: st.DataObject) -> None:
    body = data.draw(messages(otlp.request, TEXTS)).SerializeToString()
    check_same(otlp, body)
    check_same(otlp, body, DROPPING)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_what_cannot_be_decoded_is_refused_and_all_else_comes_out_the_same(
    data: st.DataObject,
) -> None:
    """Some bytes of a request are others, so that lengths and tags are wrong."""
    otlp, whole = data.draw(st.sampled_from(list(captures())))
    body = bytearray(whole[:2000])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        redacted, _ = encoded(otlp, bytes(body))
    except DecodeError:
        return
    request = otlp.request.FromString(bytes(body))
    redact_otlp(request, SHIPPED.redactor(otlp.signal))
    assert known(otlp, redacted) == request


def test_nesting_has_the_same_bound() -> None:
    traces = next(otlp for otlp in OTLP_SIGNALS if otlp.signal == "traces")
    depths = []
    for depth in range(10, 60):
        request: Any = traces.request()
        span = request.resource_spans.add().scope_spans.add().spans.add(name="n")
        value = span.attributes.add(key="k").value
        for _ in range(depth):
            value = value.array_value.values.add()
        try:
            encoded(traces, request.SerializeToString())
        except DecodeError:
            depths.append(depth)
            with pytest.raises(DecodeError):
                traces.request.FromString(request.SerializeToString())
        else:
            traces.request.FromString(request.SerializeToString())
    assert depths


def levels(value: str) -> list[bytes]:
    """Return requests with a field of a later version at each level, which holds a text."""
    text = value.encode()
    field = b"\xba\x3e" + bytes([len(text)]) + text
    span = Span(name="n").SerializeToString()
    scope = ScopeSpans(schema_url="s").SerializeToString()
    resource = ResourceSpans(schema_url="s").SerializeToString()
    request = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name="first")])])]
    ).SerializeToString()
    found = []
    for level in range(4):
        parts = [span, scope, resource, request]
        parts[level] += field
        within = b""
        for part, tag in zip(parts, (b"\x12", b"\x12", b"\x0a", b""), strict=True):
            whole = part + within
            within = tag + bytes([len(whole)]) + whole if tag else whole
        found.append(within)
    return found


@pytest.mark.parametrize("body", levels("ask ada@example.com"))
def test_what_a_rule_finds_in_a_field_of_a_later_version_does_not_leave(body: bytes) -> None:
    traces = next(otlp for otlp in OTLP_SIGNALS if otlp.signal == "traces")
    assert b"ada@example.com" in body
    assert b"ada@example.com" in traces.request.FromString(body).SerializeToString()
    redacted, outcome = encoded(traces, body)
    assert b"ada@" not in redacted
    assert outcome.kept == 2
    assert known(traces, redacted) == known(traces, body)
