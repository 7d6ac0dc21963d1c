import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.errors
import h2.events
import h2.settings
import pytest
import trio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
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

from sidecar.exporters.otlp_grpc import OtlpGrpcExporter
from sidecar.pipeline.batch import Batch
from sidecar.pipeline.exporter import Refused, Retryable
from sidecar.pipeline.retry import MAX_RETRY_AFTER
from sidecar.settings import OtlpSignal
from tests.collector import open_collector, unused_port
from tests.exporters.conftest import TlsFiles
from tests.exporters.grpc_servers import (
    Http2,
    RawServer,
    Reaction,
    Script,
    frame,
    goaway,
    grpc_server,
    healthy,
    raw_server,
)

MARK = b"only-in-the-records"
NO_SETTINGS = frame(4, 0, 0, b"")
TRACES = Batch("traces", MARK * 50, 50)
EVENT = b'{"event_id":"e1","event":"chat","timestamp":"2026-01-02T03:04:05Z","payload":{"n":1}}'


@asynccontextmanager
async def exporter_for(target: str, **options: Any) -> AsyncIterator[OtlpGrpcExporter]:
    exporter = OtlpGrpcExporter({"traces": f"http://{target}"}, {}, **options)
    yield exporter
    await exporter.aclose()


def retry_info(seconds: int | None) -> bytes:
    """Return the details of a status; None: there are some, but no RetryInfo."""
    detail = AnyMessage()
    info = RetryInfo()
    if seconds is not None:
        info.retry_delay.seconds = seconds
        detail.Pack(info)
    encoded: bytes = Status(code=8, message="x", details=[detail]).SerializeToString()
    return encoded


# Against grpcio's own server


async def test_each_signal_goes_to_its_service() -> None:
    with grpc_server() as server:
        url = f"http://{server.target}"
        exporter = OtlpGrpcExporter({"traces": url, "metrics": url, "logs": url}, {})
        assert exporter.signals == {"traces", "metrics", "logs", "events"}
        for signal in ("traces", "metrics", "logs"):
            assert await exporter.export(Batch(signal, MARK, 1)) == 0
        assert await exporter.export(Batch("events", EVENT + b"\n" + EVENT, 2)) == 0
        await exporter.aclose()
    package = "/opentelemetry.proto.collector"
    assert [call.path for call in server.calls] == [
        f"{package}.trace.v1.TraceService/Export",
        f"{package}.metrics.v1.MetricsService/Export",
        f"{package}.logs.v1.LogsService/Export",
        f"{package}.logs.v1.LogsService/Export",
    ]
    assert [call.message for call in server.calls[:3]] == [MARK] * 3
    request = ExportLogsServiceRequest.FromString(server.calls[3].message)
    records = request.resource_logs[0].scope_logs[0].log_records
    assert [record.event_name for record in records] == ["chat", "chat"]
    assert len({call.peer for call in server.calls}) == 1


async def test_own_endpoints_are_used_and_other_signals_are_not_taken() -> None:
    with grpc_server() as one, grpc_server() as other:
        exporter = OtlpGrpcExporter(
            {"traces": f"http://{one.target}", "metrics": f"http://{other.target}/"}, {}
        )
        assert exporter.signals == {"traces", "metrics"}
        await exporter.export(TRACES)
        await exporter.export(Batch("metrics", MARK, 1))
        await exporter.aclose()
    assert len(one.calls) == len(other.calls) == 1


async def test_gzip_is_decompressed_by_the_server() -> None:
    with grpc_server() as server:
        async with exporter_for(server.target, compress=True) as exporter:
            await exporter.export(TRACES)
    assert server.calls[0].message == TRACES.body


