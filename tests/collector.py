"""A receiving stub: an OTLP/HTTP collector and a Loki on one real socket.

It records what it gets and answers as it is told, also in ways in which no server should.
"""

import gzip
import math
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import msgspec
import trio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

NEVER = math.inf
LOKI_PATH = "/loki/api/v1/push"
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Received(msgspec.Struct, frozen=True):
    """One request; its body is decompressed."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer.

    Attributes:
        delay: seconds before the answer, or `NEVER`.
        reset: reset the connection in place of an answer.
        raw: bytes to send in place of an HTTP response, after which the connection is closed.
    """

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    delay: float = 0.0
    reset: bool = False
    raw: bytes | None = None


def accept(request: Received) -> Answer:
    """Answer as a collector or a Loki that takes everything."""
    if request.path == LOKI_PATH:
        return Answer(status=204)
    return Answer(headers={"content-type": "application/x-protobuf"})


class Collector:
    """The stub while it runs.

    Attributes:
        url: without a path.
        requests: all so far, those answered with an error too.
        answers: for the next requests, one each.
        decide: answers the others.
        connections: how many were opened.
    """

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.requests: list[Received] = []
        self.answers: deque[Answer] = deque()
        self.decide: Callable[[Received], Answer] = accept
        self.connections = 0
        self._arrived = trio.lowlevel.ParkingLot()

    def bodies(self, path: str) -> list[bytes]:
        """Return the bodies that came in at a path, refused ones too."""
        return [request.body for request in self.requests if request.path == path]

    def traces(self) -> ExportTraceServiceRequest:
        """Return all traces that came in as one request."""
        return ExportTraceServiceRequest.FromString(b"".join(self.bodies("/v1/traces")))

    def metrics(self) -> ExportMetricsServiceRequest:
        """Return all metrics that came in as one request."""
        return ExportMetricsServiceRequest.FromString(b"".join(self.bodies("/v1/metrics")))

    def logs(self) -> ExportLogsServiceRequest:
        """Return all logs that came in as one request."""
        return ExportLogsServiceRequest.FromString(b"".join(self.bodies("/v1/logs")))

    def loki_streams(self) -> list[dict[str, Any]]:
        """Return the streams of all pushes."""
        pushes = [msgspec.json.decode(body) for body in self.bodies(LOKI_PATH)]
        return [stream for push in pushes for stream in push["streams"]]

    async def received(self, count: int, seconds: float = 10.0) -> list[Received]:
        """Wait until that many requests have come; raises `trio.TooSlowError`."""
        with trio.fail_after(seconds):
            while len(self.requests) < count:
                await self._arrived.park()
        return self.requests

    async def serve(self, stream: Stream) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._serve_one(stream, connection):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, h11.ProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_one(self, stream: Stream, connection: h11.Connection) -> bool:
        request = await _receive(stream, connection)
        if request is None:
            return False
        answer = self.answers.popleft() if self.answers else self.decide(request)
        self.requests.append(request)
        self._arrived.unpark_all()
        await trio.sleep(answer.delay)
        if answer.reset:
            tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if answer.raw is not None:
            await stream.send_all(answer.raw)
            return False
        headers = list(answer.headers.items())
        if answer.status != 204:
            headers.append(("content-length", str(len(answer.body))))
        response = h11.Response(status_code=answer.status, headers=headers)
        await stream.send_all(connection.send(response) or b"")
        if answer.body:
            await stream.send_all(connection.send(h11.Data(answer.body)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return connection.our_state is h11.DONE


async def _receive(stream: Stream, connection: h11.Connection) -> Received | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode() for name, value in head.headers}
            zipped = headers.get("content-encoding") == "gzip"
            content = gzip.decompress(body) if zipped else bytes(body)
            return Received(head.method.decode(), head.target.decode(), headers, content)
        else:
            return None


@asynccontextmanager
async def open_collector(
    port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Collector]:
    """Serve a stub on 127.0.0.1, on a free port unless one is given, until the block ends."""
    [tcp] = await trio.open_tcp_listeners(port, host="127.0.0.1")
    collector = Collector(tcp.socket.getsockname()[1], "https" if tls else "http")
    async with trio.open_nursery() as nursery:
        if tls:
            listener = trio.SSLListener(tcp, tls, https_compatible=True)
            nursery.start_soon(trio.serve_listeners, collector.serve, [listener])
        else:
            nursery.start_soon(trio.serve_listeners, collector.serve, [tcp])
        yield collector
        nursery.cancel_scope.cancel()


async def unused_port() -> int:
    """Return a port on which nothing listens."""
    async with open_collector() as collector:
        return collector.port
