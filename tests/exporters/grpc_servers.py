"""Two servers for the OTLP/gRPC exporter: the real one, and one that misbehaves on request."""

import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import msgspec
import trio


class Call(msgspec.Struct, frozen=True):
    """One call that the real server got; its message is decompressed."""

    path: str
    message: bytes
    metadata: dict[str, str | bytes]
    peer: str


class Reaction(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer.

    Attributes:
        code: the status.
        details: ``grpc-status-details-bin``, when there are any.
        message: the answer of a call that succeeds.
        never: wait for the client to go away in place of an answer.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: bytes = b""
    message: bytes = b""
    never: bool = False


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The real server while it runs.

    Attributes:
        target: its host and port.
        calls: all so far.
        reactions: for the next calls, one each; the others are taken.
        abandoned: is set when a client goes away.
    """

    def __init__(self) -> None:
        self.target = ""
        self.calls: list[Call] = []
        self.reactions: queue.SimpleQueue[Reaction] = queue.SimpleQueue()
        self.abandoned = threading.Event()
        self.reached = threading.Event()

    def service(self, details: Any) -> Any:
        """Answer each method in the same way."""

        def react(message: bytes, context: Any) -> bytes:
            metadata = {item.key: item.value for item in details.invocation_metadata}
            self.calls.append(Call(details.method, message, metadata, context.peer()))
            reaction = Reaction() if self.reactions.empty() else self.reactions.get()
            self.reached.set()
            if reaction.never:
                context.add_callback(self.abandoned.set)
                self.abandoned.wait()
            if reaction.details:
                context.set_trailing_metadata((("grpc-status-details-bin", reaction.details),))
            context.set_code(reaction.code)
            context.set_details("secret words")
            return reaction.message

        return grpc.unary_unary_rpc_method_handler(react)


@contextmanager
def grpc_server(
    target: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[GrpcServer]:
    """Run grpcio's server, on a free port unless a target is given, until the block ends."""
    handler = GrpcServer()
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(
            pool,
            handlers=(handler,),
            options=[("grpc.max_receive_message_length", 2**26), ("grpc.so_reuseport", 0)],
        )
        if credentials is None:
            port = server.add_insecure_port(target)
        else:
            port = server.add_secure_port(target, credentials)
        handler.target = f"127.0.0.1:{port}"
        server.start()
        try:
            yield handler
        finally:
            handler.abandoned.set()
            server.stop(0).wait()


class RawServer:
    """A socket server whose answers a test writes itself.

    Attributes:
        target: its host and port.
        connections: how many were opened.
        received: every byte that came.
    """

    def __init__(self, port: int) -> None:
        self.target = f"127.0.0.1:{port}"
        self.connections = 0
        self.received = bytearray()


class Http2:
    """The server's side of one connection, over h2."""

    def __init__(self, server: RawServer, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.body = bytearray()
        self.headers: dict[bytes, bytes] = {}
        self._server = server
        self._events: list[h2.events.Event] = []

    async def start(self) -> None:
        """Send the settings."""
        self.http2.initiate_connection()
        await self.send()

    async def send(self, raw: bytes = b"") -> None:
        """Send what h2 has to, then raw bytes."""
        await self.stream.send_all(self.http2.data_to_send() + raw)

    async def until(self, kind: type[h2.events.Event]) -> h2.events.Event:
        """Receive up to an event; raises `trio.EndOfChannel` when the client goes away."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, h2.events.RequestReceived):
                    self.headers = dict(event.headers)
                if isinstance(event, h2.events.DataReceived):
                    self.body += event.data
                    self.http2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                if isinstance(event, kind):
                    return event
            await self.send()
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._server.received += data
            self._events += self.http2.receive_data(data)

    async def request(self) -> int:
        """Receive one whole request; return its stream's number."""
        ended = await self.until(h2.events.StreamEnded)
        assert isinstance(ended, h2.events.StreamEnded)
        assert ended.stream_id is not None
        return ended.stream_id

    async def answer(
        self, stream_id: int, *, status: str = "0", content: bytes = b"\0\0\0\0\0"
    ) -> None:
        """Answer a request as a gRPC server does."""
        http2 = self.http2
        http2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        while content:
            room = min(http2.local_flow_control_window(stream_id), http2.max_outbound_frame_size)
            if room:
                http2.send_data(stream_id, content[:room])
                content = content[room:]
                await self.send()
            else:
                await self.until(h2.events.WindowUpdated)
        http2.send_headers(stream_id, [("grpc-status", status)], end_stream=True)
        await self.send()


Script = Callable[[RawServer, trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def raw_server(*scripts: Script) -> AsyncIterator[RawServer]:
    """Serve each connection by the next script, further ones by the last, until the block ends."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = RawServer(listener.socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        script = scripts[min(server.connections, len(scripts) - 1)]
        server.connections += 1
        async with stream:
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                await script(server, stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def healthy(server: RawServer, stream: trio.SocketStream) -> None:
    """Take every call."""
    http2 = Http2(server, stream)
    await http2.start()
    while True:
        await http2.answer(await http2.request())


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (https://www.rfc-editor.org/rfc/rfc9113#name-frame-format)."""
    head = len(payload).to_bytes(3) + bytes([kind, flags])
    return head + stream_id.to_bytes(4) + payload


def goaway(last_stream_id: int, error_code: int = 0) -> bytes:
    """Return the frame that says that the connection will be closed."""
    return frame(7, 0, 0, last_stream_id.to_bytes(4) + error_code.to_bytes(4))
