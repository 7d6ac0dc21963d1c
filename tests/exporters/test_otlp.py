import gzip
import ssl
from contextlib import suppress

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from sidecar.exporters.otlp import OtlpExporter
from sidecar.exporters.otlp_messages import encode, rejected_records
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.exporter import Refused, Retryable
from sidecar.settings import OtlpSignal
from tests.collector import NEVER, Answer, Collector, open_collector, unused_port
from tests.exporters.conftest import TlsFiles

PROTOBUF = {"content-type": "application/x-protobuf"}
TRACES = Batch("traces", b"\x0a\x00" * 50, 50)
EVENT = b'{"event_id":"e1","event":"chat","timestamp":"2026-01-02T03:04:05Z","payload":{"n":1}}'


def exporter_for(collector: Collector, seconds: float = 10.0) -> OtlpExporter:
    return OtlpExporter({"traces": f"{collector.url}/v1/traces"}, {}, seconds=seconds)


async def test_body_goes_to_the_url_of_its_signal_as_it_is() -> None:
    async with open_collector() as collector:
        exporter = OtlpExporter(
            {"traces": f"{collector.url}/v1/traces", "metrics": f"{collector.url}/own/path?x=1"}, {}
        )
        assert exporter.signals == {"traces", "metrics"}
        assert await exporter.export(TRACES) == 0
        assert await exporter.export(Batch("metrics", b"\x0a\x00", 1)) == 0
        await exporter.aclose()
    first, second = collector.requests
    assert (first.method, first.path, first.body) == ("POST", "/v1/traces", TRACES.body)
    assert second.path == "/own/path?x=1"
    assert first.headers["content-type"] == "application/x-protobuf"
    assert "content-encoding" not in first.headers
    assert collector.connections == 1


async def test_headers_and_credentials_are_sent() -> None:
    async with open_collector() as collector:
        url = f"http://us%40er:p%3Aw@127.0.0.1:{collector.port}/v1/traces"
        exporter = OtlpExporter({"traces": url}, {"x-tenant": "a b"})
        await exporter.export(TRACES)
        await exporter.aclose()
    headers = collector.requests[0].headers
    assert headers["x-tenant"] == "a b"
    assert headers["authorization"] == "Basic dXNAZXI6cDp3"


async def test_gzip_is_smaller_and_holds_the_same() -> None:
    async with open_collector() as collector:
        exporter = OtlpExporter({"traces": f"{collector.url}/v1/traces"}, {}, compress=True)
        await exporter.export(TRACES)
        await exporter.aclose()
    request = collector.requests[0]
    assert request.headers["content-encoding"] == "gzip"
    assert int(request.headers["content-length"]) < len(TRACES.body)
    assert request.body == TRACES.body


async def test_events_go_to_the_logs_endpoint_as_log_records() -> None:
    async with open_collector() as collector:
        exporter = OtlpExporter({"logs": f"{collector.url}/v1/logs"}, {}, compress=True)
        assert exporter.signals == {"logs", "events"}
        await exporter.export(Batch("events", EVENT + b"\n" + EVENT, 2))
        await exporter.aclose()
    request = ExportLogsServiceRequest.FromString(collector.bodies("/v1/logs")[0])
    records = request.resource_logs[0].scope_logs[0].log_records
    assert [record.event_name for record in records] == ["chat", "chat"]


async def test_environment_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{await unused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with open_collector() as collector:
        exporter = exporter_for(collector)
        await exporter.export(TRACES)
        await exporter.aclose()
    assert len(collector.requests) == 1


async def test_cookies_are_not_kept() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(headers={"set-cookie": "lb=1"}))
        exporter = exporter_for(collector)
        await exporter.export(TRACES)
        await exporter.export(TRACES)
        await exporter.aclose()
    assert "cookie" not in collector.requests[1].headers


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retryable_status_carries_retry_after(status: int) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=status, headers={"retry-after": "17"}))
        exporter = exporter_for(collector)
        with pytest.raises(Retryable) as failure:
            await exporter.export(TRACES)
        await exporter.aclose()
    assert (failure.value.reason, failure.value.retry_after) == (f"status {status}", 17.0)


@pytest.mark.parametrize(("status", "divisible"), [(400, True), (413, True), (401, False)])
async def test_other_status_refuses(status: int, divisible: bool) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=status, body=b"secret words"))
        exporter = exporter_for(collector)
        with pytest.raises(Refused) as refusal:
            await exporter.export(TRACES)
        await exporter.aclose()
    assert refusal.value.divisible is divisible
    assert str(refusal.value) == f"status {status}"


async def test_redirect_is_not_followed_and_loses_nothing() -> None:
    async with open_collector() as collector:
        location = {"location": f"{collector.url}/elsewhere"}
        collector.answers.append(Answer(status=307, headers=location))
        exporter = exporter_for(collector)
        with pytest.raises(Retryable):
            await exporter.export(TRACES)
        await exporter.aclose()
    assert len(collector.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(reset=True),
        Answer(raw=b""),
        Answer(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
        Answer(raw=b"HTTP/1.1 200"),
        Answer(raw=b"\x00\xff" * 1000),
        Answer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000),
    ],
)
async def test_no_answer_in_http_is_retryable(answer: Answer) -> None:
    async with open_collector() as collector:
        collector.answers.append(answer)
        exporter = exporter_for(collector)
        with pytest.raises(Retryable):
            await exporter.export(TRACES)
        await exporter.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers=PROTOBUF, body=b"\xff\xff\xff\xff"),
        Answer(headers={"content-type": "text/html"}, body=b"<html>it works</html>"),
        Answer(headers=PROTOBUF | {"content-encoding": "gzip"}, body=b"not gzip"),
        Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf an ans"),
        Answer(headers=PROTOBUF, body=b"x" * 1_000_000),
    ],
)
async def test_status_decides_whatever_the_body_is(answer: Answer) -> None:
    async with open_collector() as collector:
        collector.answers.append(answer)
        exporter = exporter_for(collector)
        assert await exporter.export(TRACES) == 0
        assert await exporter.export(TRACES) == 0
        await exporter.aclose()