async def test_headers_and_credentials_are_metadata() -> None:
    with grpc_server() as server:
        exporter = OtlpGrpcExporter(
            {"traces": f"http://us%40er:p%3Aw@{server.target}"},
            {"x-tenant": "a b", "connection": "close", "te": "gzip", "content-type": "text/plain"},
        )
        await exporter.export(TRACES)
        await exporter.aclose()
    metadata = server.calls[0].metadata
    assert metadata["x-tenant"] == "a b"
    assert metadata["authorization"] == "Basic dXNAZXI6cDp3"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.CANCELLED, "retry"),
        (grpc.StatusCode.UNKNOWN, "halve"),
        (grpc.StatusCode.INVALID_ARGUMENT, "halve"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "retry"),
        (grpc.StatusCode.NOT_FOUND, "refuse"),
        (grpc.StatusCode.ALREADY_EXISTS, "halve"),
        (grpc.StatusCode.PERMISSION_DENIED, "refuse"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "halve"),
        (grpc.StatusCode.FAILED_PRECONDITION, "halve"),
        (grpc.StatusCode.ABORTED, "retry"),
        (grpc.StatusCode.OUT_OF_RANGE, "retry"),
        (grpc.StatusCode.UNIMPLEMENTED, "refuse"),
        (grpc.StatusCode.INTERNAL, "halve"),
        (grpc.StatusCode.UNAVAILABLE, "retry"),
        (grpc.StatusCode.DATA_LOSS, "retry"),
        (grpc.StatusCode.UNAUTHENTICATED, "refuse"),
    ],
)
async def test_each_status_is_named_and_does_what_the_specification_says(
    code: grpc.StatusCode, expected: str
) -> None:
    with grpc_server() as server:
        server.reactions.put(Reaction(code=code))
        async with exporter_for(server.target) as exporter:
            with pytest.raises((Retryable, Refused)) as failure:
                await exporter.export(TRACES)
            assert await exporter.export(TRACES) == 0
    error = failure.value
    assert isinstance(error, Retryable | Refused)
    assert str(error) == error.reason == f"grpc {code.name}"
    if isinstance(error, Retryable):
        assert (expected, error.retry_after) == ("retry", None)
    else:
        assert expected == ("halve" if error.divisible else "refuse")
    assert len({call.peer for call in server.calls}) == 1


@pytest.mark.parametrize(
    ("code", "asked", "waits"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 7, 7.0),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 0, 0.0),
        (grpc.StatusCode.UNAVAILABLE, 86400, MAX_RETRY_AFTER),
        (grpc.StatusCode.UNAVAILABLE, None, None),
    ],
)
async def test_retry_info_is_honoured(
    code: grpc.StatusCode, asked: int | None, waits: float | None
) -> None:
    with grpc_server() as server:
        server.reactions.put(Reaction(code=code, details=retry_info(asked)))
        async with exporter_for(server.target) as exporter:
            with pytest.raises(Retryable, match=f"^grpc {code.name}$") as failure:
                await exporter.export(TRACES)
    assert failure.value.retry_after == waits


async def test_exhausted_without_retry_info_is_refused() -> None:
    with grpc_server() as server:
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        server.reactions.put(Reaction(code=exhausted, details=retry_info(None)))
        async with exporter_for(server.target) as exporter:
            with pytest.raises(Refused) as refusal:
                await exporter.export(TRACES)
    assert refusal.value.divisible


@pytest.mark.parametrize(
    ("signal", "answer"),
    [
        (
            "traces",
            ExportTraceServiceResponse(
                partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="x")
            ),
        ),
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
    ],
)
async def test_partial_success_tells_how_many_were_left_out(
    signal: OtlpSignal, answer: Message
) -> None:
    with grpc_server() as server:
        server.reactions.put(Reaction(message=answer.SerializeToString()))
        exporter = OtlpGrpcExporter({signal: f"http://{server.target}"}, {})
        assert await exporter.export(Batch(signal, MARK, 5)) == 2
        await exporter.aclose()


async def test_answer_that_is_no_message_counts_as_success() -> None:
    with grpc_server() as server:
        server.reactions.put(Reaction(message=b"\xff\xff\xff"))
        async with exporter_for(server.target) as exporter:
            assert await exporter.export(TRACES) == 0


@pytest.mark.parametrize("compress", [False, True])
async def test_messages_larger_than_every_window_arrive_whole(compress: bool) -> None:
    with grpc_server() as server:
        async with exporter_for(server.target, compress=compress) as exporter:
            for size in (65_530, 65_535, 65_536, 4 * 2**20, 20 * 2**20):
                body = os.urandom(size)
                assert await exporter.export(Batch("traces", body, 1)) == 0
                assert server.calls.pop().message == body


