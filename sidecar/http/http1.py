"""An HTTP/1.1 server on Trio: a bound socket, a handler of exchanges, and a way to stop.

`sidecar.http.requests` reads what comes; here it is received, answered and timed. A connection is
one task: it has one request at a time, and reads on only when that has been answered or more of its
body is asked for.
"""

import functools
import math
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote

import trio

from sidecar import metrics
from sidecar.http.listening import serve_connections
from sidecar.http.messages import Disconnected, Headers, Request, Response, problem
from sidecar.http.requests import Incoming, RequestError, RequestParser

KEEP_ALIVE_SECONDS = 75.0
HEAD_SECONDS = 15.0
# What is read and thrown away of a body that its handler refused: a body up to this size keeps
# its connection; on any other the client is told to close it.
DRAIN_BYTES = 64 * 1024
# How long a client may take to read a refusal while it still sends: closing at once would reset
# the connection, and the refusal would be lost with it (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
# So often it is looked whether a client is late, or has gone while something is done for it.
_LOOK_SECONDS = 0.25
_READ_BYTES = 64 * 1024
# What a client may send of its next requests while it takes responses.
_AHEAD_BYTES = 64 * 1024
# A response up to this size goes in one with its head; a copy of a larger one would cost more.
_WHOLE_BYTES = 64 * 1024
# Linux tells of a client that has closed its side whatever is left to read (poll(2)).
_GONE = getattr(select, "POLLRDHUP", 0)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
# RFC 9110 section 6.4.1: responses that have no content whatever their head says.
_WITHOUT_BODY = frozenset({204, 304})

Handler = Callable[["Http1Exchange"], Awaitable[None]]


