"""Sockets that listen, and how many connections they take."""

import socket

import trio

# How long the kernel waits for a client to take a response off the wire (RFC 5482).
SEND_SECONDS = 60.0
_BACKLOG = 1024
# On one socket. Others wait in the backlog, and for a bounded time: every wait for a client has a
# limit of its own.
MAX_CONNECTIONS = 1000


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


class Listener(trio.abc.Listener[trio.SocketStream]):
    """Accepts while there is a place for another connection, which whoever serves it gives back."""

    def __init__(self, sock: socket.socket, places: trio.Semaphore) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._places = places

    async def accept(self) -> trio.SocketStream:
        """Wait for a place, then for a connection."""
        await self._places.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._places.release()
            raise

    async def aclose(self) -> None:
        """Close the socket."""
        await self._listener.aclose()
