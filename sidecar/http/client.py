"""An HTTP/1.1 client for one origin: kept connections, streaming both ways, every wait bounded.

It goes to the origin and nowhere else: no proxies of the environment, no redirects, no cookies, and
what comes back is as it was sent. `sidecar.http.responses` reads it.
"""

import select
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import trio

from sidecar.http.messages import Headers
from sidecar.http.responses import CutError, ProtocolError, ResponseParser

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Failure = Literal["connect", "tls", "timeout", "protocol", "cut", "busy"]

_READ_BYTES = 64 * 1024
# A body up to this size goes with its head, in one; of a larger one the response may come before
# its end.
_WHOLE_BYTES = 64 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 9110 section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class ClientError(Exception):
    """There is no response, or no end of it.

    Attributes:
        failure: ``connect``, ``tls``: there is no connection; ``timeout``: a wait was over;
            ``protocol``: what came is no HTTP; ``cut``: the connection was closed before the end;
            ``busy``: there are as many calls as there may be.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class Waits(msgspec.Struct, frozen=True):
    """The longest waits, in seconds.

    Attributes:
        connect: for a place among the calls, and for a connection.
        head: from the end of the request to the head of the response.
        idle: for the next piece of a body to go or to come.
    """

    connect: float
    head: float
    idle: float


class ClientResponse:
    """A response whose head has come; its body is what iterating over it gives, piece by piece.

    Attributes:
        status: 200 to 599.
        headers: names in lower case and values, in their order.
    """

    def __init__(self, connection: "_Connection", idle_seconds: float) -> None:
        self.status = connection.parser.status
        self.headers = connection.parser.headers
        self._connection = connection
        self._idle_seconds = idle_seconds

    def __aiter__(self) -> "ClientResponse":
        return self

    def whole(self) -> bytes | None:
        """Return what is left of the body if all of it has come, else None."""
        parser = self._connection.parser
        return parser.take() if parser.complete else None

    async def __anext__(self) -> bytes:
        """Return the next piece; raises `ClientError`."""
        parser = self._connection.parser
        while True:
            if piece := parser.take():
                return piece
            if parser.complete:
                raise StopAsyncIteration
            await self._connection.receive(self._idle_seconds)


class Client:
    """Calls to one origin.

    Args:
        url: scheme, host and port are used.
        tls: for ``https``.
        waits: of each call.
        most: calls at a time.
        kept: connections that are kept open between calls.
        kept_seconds: for so long.
    """

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None,
        waits: Waits,
        *,
        most: int = 100,
        kept: int = 16,
        kept_seconds: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        self.waits = waits
        self._places = trio.Semaphore(most)
        self._most = most
        self._idle: deque[_Connection] = deque()
        self._kept = kept
        self._kept_seconds = kept_seconds

    def close(self) -> None:
        """Close the connections that no call uses."""
        while self._idle:
            self._idle.pop().close()

    def close_expired(self) -> None:
        """Close the connections that were not used for too long, or that the origin has closed."""
        expired = [connection for connection in self._idle if not self._is_good(connection)]
        for connection in expired:
            self._idle.remove(connection)
            connection.close()

    def call(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """Send a request and yield the response; at the end of the block the call is over.

        A call over a kept connection that the origin closes without a word is made once more, over
        a new one, if doing it twice is the same as doing it once and it was sent in one: it was
        closed in the moment in which it was used.

        Args:
            method: upper case.
            target: path and query as they are sent.
            headers: all, with ``Host``. Where they frame no body (RFC 9112 section 6), none is
                sent.
            body: whole, or as it comes; a generator is closed.

        Raises:
            ValueError: a part of the head is not allowed there.
            ClientError: there is no response. Whatever ``body`` raises comes out, too.
        """
        head = _head(method, target, headers)
        if isinstance(body, bytes) and len(body) <= _WHOLE_BYTES:
            return _WholeCall(self, method, head + body)
        chunked = any(name == b"transfer-encoding" for name, _ in headers)
        pieces = _Slices(body) if isinstance(body, bytes) else body
        return self._call_in_pieces(method, head, pieces, chunked)

    @asynccontextmanager
    async def _call_in_pieces(
        self, method: str, head: bytes, pieces: AsyncIterator[bytes | memoryview], chunked: bool
    ) -> AsyncIterator[ClientResponse]:
        await self.enter()
        try:
            connection = self._take_kept() or await self._open()
        except BaseException:
            self.leave()
            raise
        undisturbed = False
        try:
            connection.parser.expect(method)
            sender = _Sender(connection, head, pieces, chunked, self.waits)
            async with sender.sending():
                yield ClientResponse(connection, self.waits.idle)
            undisturbed = True
        finally:
            self.leave(connection, undisturbed=undisturbed)

    async def enter(self) -> None:
        """Take a place among the calls; raises `ClientError`."""
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(self.waits.connect):
                await self._places.acquire()
                return
            raise ClientError("busy") from None

    def leave(self, connection: "_Connection | None" = None, *, undisturbed: bool = False) -> None:
        """Give a place back, and keep its connection if that is as before; else close it."""
        self._places.release()
        if connection is None:
            return
        parser = connection.parser
        reusable = undisturbed and parser.complete and parser.reusable and not connection.busy
        if reusable and len(self._idle) < self._kept:
            connection.idle_since = trio.current_time()
            self._idle.append(connection)
        else:
            connection.close()

    async def ask(self, method: str, request: bytes) -> "_Connection":
        """Send a whole request and receive the head of the response; raises `ClientError`."""
        kept = self._take_kept()
        alone = self._places.value == self._most - 1
        if kept is not None:
            try:
                await kept.ask(method, request, self.waits, alone=alone)
                return kept
            except BaseException as error:
                kept.close()
                lost = isinstance(error, ClientError) and error.failure == "cut" and kept.is_silent
                if method not in _IDEMPOTENT or not lost:
                    raise
        connection = await self._open()
        try:
            await connection.ask(method, request, self.waits, alone=alone)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if self._is_good(connection):
                return connection
            connection.close()
        return None

    def _is_good(self, connection: "_Connection") -> bool:
        fresh = trio.current_time() < connection.idle_since + self._kept_seconds
        return fresh and connection.is_quiet()

    async def _open(self) -> "_Connection":
        with trio.move_on_after(self.waits.connect):
            try:
                opened = await trio.open_tcp_stream(self._host, self._port)
            except OSError:
                raise ClientError("connect") from None
            sock = socket.socket(fileno=opened.socket.detach())
            tcp = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            if self._tls is None:
                return _Connection(sock, tcp)
            stream = trio.SSLStream(
                tcp, self._tls, server_hostname=self._host, https_compatible=True
            )
            try:
                await stream.do_handshake()
            except BaseException as error:
                sock.close()
                if not isinstance(error, trio.BrokenResourceError):
                    raise
                tls = isinstance(error.__cause__, ssl.SSLError)
                raise ClientError("tls" if tls else "connect") from None
            return _Connection(sock, stream)
        raise ClientError("timeout")


class _WholeCall:
    """A call whose request is at hand, and goes in one."""

    def __init__(self, client: Client, method: str, request: bytes) -> None:
        self._client = client
        self._method = method
        self._request = request

    async def __aenter__(self) -> ClientResponse:
        client = self._client
        await client.enter()
        try:
            self._connection = await client.ask(self._method, self._request)
        except BaseException:
            client.leave()
            raise
        return ClientResponse(self._connection, client.waits.idle)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._client.leave(self._connection, undisturbed=kind is None)


class _Connection:
    """One connection.

    What can be done at once is done without trio: what it makes of every call (a checkpoint, the
    check for a conflict, a scope for the time limit) costs more than the call itself.

    Attributes:
        parser: of its responses.
        idle_since: when it was used last, by trio's clock.
        busy: whether a request is still being sent.
    """

    def __init__(self, sock: socket.socket, stream: Stream) -> None:
        self.parser = ResponseParser()
        self.idle_since = 0.0
        self.busy = False
        self._socket = sock
        self._stream = stream
        self._is_plain = isinstance(stream, trio.SocketStream)
        self._received = False
        self._idle_events = select.poll()
        self._idle_events.register(sock, select.POLLIN)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come of the response."""
        return not self._received

    def is_quiet(self) -> bool:
        """Tell whether nothing has come while it was idle, such as that the origin closes it."""
        return not self._idle_events.poll(0)

    def close(self) -> None:
        """Close it at once."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def ask(self, method: str, request: bytes, waits: Waits, *, alone: bool) -> None:
        """Send a whole request and receive the head of the response; raises `ClientError`.

        When the call is not alone, those of others take a turn before this one waits: many an
        origin has answered by then, and neither a wait nor its limit has to be set up.
        """
        self.parser.expect(method)
        self._received = False
        with suppress(_GoneError):  # the response may have come before that
            await self.send(request, waits.idle)
        if self._is_plain and not alone:
            await trio.lowlevel.checkpoint()
            if (data := self._read()) is not None:
                self._feed(data)
        if not self.parser.status:
            with trio.move_on_after(waits.head):
                await self.receive_head()
                return
            raise ClientError("timeout")

    async def send(self, data: bytes | memoryview, seconds: float) -> None:
        """Send bytes; raises `ClientError` when that takes too long, `_GoneError`."""
        sent = 0
        if self._is_plain:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                pass
            except OSError:
                raise _GoneError from None
            if sent == len(data):
                return
        try:
            with trio.move_on_after(seconds):
                await self._stream.send_all(memoryview(data)[sent:])
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _GoneError from None
        raise ClientError("timeout")

    async def receive_head(self) -> None:
        """Receive until the head of the response has come; raises `ClientError`."""
        while not self.parser.status:
            await self._receive()

    async def receive(self, seconds: float) -> None:
        """Receive what comes next of the response; raises `ClientError`."""
        with trio.move_on_after(seconds):
            await self._receive()
            return
        raise ClientError("timeout")

    async def _receive(self) -> None:
        data: bytes | None = None
        try:
            while data is None:
                if self._is_plain:
                    await trio.lowlevel.wait_readable(self._socket)
                    data = self._read()
                else:
                    data = bytes(await self._stream.receive_some(_READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientError("cut") from None
        self._feed(data)

    def _read(self) -> bytes | None:
        """Return what has come, ``b""`` at the end, None when that is nothing yet."""
        try:
            return self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            raise ClientError("cut") from None

    def _feed(self, data: bytes) -> None:
        self._received = self._received or bool(data)
        try:
            self.parser.feed(data)
        except CutError:
            raise ClientError("cut") from None
        except ProtocolError:
            raise ClientError("protocol") from None


class _GoneError(Exception):
    """The origin takes no more of the request."""


class _Sender:
    """Sends a request piece by piece, while the response is received."""

    def __init__(
        self,
        connection: _Connection,
        head: bytes,
        pieces: AsyncIterator[bytes | memoryview],
        chunked: bool,
        waits: Waits,
    ) -> None:
        self._connection = connection
        self._head = head
        self._pieces = pieces
        self._chunked = chunked
        self._waits = waits
        self._failure: Exception | None = None

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send in a task of its own; yield when the head of the response has come.

        Raises:
            ClientError: there is none. Whatever the body raises comes out, too.
        """
        waiting = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, waiting, nursery.cancel_scope)
            try:
                with waiting:
                    await self._connection.receive_head()
                if waiting.cancelled_caught:
                    raise ClientError("timeout")
                yield
            # All would come out of the nursery as a group.
            except Exception as error:
                self._failure = self._failure or error
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _send(self, waiting: trio.CancelScope, all_of_it: trio.CancelScope) -> None:
        connection, idle = self._connection, self._waits.idle
        connection.busy = True
        try:
            await connection.send(self._head, idle)
            async for piece in self._pieces:
                await connection.send(_chunk(piece) if self._chunked else piece, idle)
            if self._chunked:
                await connection.send(b"0\r\n\r\n", idle)
            connection.busy = False
        except _GoneError:
            pass  # the response tells why
        except Exception as error:
            self._failure = error
            all_of_it.cancel()
        finally:
            # One that is not at its end would be left to the garbage collector.
            if isinstance(self._pieces, AsyncGenerator):
                await self._pieces.aclose()
        waiting.deadline = trio.current_time() + self._waits.head


def _head(method: str, target: bytes, headers: Headers) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target)]
    lines += [b"%b: %b" % pair for pair in headers]
    head = b"\r\n".join([*lines, b"", b""])
    ends = len(lines) + 1
    # Nothing in it may be read as another line, nor the target as two words.
    if (head.count(b"\r"), head.count(b"\n"), lines[0].count(b" ")) != (ends, ends, 2):
        raise ValueError("A part of the head of the request is not allowed in it.")
    return head


def _chunk(piece: bytes | memoryview) -> bytes:
    return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))


class _Slices:
    """A body piece by piece; unlike a generator it may be left unfinished."""

    def __init__(self, body: bytes) -> None:
        self._rest = memoryview(body)

    def __aiter__(self) -> "_Slices":
        return self

    async def __anext__(self) -> memoryview:
        if not self._rest:
            raise StopAsyncIteration
        piece, self._rest = self._rest[:_WHOLE_BYTES], self._rest[_WHOLE_BYTES:]
        return piece