async def test_exports_share_a_connection() -> None:
    with grpc_server() as server:
        async with exporter_for(server.target) as exporter:
            for _ in range(200):
                assert await exporter.export(TRACES) == 0
    assert len(server.calls) == 200
    assert len({call.peer for call in server.calls}) == 1


async def test_server_that_was_started_again_is_found() -> None:
    with grpc_server() as server:
        exporter = OtlpGrpcExporter({"traces": f"http://{server.target}"}, {})
        assert await exporter.export(TRACES) == 0
    with pytest.raises(Retryable, match="cannot connect"):
        await exporter.export(TRACES)
    with grpc_server(server.target) as again:
        assert await exporter.export(TRACES) == 0
    with grpc_server(server.target):
        assert await exporter.export(TRACES) == 0
        await exporter.aclose()
    assert len(again.calls) == 1


async def test_server_that_never_answers_is_a_timeout() -> None:
    with grpc_server() as server:
        server.reactions.put(Reaction(never=True))
        async with exporter_for(server.target, seconds=0.2) as exporter:
            with pytest.raises(Retryable, match=r"^timeout$"):
                await exporter.export(TRACES)
            assert await trio.to_thread.run_sync(server.abandoned.wait, 10)
            assert await exporter.export(TRACES) == 0


async def test_cancelled_export_leaves_nothing_behind() -> None:
    with grpc_server() as server:
        async with exporter_for(server.target) as exporter:
            assert await exporter.export(TRACES) == 0
            server.reached.clear()
            server.reactions.put(Reaction(never=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exporter.export, TRACES)
                assert await trio.to_thread.run_sync(server.reached.wait, 10)
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(server.abandoned.wait, 10)
            assert await exporter.export(TRACES) == 0
    assert len(server.calls) == 3


async def test_exports_at_the_same_time_take_turns() -> None:
    with grpc_server() as server:
        async with exporter_for(server.target) as exporter, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(exporter.export, TRACES)
    assert len(server.calls) == 10


async def test_environment_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{await unused_port()}")
    async with raw_server(healthy) as server, exporter_for(server.target) as exporter:
        assert await exporter.export(TRACES) == 0


async def test_malformed_event_is_refused_unsent() -> None:
    async with raw_server(healthy) as server:
        exporter = OtlpGrpcExporter({"logs": f"http://{server.target}"}, {})
        with pytest.raises(Refused):
            await exporter.export(Batch("events", b'{"event": 1}', 1))
        await exporter.aclose()
    assert server.connections == 0


# TLS


def server_credentials(files: TlsFiles, *, client_certificate: bool) -> grpc.ServerCredentials:
    pair = Path(files.server_key).read_bytes(), Path(files.server_certificate).read_bytes()
    return grpc.ssl_server_credentials(
        [pair],
        root_certificates=Path(files.authority).read_bytes() if client_certificate else None,
        require_client_auth=client_certificate,
    )


async def test_own_authority_is_trusted_and_no_other(tls_files: TlsFiles) -> None:
    credentials = server_credentials(tls_files, client_certificate=False)
    with grpc_server(credentials=credentials) as server:
        url = f"https://{server.target}"
        trusting = OtlpGrpcExporter({"traces": url}, {}, tls=tls_files.context())
        big = Batch("traces", os.urandom(2**20), 1)
        for batch in (TRACES, big, TRACES):
            assert await trusting.export(batch) == 0
        await trusting.aclose()
        for other in (None, tls_files.context(authority=tls_files.other_authority)):
            doubting = OtlpGrpcExporter({"traces": url}, {}, tls=other)
            with pytest.raises(Retryable, match=r"^TLS$"):
                await doubting.export(TRACES)
            await doubting.aclose()
    assert [call.message for call in server.calls] == [TRACES.body, big.body, TRACES.body]


async def test_client_certificate_is_shown(tls_files: TlsFiles) -> None:
    credentials = server_credentials(tls_files, client_certificate=True)
    with grpc_server(credentials=credentials) as server:
        url = f"https://{server.target}"
        known = OtlpGrpcExporter({"traces": url}, {}, tls=tls_files.context(client=True))
        assert await known.export(TRACES) == 0
        await known.aclose()
        unknown = OtlpGrpcExporter({"traces": url}, {}, tls=tls_files.context())
        with pytest.raises(Retryable):
            await unknown.export(TRACES)
        await unknown.aclose()
    assert len(server.calls) == 1


async def test_tls_server_without_http2_gets_no_records(tls_files: TlsFiles) -> None:
    async with open_collector(tls=tls_files.server_context(client_certificate=False)) as collector:
        exporter = OtlpGrpcExporter({"traces": collector.url}, {}, tls=tls_files.context())
        with pytest.raises(Retryable, match=r"^the answer is not gRPC$"):
            await exporter.export(TRACES)
        await exporter.aclose()
    assert collector.requests == []


async def test_plain_server_behind_https_is_told_as_tls() -> None:
    async with raw_server(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        exporter = OtlpGrpcExporter({"traces": f"https://{server.target}"}, {})
        with pytest.raises(Retryable, match=r"^TLS$"):
            await exporter.export(TRACES)
        await exporter.aclose()


# Against a server that misbehaves


def saying(text: bytes) -> Script:
    """Return a script that says one thing, whatever it hears, and then only listens."""

    async def say(server: RawServer, stream: trio.SocketStream) -> None:
        await stream.send_all(text)
        await stream.send_eof()
        async for data in stream:
            server.received += data

    return say


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
        b"\x00\xff" * 1000,
        b"\x00" * 1000,
        b"\xff" * 200_000,
    ],
)
async def test_what_does_not_speak_http2_gets_no_records(text: bytes) -> None:
    async with (
        raw_server(saying(text), healthy) as server,
        exporter_for(server.target, seconds=5) as exporter,
    ):
        with pytest.raises(Retryable, match=r"^(connection lost|the answer is not gRPC)$"):
            await exporter.export(TRACES)
        assert MARK not in server.received
        assert await exporter.export(TRACES) == 0


