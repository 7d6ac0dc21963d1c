"""The OTLP/HTTP receiver of a running sidecar."""

import gzip
import zlib

import httpx2
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from sidecar.receivers.otlp import OTLP_SIGNALS
from tests.captured import captures, to_otlp_json
from tests.process import SidecarProcess, sidecar_process

PROTOBUF, JSON = "application/x-protobuf", "application/json"
TRACES = next(body for otlp, body in captures() if otlp.signal == "traces")


def post(sidecar: SidecarProcess, content: bytes, kind: str, **headers: str) -> httpx2.Response:
    return httpx2.post(
        f"{sidecar.otlp_http_url}/v1/traces",
        content=content,
        headers={"content-type": kind, **headers},
    )


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.compress),
    ],
)
def test_every_coding_in_both_encodings(sidecar: SidecarProcess, coding: str, encode) -> None:  # type: ignore[no-untyped-def]
    as_json = to_otlp_json(ExportTraceServiceRequest.FromString(TRACES))
    for kind, body in ((PROTOBUF, TRACES), (JSON, as_json)):
        answer = post(sidecar, encode(body), kind, **{"content-encoding": coding})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind


def test_an_empty_protobuf_body_is_an_empty_request(sidecar: SidecarProcess) -> None:
    answer = post(sidecar, b"", PROTOBUF)
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"\xff\xff", {}, 400, "not a protobuf ExportTraceServiceRequest"),
        (b"{}", {}, 400, "not a protobuf"),
        (TRACES, {"content-encoding": "gzip"}, 400, "gzip"),
        (gzip.compress(TRACES)[:-9], {"content-encoding": "gzip"}, 400, "gzip"),
        (TRACES, {"content-encoding": "br"}, 415, "coding"),
        (gzip.compress(bytes(2**24 + 1)), {"content-encoding": "gzip"}, 413, "larger"),
        (bytes(2**24 + 1), {}, 413, "larger"),
    ],
)
def test_protobuf_faults_are_a_protobuf_status(
    sidecar: SidecarProcess, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = post(sidecar, content, PROTOBUF, **headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROTOBUF
    assert message in Status.FromString(answer.content).message


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b'"\\ud800"', 400, "not valid JSON"),
        (b"[" * 200_000, 400, "nested too deeply"),
        (b"[]", 422, "must be a JSON object"),
        (b'{"resourceSpans":5}', 422, "resourceSpans: the value"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":["alice"]}]}]}]}', 422, "spans.name"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}', 422, "traceId"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":99999999999}]}]}]}', 422, "kind"),
        (b'{"resourceSpans":{"a":1}}', 422, "value"),
        (b'{"resourceSpans":[null]}', 422, "value"),
    ],
)
def test_json_faults_are_a_json_status(
    sidecar: SidecarProcess, content: bytes, status: int, message: str
) -> None:
    answer = post(sidecar, content, JSON)
    assert answer.status_code == status
    assert answer.headers["content-type"] == JSON
    assert answer.json()["code"] == 3
    assert message in answer.json()["message"]
    assert "alice" not in answer.text


def test_unknown_json_fields_are_ignored(sidecar: SidecarProcess) -> None:
    assert post(sidecar, b'{"resourceSpans":[],"later":{"a":[1]}}', JSON).status_code == 200


def test_an_unknown_media_type_is_told_what_is_taken(sidecar: SidecarProcess) -> None:
    for kind in ("text/plain", ""):
        answer = post(sidecar, TRACES, kind)
        assert answer.status_code == 415
        assert answer.headers["accept"] == f"{PROTOBUF}, {JSON}"


def test_the_otlp_port_has_otlp_alone(sidecar: SidecarProcess) -> None:
    for otlp in OTLP_SIGNALS:
        answer = httpx2.get(f"{sidecar.otlp_http_url}{otlp.http_path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert httpx2.get(f"{sidecar.otlp_http_url}/health").status_code == 404


def test_a_full_queue_answers_429_with_retry_after() -> None:
    environ = {
        # Nothing listens there, so the queue keeps what it gets.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "SIDECAR_QUEUE_BYTES": "10000",
        "SIDECAR_DRAIN_SECONDS": "0",
    }
    with sidecar_process(environ) as sidecar:
        answers = [post(sidecar, TRACES, PROTOBUF) for _ in range(10)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert int(answers[-1].headers["retry-after"]) > 0
        assert Status.FromString(answers[-1].content).message
        event = httpx2.post(
            f"{sidecar.url}/log", json={"event": "e", "payload": {"x": list(range(10000))}}
        )
        assert event.status_code == 429
        assert event.headers["content-type"] == "application/problem+json"
        accepted = 37 * statuses.count(200)
        metrics = httpx2.get(f"{sidecar.metrics_url}/metrics").text
        labels = '{exporter="otlp",signal="traces"}'
        assert f"telemetry_cache_queue_records{labels} {accepted}.0" in metrics
        assert (
            'telemetry_cache_received_records_total{signal="traces",transport="http"} '
            f"{accepted}.0" in metrics
        )
