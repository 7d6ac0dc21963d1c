"""The OTLP/gRPC receiver of a running sidecar, called by the real grpcio."""

import gzip
from collections.abc import Iterator

import grpc
import h2.config
import h2.connection
import httpx2
import pytest
import trio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.receivers.otlp import OTLP_SIGNALS
from tests.captured import captures
from tests.process import SidecarProcess, sidecar_process

EXPORT = next(otlp.grpc_path for otlp in OTLP_SIGNALS if otlp.signal == "traces")
TRACES = next(body for otlp, body in captures() if otlp.signal == "traces")


@pytest.fixture
def channel(sidecar: SidecarProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(sidecar.grpc_target) as channel:
        yield channel


def refusal(channel: grpc.Channel, body: bytes, path: str = EXPORT) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(body, timeout=30)
    error: grpc.RpcError = caught.value
    return error


def test_every_service_answers(channel: grpc.Channel) -> None:
    for otlp in OTLP_SIGNALS:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            call = channel.unary_unary(otlp.grpc_path)
            answer = call(b"", compression=compression, timeout=30)
            assert otlp.response.FromString(answer) == otlp.response()


def test_gzip_and_deflate(channel: grpc.Channel) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        call = channel.unary_unary(
            EXPORT, response_deserializer=ExportTraceServiceResponse.FromString
        )
        assert call(TRACES, compression=compression, timeout=30) == ExportTraceServiceResponse()


def test_faults_are_status_codes(channel: grpc.Channel) -> None:
    assert refusal(channel, b"\xff\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(channel, bytes(2**24 + 1)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    unknown = refusal(channel, b"", "/opentelemetry.proto.collector.trace.v1.TraceService/Import")
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_bomb_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call = channel.unary_unary(EXPORT)
        call(bytes(2**25), compression=grpc.Compression.Gzip, timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_connection_survives_refusals_and_many_calls(channel: grpc.Channel) -> None:
    call = channel.unary_unary(EXPORT)
    for number in range(1500):
        if number % 500 == 0:
            refusal(channel, bytes(2**24 + 1))
        assert call(b"", timeout=30) == b""


def test_a_full_queue_says_when_to_come_back() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "SIDECAR_QUEUE_BYTES": "1024",
        "SIDECAR_DRAIN_SECONDS": "0",
    }
    with sidecar_process(environ) as sidecar, grpc.insecure_channel(sidecar.grpc_target) as channel:
        channel.unary_unary(EXPORT)(TRACES, timeout=30)
        error = refusal(channel, TRACES)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        status = Status.FromString(details)
        retry = RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.seconds > 0


def test_http_1_is_told_what_the_port_speaks(sidecar: SidecarProcess) -> None:
    answer = httpx2.post(f"http://{sidecar.grpc_target}{EXPORT}", content=TRACES)
    assert answer.status_code == 426
    assert "gRPC" in answer.text


async def raw_call(sidecar: SidecarProcess, body: bytes, **headers: str) -> dict[str, str]:
    """Send a body as it is; return the response's headers and trailers together."""
    host, port = sidecar.grpc_target.split(":")
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": EXPORT,
        ":authority": host,
        "content-type": "application/grpc",
        "te": "trailers",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection.send_headers(1, list(pairs.items()))
    for start in range(0, len(body), 2**14):
        connection.send_data(1, body[start : start + 2**14])
    connection.end_stream(1)
    seen: dict[str, str] = {}
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(connection.data_to_send())
            async for data in stream:
                for event in connection.receive_data(data):
                    seen.update(dict(getattr(event, "headers", None) or []))
                    if type(event).__name__ in {"StreamEnded", "StreamReset"}:
                        return seen
                await stream.send_all(connection.data_to_send())
    return seen


def frame(body: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (frame(TRACES), {}, 0),
        (b"", {}, 3),
        (b"\0\0\0", {}, 3),
        (frame(TRACES)[:-1], {}, 3),
        (frame(b"") + frame(b""), {}, 3),
        (frame(b"", 2), {}, 3),
        (frame(b"\0\0\0\0"), {}, 3),
        (b"\0\xff\xff\xff\xff", {}, 8),
        (frame(gzip.compress(TRACES), 1), {"grpc_encoding": "gzip"}, 0),
        (frame(TRACES, 1), {"grpc_encoding": "gzip"}, 3),
        (frame(TRACES, 1), {}, 3),
        (frame(TRACES, 1), {"grpc_encoding": "snappy"}, 12),
        (frame(gzip.compress(bytes(2**25)), 1), {"grpc_encoding": "gzip"}, 8),
    ],
)
async def test_malformed_frames(
    sidecar: SidecarProcess, body: bytes, headers: dict[str, str], status: int
) -> None:
    seen = await raw_call(sidecar, body, **headers)
    assert seen["grpc-status"] == str(status)
    assert ("grpc-message" in seen) == (status != 0)