async def test_unreachable_server_is_retryable() -> None:
    async with exporter_for(f"127.0.0.1:{await unused_port()}") as exporter:
        with pytest.raises(Retryable, match=r"^cannot connect$"):
            await exporter.export(TRACES)


async def test_unknown_host_is_retryable() -> None:
    async with exporter_for(f"{'x' * 80}.invalid:4317") as exporter:
        with pytest.raises(Retryable, match=r"^cannot connect$"):
            await exporter.export(TRACES)


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 2]), st.binary())
    ).map(lambda frames: b"".join(frame(*each) for each in frames))
)
async def test_any_bytes_are_retryable_or_an_answer(noise: bytes) -> None:
    async with (
        raw_server(saying(NO_SETTINGS + noise)) as server,
        exporter_for(server.target, seconds=5) as exporter,
    ):
        with suppress(Retryable, Refused):
            await exporter.export(TRACES)


def answering(answer: Callable[[Http2, int], Awaitable[None]]) -> Script:
    """Return a script that takes one request, answers it as told, and closes the connection."""

    async def serve(server: RawServer, stream: trio.SocketStream) -> None:
        http2 = Http2(server, stream)
        await http2.start()
        await answer(http2, await http2.request())

    return serve


async def half(http2: Http2, stream_id: int) -> None:
    http2.http2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
    http2.http2.send_data(stream_id, b"\0\0\0")
    await http2.send()


async def reset(http2: Http2, stream_id: int) -> None:
    http2.http2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
    await http2.send()
    await http2.until(h2.events.ConnectionTerminated)


async def nothing(http2: Http2, stream_id: int) -> None:
    pass


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(half, "connection lost"), (reset, "stream reset"), (nothing, "connection lost")],
)
async def test_call_without_a_status_is_retryable(
    answer: Callable[[Http2, int], Awaitable[None]], reason: str
) -> None:
    async with (
        raw_server(answering(answer), healthy) as server,
        exporter_for(server.target) as exporter,
    ):
        with pytest.raises(Retryable, match=f"^{reason}$"):
            await exporter.export(TRACES)
        assert await exporter.export(TRACES) == 0
    assert server.connections == 2


