"""Sockets that listen, and how many connections they take."""

import socket
from collections.abc import Awaitable, Callable

import trio

# How long the kernel waits for a client to take a response off the wire (RFC 5482).
SEND_SECONDS = 60.0
_BACKLOG = 1024
# On one socket. Others wait in the backlog, and for a bounded time: every wait for a client has a
# limit of its own.
MAX_CONNECTIONS = 1000
_RETRY_SECONDS = 0.1


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


async def serve_connections(
    serve: Callable[[socket.socket, str], Awaitable[None]],
    sock: socket.socket,
    *,
    stopping: trio.Event,
    wind_up: Callable[[], Awaitable[None]],
    grace_seconds: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve connections until ``stopping`` is set, and then those that are there until they end.

    Args:
        serve: serves one connection: a socket that does not block, which is closed when it returns,
            and the address of the client. It raises nothing.
        sock: listening, from `bind`; closed at the stop.
        stopping: set by the caller.
        wind_up: called at the stop, to have connections end that wait for nothing.
        grace_seconds: after which those that are still there are cancelled.
        task_status: started when connections are accepted.
    """
    places = trio.Semaphore(MAX_CONNECTIONS)

    async def connection(accepted: socket.socket, client: str) -> None:
        try:
            with accepted:
                await serve(accepted, client)
        finally:
            places.release()

    async with trio.open_nursery() as connections:
        with sock:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(_accept_all, sock, places, connections, connection)
                task_status.started()
                await stopping.wait()
                accepting.cancel_scope.cancel()
        await wind_up()
        connections.cancel_scope.deadline = trio.current_time() + grace_seconds


async def _accept_all(
    sock: socket.socket,
    places: trio.Semaphore,
    connections: trio.Nursery,
    connection: Callable[[socket.socket, str], Awaitable[None]],
) -> None:
    """Accept while there is a place for another connection, which whoever serves it gives back."""
    while True:
        await places.acquire()
        accepted, client = await _accept(sock)
        accepted.setblocking(False)
        connections.start_soon(connection, accepted, client)


async def _accept(sock: socket.socket) -> tuple[socket.socket, str]:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            accepted, address = sock.accept()
        except BlockingIOError:  # it has gone again
            pass
        except OSError:  # so has another one, or the process has as many files open as it may
            await trio.sleep(_RETRY_SECONDS)
        else:
            return accepted, str(address[0])