class Http1Exchange:
    """One request and its response; see `sidecar.http.messages.Exchange`.

    Attributes:
        request: as handlers see it.
        ended: whether the request's body has been read to its end; at first, whether it has none.
        status: of the response, 0 until it has begun.
        on_start: called with the status before the response is sent, so that who has it finds it
            counted.
        finished: whether the response is complete.
        ends_with_connection: whether only that tells where the body of the response ends.
    """

    def __init__(self, connection: "_Connection", incoming: Incoming) -> None:
        self._connection = connection
        self._incoming = incoming
        self._has_body = True
        self._chunked = False
        # How much of the body may be sent, if it is not chunked.
        self._left: float = 0
        self._body_ended: trio.Event | None = None
        self._continue = incoming.expects_continue
        self.ended = not incoming.has_body
        self.keep_alive = incoming.keep_alive
        self.status = 0
        self.on_start: Callable[[int], None] | None = None
        self.finished = False
        self.ends_with_connection = False
        self.request = Request(
            method=incoming.method,
            path=_decoded(incoming.path),
            query=incoming.query.decode("latin-1"),
            headers=_joined(incoming.headers),
            receive=self._receive_to_keep,
            raw_path=incoming.path,
            raw_headers=incoming.headers,
            client=connection.client,
        )

    async def receive(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end; raises `Disconnected`."""
        incoming, connection = self._incoming, self._connection
        while not self.ended:
            if piece := incoming.take():
                return piece
            if incoming.ended:
                self._end()
                break
            if self._continue:
                self._continue = False
                await connection.send(_CONTINUE)
            await connection.receive()
        return b""

    def whole(self) -> bytes | None:
        """Return what is left of the request's body if all of it has come, else None."""
        if not self.ended and not self._incoming.ended:
            return None
        self._end()
        return self._incoming.take()

    def _end(self) -> None:
        self.ended = True
        if self._body_ended is not None:
            self._body_ended.set()

    async def _receive_to_keep(self) -> bytes:
        piece = await self.receive()
        self.request.held.take(len(piece))
        return piece

    async def gone(self) -> None:
        """Return when the client has gone away; waits for the end of the request's body first."""
        if not self.ended:
            self._body_ended = trio.Event()
            await self._body_ended.wait()
        await self._connection.gone()

    def abandon(self) -> None:
        """Cancel what is done for the request, and close its connection."""
        self._connection.scope.cancel()

    async def respond(self, response: Response) -> None:
        """Send a whole response."""
        headers = [(k.lower().encode(), v.encode("latin-1")) for k, v in response.headers.items()]
        # RFC 9110 section 8.6: these have no content, so no length.
        if response.status >= 200 and response.status not in _WITHOUT_BODY:
            headers.append((b"content-length", b"%d" % len(response.body)))
        head, body = self._head(response.status, headers), response.body
        if not self._has_body:
            body = b""
        if len(body) <= _WHOLE_BYTES:
            await self._connection.send(head + body)
        else:
            await self._connection.send(head)
            await self._connection.send(body)
        await self._finish()

    async def start(self, status: int, headers: Headers, piece: bytes = b"") -> None:
        """Send the head of the response; without a ``Content-Length`` its body is chunked."""
        head, framed = self._head(status, headers), self._framed(piece)
        if len(framed) <= _WHOLE_BYTES:
            await self._connection.send(head + framed)
        else:
            await self._connection.send(head)
            await self._connection.send(framed)

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body; nothing when the response has none, as to ``HEAD``.

        Raises:
            Disconnected: the client went away.
            ValueError: it is more than the ``Content-Length`` of the response.
        """
        if framed := self._framed(piece):
            await self._connection.send(framed)
            await trio.lowlevel.checkpoint()

    def _framed(self, piece: bytes) -> bytes:
        if not self._has_body or not piece:
            return b""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(piece), piece)
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError("The response is longer than it says.")
        return piece

    async def finish(self) -> None:
        """Say that the response is complete, then take what is left of the request's body."""
        if self._chunked:
            await self._connection.send(b"0\r\n\r\n")
        elif self._has_body and 0 < self._left < math.inf:
            return  # only the end of the connection tells the client that it is not
        await self._finish()

    async def _finish(self) -> None:
        if not self.ended:
            self._continue = False  # it is too late for that
            # The client has the whole response now, and may stop sending.
            with trio.move_on_after(LINGER_SECONDS):
                try:
                    while await self.receive():
                        pass
                except Disconnected:
                    self.keep_alive = False
                except RequestError:
                    self.keep_alive = False
                    await self._connection.linger()
        self.finished = True

    def _head(self, status: int, headers: Headers) -> bytes:
        self.status = status
        if not self.ended and (self._continue or not _is_short(self.request)):
            self.keep_alive = False
        framed = dated = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            if name == b"content-length":
                framed, self._left = True, int(value)
            dated = dated or name == b"date"
            lines.append(b"%b: %b\r\n" % (name, value))
        if not dated:
            lines.append(_date(int(time.time())))
        self._has_body = self.request.method != "HEAD" and status not in _WITHOUT_BODY
        if self._has_body and not framed:
            self._chunked = self._incoming.is_1_1
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.ends_with_connection = True
                self.keep_alive = False
                self._left = math.inf
        if not self.keep_alive or self._connection.is_last:
            self.keep_alive = False
            lines.append(b"connection: close\r\n")
        elif not self._incoming.is_1_1:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # Nothing in it may be read as another line.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            self.status = 0
            raise ValueError("A header of the response is not allowed in it.")
        if self.on_start is not None:
            self.on_start(status)
        return head


class _Connection:
    """One connection.

    Args:
        sock: does not block.
        client: the address of the client.
        handler: as that of `serve`.

    Attributes:
        client: the address of the client.
        is_last: whether the request that is being answered is the last one.
        scope: of all that is done but to refuse what the client sent.
        working_since: when the request came that is being answered; None while one is waited for.
        deadline: until when it is waited for; infinite while one is answered.
    """

    def __init__(self, sock: socket.socket, client: str, handler: Handler):
        self._socket = sock
        self._handler = handler
        self._parser = RequestParser()
        self.client = client
        self.is_last = False
        self.scope = trio.CancelScope()
        self.working_since: float | None = None
        self.deadline = math.inf
        self._ended = False
        self._ahead_bytes = 0

    async def run(self) -> None:
        """Answer one request after the other, until there are no more."""
        try:
            with self.scope:
                await self._answer_all()
            if self._is_late():
                raise RequestError(408, "The head of the request did not arrive in time.")
        except Disconnected:
            pass
        except RequestError as error:
            await self._refuse(error)

    def _is_late(self) -> bool:
        waited = self.scope.cancelled_caught and self.working_since is None
        return waited and not self._parser.is_idle and not self.is_last

    async def _answer_all(self) -> None:
        while not self.is_last and (incoming := await self._next()):
            self.working_since = trio.current_time()
            exchange = Http1Exchange(self, incoming)
            try:
                await self._handler(exchange)
            finally:
                if exchange.ends_with_connection and not exchange.finished:
                    # Nothing else tells the client that this is not its end (RFC 9112 section 8).
                    reset = struct.pack("ii", 1, 0)
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            if not (exchange.finished and exchange.ended and exchange.keep_alive):
                return
            # They refer to each other, and would wait for a collection together.
            del exchange.request
            self.working_since = None

    async def _next(self) -> Incoming | None:
        """Return the next request; None: there is none."""
        parser, begun = self._parser, False
        if incoming := parser.next():
            await trio.lowlevel.checkpoint()
            return incoming
        self._ahead_bytes = 0
        self.deadline = trio.current_time() + KEEP_ALIVE_SECONDS
        while parser.error is None:
            if not begun and not parser.is_idle:
                begun = True
                self.deadline = trio.current_time() + HEAD_SECONDS
            data = await self._receive_some()
            if not data:
                return None
            parser.feed(data)
            if incoming := parser.next():
                self.deadline = math.inf
                return incoming
        raise parser.error

    async def _refuse(self, error: RequestError) -> None:
        """Say what is wrong with what the client sent, and give it time to read that."""
        metrics.HTTP_REQUESTS.labels("other", "other", error.status).inc()
        response = problem(error)
        lines = [_STATUS_LINES[error.status], b"connection: close\r\n", _date(int(time.time()))]
        lines += [b"%b: %b\r\n" % (k.encode(), v.encode()) for k, v in response.headers.items()]
        lines.append(b"content-length: %d\r\n\r\n" % len(response.body))
        with trio.move_on_after(LINGER_SECONDS):
            with suppress(Disconnected):
                await self.send(b"".join(lines) + response.body)
                await self.linger()

    async def linger(self) -> None:
        """Say that nothing more is said, and wait until the client has heard it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while await self._receive_some():
                pass

    async def receive(self) -> None:
        """Receive more of the body that is being read; raises `Disconnected`, `RequestError`."""
        if self._parser.error is not None:
            raise self._parser.error
        data = await self._receive_some()
        if not data:
            raise Disconnected
        self._parser.feed(data)

    async def _receive_some(self) -> bytes:
        while not self._ended:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            self._ended = not data
            return data
        return b""

    async def gone(self) -> None:
        """Return when the client has gone away."""
        while self._ahead_bytes <= _AHEAD_BYTES:
            if not (data := await self._receive_some()):
                return
            self._parser.feed(data)
            self._ahead_bytes += len(data)
        await trio.sleep_forever()  # `_look` looks after it

    async def send(self, data: bytes) -> None:
        """Send bytes; raises `Disconnected` when the client has gone, or takes nothing.

        This is a checkpoint only where the client has to be waited for.
        """
        left = memoryview(data)
        while True:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                pass
            except OSError:
                raise Disconnected from None
            if not left:
                return
            await trio.lowlevel.wait_writable(self._socket)

    @property
    def descriptor(self) -> int:
        """The file descriptor of the socket, -1 once it is closed."""
        return self._socket.fileno()


def _decoded(path: bytes) -> str:
    text = path.decode("latin-1")
    return unquote(text) if "%" in text else text


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _is_short(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdecimal() and len(length) < 10 and int(length) <= DRAIN_BYTES


@functools.lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


async def serve(
    handler: Handler,
    sock: socket.socket,
    *,
    stopping: trio.Event,
    grace_seconds: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 until ``stopping`` is set.

    Then nothing new is accepted, idle connections are closed at once, requests in flight have
    ``grace_seconds`` to complete, and this returns when the last one has.

    Args:
        handler: answers an exchange. It raises `Disconnected`, and nothing else.
        sock: listening, from `bind`; closed at the end.
        stopping: set by the caller.
        grace_seconds: the most seconds to wait for what is in flight.
        task_status: started when connections are accepted.
    """
    connections: set[_Connection] = set()

    async def connection(accepted: socket.socket, client: str) -> None:
        one = _Connection(accepted, client, handler)
        one.is_last = stopping.is_set()
        connections.add(one)
        try:
            await one.run()
        finally:
            connections.remove(one)

    async def wind_up() -> None:
        for one in connections:
            one.is_last = True
            if one.working_since is None:
                one.scope.cancel()

    async with trio.open_nursery() as looking:
        looking.start_soon(_look, connections)
        await serve_connections(
            connection,
            sock,
            stopping=stopping,
            wind_up=wind_up,
            grace_seconds=grace_seconds,
            task_status=task_status,
        )
        looking.cancel_scope.cancel()


async def _look(connections: set[_Connection]) -> None:
    """Cancel what is being done for clients that are late, or have gone."""
    while True:
        await trio.sleep(_LOOK_SECONDS)
        now = trio.current_time()
        poll, scopes = select.poll(), {}
        for one in connections:
            if one.deadline < now:
                one.scope.cancel()
            elif one.working_since is not None and one.working_since < now - _LOOK_SECONDS:
                poll.register(one.descriptor, _GONE)
                scopes[one.descriptor] = one.scope
        for descriptor, _ in poll.poll(0) if scopes else ():
            scopes[descriptor].cancel()
