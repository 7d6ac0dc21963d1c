"""The OTLP/gRPC receiver: unary calls over HTTP/2, as an ASGI application with trailers.

The protocol is https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md; which status says
what to an OTLP client is https://opentelemetry.io/docs/specs/otlp/#failures.
"""

import base64
import time
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import trio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from sidecar import metrics
from sidecar.http.asgi import Receive, Scope, Send
from sidecar.http.body import READ_SECONDS, decompress
from sidecar.http.failures import log_failure
from sidecar.http.messages import Disconnected, HTTPError
from sidecar.pipeline.queue import QueueFull
from sidecar.pressure import Held, Overloaded, Pressure
from sidecar.receivers.intake import QUEUE_FULL, STOPPING, Intake, StoppingError
from sidecar.receivers.otlp import (
    OTLP_SIGNALS,
    MalformedError,
    protobuf_as_it_is,
    response,
)
from sidecar.work import work

_FRAME_HEAD = 5  # one byte: compressed or not; four: the length, big-endian
_DRAIN_SECONDS = 2.0
_MEDIA_TYPES = {b"application/grpc", b"application/grpc+proto"}
_ENCODINGS = ("identity", "gzip", "deflate")
_SIGNALS = {otlp.grpc_path: otlp for otlp in OTLP_SIGNALS}