def http_answer(
    headers: list[tuple[str, str]], body: bytes = b""
) -> Callable[[Http2, int], Awaitable[None]]:
    async def answer(http2: Http2, stream_id: int) -> None:
        http2.http2.send_headers(stream_id, headers, end_stream=not body)
        if body:
            http2.http2.send_data(stream_id, body, end_stream=True)
        await http2.send()

    return answer


HTML = ("content-type", "text/html")


@pytest.mark.parametrize(
    ("headers", "error", "reason"),
    [
        ([(":status", "503"), HTML], Retryable, "grpc UNAVAILABLE"),
        ([(":status", "429")], Retryable, "grpc UNAVAILABLE"),
        ([(":status", "401"), HTML], Refused, "grpc UNAUTHENTICATED"),
        ([(":status", "404"), HTML], Refused, "grpc UNIMPLEMENTED"),
        ([(":status", "200"), HTML], Refused, "grpc UNKNOWN"),
        ([(":status", "200"), ("grpc-status", "99")], Refused, "grpc UNKNOWN"),
        ([(":status", "200"), ("grpc-status", "")], Refused, "grpc UNKNOWN"),
        ([(":status", "503"), ("grpc-status", "3")], Refused, "grpc INVALID_ARGUMENT"),
        ([(":status", "200"), ("grpc-status", "14")], Retryable, "grpc UNAVAILABLE"),
    ],
)
async def test_answer_that_is_not_of_grpc_goes_by_its_http_status(
    headers: list[tuple[str, str]], error: type[Exception], reason: str
) -> None:
    for body in (b"", b"<html>secret words</html>"):
        async with (
            raw_server(answering(http_answer(headers, body))) as server,
            exporter_for(server.target) as exporter,
        ):
            with pytest.raises(error, match=f"^{reason}$"):
                await exporter.export(TRACES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"\0\0\0\0\x05abc",
        b"\1\0\0\0\x03abc",
        b"\xff" * 20,
        b"\0" + (2**20).to_bytes(4, "big") + bytes(2**20),
    ],
)
async def test_status_decides_whatever_the_answer_is(content: bytes) -> None:
    async def answer(http2: Http2, stream_id: int) -> None:
        await http2.answer(stream_id, content=content)
        await http2.answer(await http2.request(), content=content)

    async with raw_server(answering(answer)) as server, exporter_for(server.target) as exporter:
        assert await exporter.export(TRACES) == 0
        assert await exporter.export(TRACES) == 0
    assert server.connections == 1


async def test_endless_answer_ends_with_the_time_limit() -> None:
    async def pour(http2: Http2, stream_id: int) -> None:
        http2.http2.send_headers(stream_id, [(":status", "200")])
        while True:
            while http2.http2.local_flow_control_window(stream_id):
                http2.http2.send_data(stream_id, bytes(1))
                await http2.send()
            await http2.until(h2.events.WindowUpdated)

    async with (
        raw_server(answering(pour)) as server,
        exporter_for(server.target, seconds=0.3) as exporter,
    ):
        with pytest.raises(Retryable, match=r"^timeout$"):
            await exporter.export(TRACES)


async def test_answer_byte_by_byte() -> None:
    message = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=3)
    ).SerializeToString()

    async def answer(http2: Http2, stream_id: int) -> None:
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        http2.http2.send_headers(stream_id, headers)
        http2.http2.send_data(stream_id, b"\0" + len(message).to_bytes(4, "big") + message)
        http2.http2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
        for byte in http2.http2.data_to_send() + goaway(stream_id):
            await http2.send(bytes([byte]))

    async with raw_server(answering(answer)) as server, exporter_for(server.target) as exporter:
        assert await exporter.export(TRACES) == 3


async def test_ping_is_answered_while_a_call_waits() -> None:
    async def answer(http2: Http2, stream_id: int) -> None:
        http2.http2.ping(b"12345678")
        await http2.until(h2.events.PingAckReceived)
        await http2.answer(stream_id)

    async with raw_server(answering(answer)) as server, exporter_for(server.target) as exporter:
        assert await exporter.export(TRACES) == 0