async def test_collector_that_never_answers_is_a_timeout() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(delay=NEVER))
        exporter = exporter_for(collector, seconds=0.05)
        with pytest.raises(Retryable, match="timeout"):
            await exporter.export(TRACES)
        await exporter.aclose()


async def test_endless_answer_ends_with_the_time_limit() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, drip, listeners)
        port = listeners[0].socket.getsockname()[1]
        exporter = OtlpExporter({"traces": f"http://127.0.0.1:{port}"}, {}, seconds=0.2)
        with trio.fail_after(5):
            assert await exporter.export(TRACES) == 0
        await exporter.aclose()
        nursery.cancel_scope.cancel()


async def test_unreachable_collector_is_retryable() -> None:
    exporter = OtlpExporter({"traces": f"http://127.0.0.1:{await unused_port()}"}, {})
    with pytest.raises(Retryable, match="cannot connect"):
        await exporter.export(TRACES)
    await exporter.aclose()


async def test_untrusted_certificate_is_told_from_a_lost_connection() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def handshake(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        [tcp] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handshake, [trio.SSLListener(tcp, context)])
        port = tcp.socket.getsockname()[1]
        exporter = OtlpExporter({"traces": f"https://127.0.0.1:{port}"}, {})
        with pytest.raises(Retryable, match="TLS"):
            await exporter.export(TRACES)
        await exporter.aclose()
        nursery.cancel_scope.cancel()


async def test_own_authority_is_trusted_and_no_other(tls_files: TlsFiles) -> None:
    async with open_collector(tls=tls_files.server_context(client_certificate=False)) as collector:
        endpoints: dict[OtlpSignal, str] = {"traces": f"{collector.url}/v1/traces"}
        trusting = OtlpExporter(endpoints, {}, tls=tls_files.context())
        assert await trusting.export(TRACES) == 0
        await trusting.aclose()
        for other in (None, tls_files.context(authority=tls_files.other_authority)):
            doubting = OtlpExporter(endpoints, {}, tls=other)
            with pytest.raises(Retryable, match="TLS"):
                await doubting.export(TRACES)
            await doubting.aclose()
    assert collector.bodies("/v1/traces") == [TRACES.body]


async def test_client_certificate_is_shown(tls_files: TlsFiles) -> None:
    async with open_collector(tls=tls_files.server_context(client_certificate=True)) as collector:
        endpoints: dict[OtlpSignal, str] = {"traces": f"{collector.url}/v1/traces"}
        known = OtlpExporter(endpoints, {}, tls=tls_files.context(client=True))
        assert await known.export(TRACES) == 0
        await known.aclose()
        unknown = OtlpExporter(endpoints, {}, tls=tls_files.context())
        with pytest.raises(Retryable):
            await unknown.export(TRACES)
        await unknown.aclose()
    assert len(collector.requests) == 1


async def test_partial_success_tells_how_many_were_left_out() -> None:
    answer = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="x")
    ).SerializeToString()
    async with open_collector() as collector:
        collector.answers.append(Answer(headers=PROTOBUF, body=answer))
        exporter = exporter_for(collector)
        assert await exporter.export(TRACES) == 3
        await exporter.aclose()


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (
            "metrics",
            ExportMetricsServiceResponse(
                partial_success=ExportMetricsPartialSuccess(rejected_data_points=2)
            ),
        ),
        (
            "logs",
            ExportLogsServiceResponse(
                partial_success=ExportLogsPartialSuccess(rejected_log_records=2)
            ),
        ),
        (
            "events",
            ExportLogsServiceResponse(
                partial_success=ExportLogsPartialSuccess(rejected_log_records=2)
            ),
        ),
    ],
)
def test_partial_success_of_each_signal(
    signal: Signal, message: ExportMetricsServiceResponse | ExportLogsServiceResponse
) -> None:
    answer = message.SerializeToString()
    assert rejected_records(Batch(signal, b"", 5), answer) == 2
    assert rejected_records(Batch(signal, b"", 1), answer) == 1


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=50))
def test_any_answer_counts_between_none_and_all(body: bytes) -> None:
    assert 0 <= rejected_records(TRACES, body) <= TRACES.records


async def test_malformed_event_is_refused_unsent() -> None:
    async with open_collector() as collector:
        exporter = OtlpExporter({"logs": f"{collector.url}/v1/logs"}, {})
        with pytest.raises(Refused):
            await exporter.export(Batch("events", b'{"event": 1}', 1))
        await exporter.aclose()
    assert collector.requests == []


def test_gzip_of_a_batch_is_the_same_each_time() -> None:
    assert encode(TRACES, True, 1) == encode(TRACES, True, 2)
    assert gzip.decompress(encode(TRACES, True, 1)) == TRACES.body