class GrpcError(Exception):
    """The call fails with this status.

    Args:
        code: one of ``google.rpc.Code``.
        detail: one sentence for the client; never a piece of its payload.
        retry_after: seconds after which the same call may succeed, None when it never will.
    """

    def __init__(self, code: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


class _Body:
    """What a client sends in one call."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> bytes:
        """Return the next piece; raises `Disconnected`."""
        event = await self._receive()
        self.ended = not event.get("more_body", False)
        if event["type"] == "http.disconnect":
            raise Disconnected
        return bytes(event.get("body", b""))

    async def drain(self) -> None:
        """Throw away what still comes of a call that is refused.

        The server ends the whole connection, with all other calls on it, when data arrives for a
        stream that it has closed.
        """
        with trio.move_on_after(_DRAIN_SECONDS):
            while not self.ended:
                await self.receive()


class GrpcReceiver:
    """The ASGI application behind the gRPC port.

    Args:
        intake: takes the decoded requests.
        max_body_bytes: the bound of a message, compressed and decompressed.
        pressure: bounds what all messages take together.
    """

    def __init__(self, intake: Intake, max_body_bytes: int, pressure: Pressure) -> None:
        self._intake = intake
        self._pressure = pressure
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        body = _Body(receive)
        kind = headers.get("content-type", b"").partition(b";")[0].strip()
        if scope["http_version"] != "2" or scope["method"] != "POST" or kind not in _MEDIA_TYPES:
            await _not_grpc(scope, body, send)
            return
        started = time.perf_counter()
        try:
            code, frame, trailers = code_pb2.OK, await self._call(scope, headers, body), []
        except Disconnected:
            return
        except GrpcError as error:
            code, frame, trailers = error.code, b"", _error_trailers(error)
        except Exception as error:
            log_failure(error)
            code, frame, trailers = code_pb2.INTERNAL, b"", []
        try:
            await body.drain()
        except Disconnected:
            return
        route = scope["path"] if scope["path"] in _SIGNALS else "other"
        # Counted before it is sent, so that who has the answer finds it counted.
        metrics.HTTP_REQUESTS.labels(route, "POST", code_pb2.Code.Name(code)).inc()
        metrics.HTTP_SECONDS.labels(route).observe(time.perf_counter() - started)
        await _respond(send, frame, [(b"grpc-status", b"%d" % code), *trailers])

    async def _call(self, scope: Scope, headers: dict[str, bytes], stream: _Body) -> bytes:
        otlp = _SIGNALS.get(scope["path"])
        if otlp is None:
            raise GrpcError(code_pb2.UNIMPLEMENTED, "There is no such method here.")
        try:
            with Held(self._pressure) as held, self._intake.admitted(held):
                message = await self._read(headers, stream, held)
                failed = await self._intake.otlp(otlp, message, protobuf_as_it_is, "grpc", held)
        except MalformedError as error:
            raise GrpcError(code_pb2.INVALID_ARGUMENT, str(error)) from None
        except QueueFull as error:
            retry_after = error.retry_after_seconds
            raise GrpcError(code_pb2.RESOURCE_EXHAUSTED, QUEUE_FULL, retry_after) from None
        except Overloaded as error:
            retry_after = error.retry_after_seconds
            raise GrpcError(code_pb2.RESOURCE_EXHAUSTED, str(error), retry_after) from None
        except StoppingError as error:
            raise GrpcError(code_pb2.UNAVAILABLE, STOPPING, error.retry_after_seconds) from None
        body = response(otlp, failed).SerializeToString()
        return b"\0" + len(body).to_bytes(4, "big") + body

    async def _read(self, headers: dict[str, bytes], stream: _Body, held: Held) -> bytes:
        """Read the one message of a call."""
        data = bytearray()
        announced = 0
        deadline = trio.current_time() + READ_SECONDS
        while not stream.ended:
            with trio.CancelScope(deadline=deadline) as waiting:
                piece = await stream.receive()
                held.take(len(piece))
                data += piece
            if waiting.cancelled_caught:
                raise GrpcError(code_pb2.DEADLINE_EXCEEDED, "The message did not arrive in time.")
            announced = int.from_bytes(data[1:_FRAME_HEAD], "big")
            if max(announced, len(data) - _FRAME_HEAD) > self._limit:
                raise GrpcError(
                    code_pb2.RESOURCE_EXHAUSTED,
                    f"The message is larger than {self._limit} bytes.",
                )
        if len(data) < _FRAME_HEAD or len(data) - _FRAME_HEAD != announced or data[0] > 1:
            raise MalformedError("The call does not hold exactly one message.")
        body = bytes(memoryview(data)[_FRAME_HEAD:])
        if data[0]:
            # What it decompresses to is known afterwards; a body may well be ten times as large.
            body = await work(10 * len(body), partial(self._decompress, headers, body))
            held.take(len(body))
        return body

    def _decompress(self, headers: dict[str, bytes], body: bytes) -> bytes:
        coding = headers.get("grpc-encoding", b"identity").decode("latin-1").lower()
        if coding == "identity":
            raise MalformedError("The message is marked as compressed, but names no grpc-encoding.")
        if coding not in _ENCODINGS:
            raise GrpcError(
                code_pb2.UNIMPLEMENTED, f"Use one of {', '.join(_ENCODINGS)} as encoding."
            )
        try:
            return decompress(body, coding, self._limit)
        except HTTPError as error:
            code = code_pb2.RESOURCE_EXHAUSTED if error.status == 413 else code_pb2.INVALID_ARGUMENT
            raise GrpcError(code, error.detail) from None


def _error_trailers(error: GrpcError) -> list[tuple[bytes, bytes]]:
    trailers = [(b"grpc-message", quote(error.detail, safe=" ,;:.()/").encode())]
    if error.retry_after is not None:
        info = RetryInfo()
        info.retry_delay.seconds = error.retry_after
        detail = AnyMessage()
        detail.Pack(info)
        status = Status(code=error.code, message=error.detail, details=[detail])
        # Binary metadata is base64 without padding.
        encoded = base64.b64encode(status.SerializeToString()).rstrip(b"=")
        trailers.append((b"grpc-status-details-bin", encoded))
    return trailers


async def _respond(send: Send, frame: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    headers = [
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", ",".join(_ENCODINGS).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": frame, "more_body": False})
    await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})


async def _not_grpc(scope: Scope, body: _Body, send: Send) -> None:
    """Tell a client of another protocol that it has the wrong port."""
    http2 = scope["http_version"] == "2"
    if http2:
        with suppress(Disconnected):
            await body.drain()
    status, text = (415, b"") if http2 else (426, b"This port speaks gRPC over HTTP/2.\n")
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
    if not http2:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})