async def test_small_windows_and_frames_are_respected() -> None:
    async def narrow(server: RawServer, stream: trio.SocketStream) -> None:
        http2 = Http2(server, stream)
        http2.http2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100}
        )
        await http2.start()
        await http2.answer(await http2.request())  # h2 ends the connection at one byte too many
        bodies.append(bytes(http2.body))

    bodies: list[bytes] = []
    async with raw_server(narrow) as server, exporter_for(server.target) as exporter:
        assert await exporter.export(TRACES) == 0
    assert bodies == [b"\0" + len(TRACES.body).to_bytes(4, "big") + TRACES.body]


async def test_refusal_before_the_whole_message_was_sent() -> None:
    async def refuse(server: RawServer, stream: trio.SocketStream) -> None:
        http2 = Http2(server, stream)
        await http2.start()
        begun = await http2.until(h2.events.RequestReceived)
        assert isinstance(begun, h2.events.RequestReceived)
        assert begun.stream_id is not None
        await http2.answer(begun.stream_id, status="8", content=b"")
        http2.http2.reset_stream(begun.stream_id, h2.errors.ErrorCodes.NO_ERROR)
        await http2.send()
        async for _ in stream:
            pass

    async with raw_server(refuse, healthy) as server, exporter_for(server.target) as exporter:
        with pytest.raises(Refused, match=r"^grpc RESOURCE_EXHAUSTED$"):
            await exporter.export(Batch("traces", bytes(2**20), 1))
        assert await exporter.export(TRACES) == 0


# Connections that end


async def test_connection_that_was_closed_meanwhile_costs_no_failure() -> None:
    async def once(http2: Http2, stream_id: int) -> None:
        await http2.answer(stream_id)

    async with raw_server(answering(once), healthy) as server, exporter_for(server.target) as e:
        for _ in range(3):
            assert await e.export(TRACES) == 0
    assert server.connections == 2


async def test_call_in_flight_is_finished_after_goaway() -> None:
    async def leave(http2: Http2, stream_id: int) -> None:
        http2.http2.ping(b"12345678")
        await http2.send(goaway(2**31 - 1))
        await http2.until(h2.events.PingAckReceived)
        await http2.send(goaway(stream_id))
        await http2.answer(stream_id)
        with pytest.raises(trio.EndOfChannel):
            await http2.request()
        left.set()

    left = trio.Event()
    async with raw_server(answering(leave), healthy) as server, exporter_for(server.target) as e:
        assert await e.export(TRACES) == 0
        await left.wait()
        assert await e.export(TRACES) == 0
    assert server.connections == 2
    assert server.received.count(TRACES.body) == 2


async def test_call_that_goaway_leaves_out_goes_over_a_new_connection() -> None:
    async def leave(http2: Http2, stream_id: int) -> None:
        await http2.answer(stream_id)
        await http2.request()
        await http2.send(goaway(stream_id))
        async for _ in http2.stream:
            pass

    async with raw_server(answering(leave), healthy) as server, exporter_for(server.target) as e:
        assert await e.export(TRACES) == 0
        assert await e.export(TRACES) == 0
    assert server.connections == 2


async def test_server_that_always_goes_away_is_retryable() -> None:
    async def leave(server: RawServer, stream: trio.SocketStream) -> None:
        http2 = Http2(server, stream)
        await http2.start()
        await http2.send(goaway(0, 11))
        await http2.request()

    async with raw_server(leave) as server, exporter_for(server.target, seconds=5) as exporter:
        with pytest.raises(Retryable, match=r"^connection lost$"):
            await exporter.export(TRACES)
    assert server.connections == 1


async def test_closing_tells_the_server() -> None:
    async def wait(http2: Http2, stream_id: int) -> None:
        await http2.answer(stream_id)
        with pytest.raises(trio.EndOfChannel):
            await http2.request()
        closed.set()

    closed = trio.Event()
    async with raw_server(answering(wait)) as server:
        async with exporter_for(server.target) as exporter:
            assert await exporter.export(TRACES) == 0
        await closed.wait()
