"""HTTP/2 by Hypercorn on Trio: a bound socket, an ASGI application, and a way to stop.

This runs Hypercorn's connections rather than its whole worker, for two reasons. The worker lets an
exception of one connection (a non-ASCII path over HTTP/2, data on a stream that was answered
early) end the server with all its connections. And it sends shielded from cancellation, so a
client that stops reading would hold up the stop for ever.
"""

import socket
import sys
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
from sidecar.http.listening import serve_connections

_log = structlog.get_logger(__name__)

_KEEP_ALIVE_SECONDS = 75.0


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    # At this number Hypercorn answers what is in flight on an HTTP/2 connection with an error.
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = 64 * 1024
    config.h2_max_concurrent_streams = 128
    config.include_server_header = False
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
    server = partial(
        _Connection, ASGIWrapper(cast(ASGIFramework, app)), _config(), context, ConnectionState({})
    )

    async def connection(accepted: socket.socket, _: str) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_close_in_the_end, stream)
            try:
                await server(cast(trio.SSLStream[trio.SocketStream], stream))
            except Exception as error:
                _log.warning("connection_failed", error=type(error).__name__)
            nursery.cancel_scope.cancel()

    await serve_connections(
        connection,
        sock,
        stopping=stopping,
        wind_up=context.terminated.set,
        grace_seconds=grace_seconds,
        task_status=task_status,
    )


async def _close_in_the_end(stream: trio.SocketStream) -> None:
    """Close the socket when cancelled, which wakes even a send that is shielded from that."""
    try:
        await trio.sleep_forever()
    finally:
        stream.socket.close()


class _Connection(TCPServer):
    async def _read_data(self) -> None:
        await super()._read_data()
        # It would be there until the timeout: each connection that its client has closed while
        # it was idle, for 75 seconds.
        await self.idle_task.stop()
