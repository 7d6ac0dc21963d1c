"""Hypercorn on Trio: a bound socket, an ASGI application, and a way to stop.

This runs Hypercorn's connections rather than its whole worker, for two reasons. The worker lets an
exception of one connection (a non-ASCII path over HTTP/2, data on a stream that was answered
early) end the server with all its connections. And it sends shielded from cancellation, so a
client that stops reading would hold up the stop for ever.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from sidecar.http.asgi import ASGIApp

_log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 75.0
# How long the kernel waits for a client to take a response off the wire (RFC 5482).
SEND_SECONDS = 60.0
_BACKLOG = 1024
# On one socket. Others wait in the backlog, and for a bounded time: an idle connection has
# `KEEP_ALIVE_SECONDS`, and so has the head of a request; its body and the response have their own.
_MAX_CONNECTIONS = 1000


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: a name or an address; IPv6 with or without brackets.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken, not allowed, or the host is not one of this machine.
    """
    host = host.removeprefix("[").removesuffix("]")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; an accepted socket inherits it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_SECONDS * 1000))
        sock.bind(address)
        # Listening from here on, so that a taken port shows before anything else starts.
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    # At this number Hypercorn answers what is in flight on an HTTP/2 connection with an error.
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = 64 * 1024
    config.h2_max_concurrent_streams = 128
    config.include_server_header = False
    # The application sets it, unless it passes a response on that has one.
    config.include_date_header = False
    # Its records quote paths, and tracebacks quote payloads.
    config.accesslog = None
    config.errorlog = None
    return config


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    *,
    stopping: trio.Event,
    grace_seconds: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and HTTP/2 (prior knowledge or upgrade, no TLS) until ``stopping`` is set.

    Then nothing new is accepted, idle connections are closed at once, requests in flight have
    ``grace_seconds`` to complete, and this returns when the last one has.

    Args:
        app: an ASGI 3 application. Its lifespan is not run: what it needs, the caller owns.
        sock: listening, from `bind`; closed at the end.
        stopping: set by the caller.
        grace_seconds: the most seconds to wait for what is in flight.
        task_status: started when connections are accepted.
    """
    context = WorkerContext(None)
    connections = _Connections()
    server = partial(
        _Connection, ASGIWrapper(cast(ASGIFramework, app)), _config(), context, ConnectionState({})
    )

    async def connection(stream: trio.SocketStream) -> None:
        with connections.removing(stream):
            try:
                await server(cast(trio.SSLStream[trio.SocketStream], stream))
            except Exception as error:
                _log.warning("connection_failed", error=type(error).__name__)

    listener = _Listener(trio.SocketListener(trio.socket.from_stdlib_socket(sock)), connections)
    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as accepting:
                await accepting.start(
                    partial(trio.serve_listeners, connection, [listener], handler_nursery=nursery)
                )
                task_status.started()
                await stopping.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            with trio.move_on_after(grace_seconds):
                await connections.wait_until_fewer(1)
        finally:
            connections.close()
            nursery.cancel_scope.cancel()


class _Connection(TCPServer):
    async def _read_data(self) -> None:
        await super()._read_data()
        # It would be there until the timeout: each connection that its client has closed while
        # it was idle, for 75 seconds.
        await self.idle_task.stop()


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """Accepts while there is room for another connection."""

    def __init__(self, listener: trio.SocketListener, connections: "_Connections") -> None:
        self._listener = listener
        self._connections = connections

    async def accept(self) -> trio.SocketStream:
        await self._connections.wait_until_fewer(_MAX_CONNECTIONS)
        stream = await self._listener.accept()
        # Here, for the next one is waited for before the task of this one has begun.
        self._connections.add(stream)
        return stream

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Connections:
    """The streams that are open."""

    def __init__(self) -> None:
        self._streams: set[trio.SocketStream] = set()
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)

    @contextmanager
    def removing(self, stream: trio.SocketStream) -> Iterator[None]:
        try:
            yield
        finally:
            self._streams.discard(stream)
            self._changed.unpark_all()

    async def wait_until_fewer(self, count: int) -> None:
        while len(self._streams) >= count:
            await self._changed.park()

    def close(self) -> None:
        """Close the sockets, which wakes even a send that is shielded from cancellation."""
        for stream in self._streams:
            stream.socket.close()
