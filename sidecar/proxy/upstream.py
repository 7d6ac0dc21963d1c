"""One upstream: its connections, and one call after another over them.

Environment proxies are not trusted, redirects not followed and cookies not kept: a call goes to the
declared host and nowhere else, and comes back as it is.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import httpcore2
import msgspec
import trio

from sidecar.http.messages import Headers, HTTPError
from sidecar.proxy.forwarding import HeaderList
from sidecar.proxy.route import ProxyRoute
from sidecar.tls import context_for

Failure = Literal["connect", "timeout", "protocol", "cut", "busy"]

# RFC 9110 section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_IDLE_CONNECTION_SECONDS = 30.0
_IDLE_CONNECTIONS = 16
_DETAILS: dict[Failure, tuple[int, str]] = {
    "connect": (502, "The upstream cannot be reached."),
    "protocol": (502, "The upstream's answer is not HTTP."),
    "cut": (502, "The upstream closed the connection before its answer was complete."),
    "timeout": (504, "The upstream took too long."),
    "busy": (503, "Too many calls of this route are under way; try again later."),
}
_FAILURES: dict[type[Exception], Failure] = {
    httpcore2.ConnectError: "connect",
    httpcore2.ConnectTimeout: "timeout",
    httpcore2.PoolTimeout: "busy",
    httpcore2.ReadTimeout: "timeout",
    httpcore2.WriteTimeout: "timeout",
    httpcore2.RemoteProtocolError: "protocol",
    httpcore2.LocalProtocolError: "protocol",
}


class UpstreamError(HTTPError):
    """The upstream did not answer, or not to the end; says so to the client.

    Attributes:
        failure: what happened, for metrics.
    """

    def __init__(self, failure: Failure) -> None:
        status, detail = _DETAILS[failure]
        super().__init__(status, detail, {"retry-after": "1"} if status == 503 else None)
        self.failure = failure


class Answer(msgspec.Struct):
    """The head of a response, and its body as it comes, piece by piece.

    Attributes:
        status: never one below 200.
        headers: names in lower case.
        pieces: to be read once; raises `UpstreamError`.
        incomplete: some of it was left out on the way here.
    """

    status: int
    headers: HeaderList
    pieces: AsyncIterator[bytes]
    incomplete: bool = False

    def value(self, name: bytes) -> str:
        """Return the value of a header, several joined by commas; ``""`` when there is none."""
        return ", ".join(v.decode("latin-1") for n, v in self.headers if n == name)


class Whole:
    """A body whose pieces are all at hand."""

    def __init__(self, *pieces: bytes) -> None:
        self._left = iter(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._left:
            if piece:
                return piece
        raise StopAsyncIteration


class Upstream:
    """The connections to the upstream of one route; none before the first call.

    Args:
        route: that says where it is, how long to wait, and how many calls at a time.

    Attributes:
        host: for the ``Host`` header.
        base: the path before every path of a call.
    """

    def __init__(self, route: ProxyRoute) -> None:
        self._route = route
        url = urlsplit(route.upstream)
        self.host = url.netloc.encode()
        self.base = url.path.encode()
        self._scheme = url.scheme
        self._origin = url.scheme.encode(), (url.hostname or "").encode(), url.port
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._calls = 0
        self._idle = trio.lowlevel.ParkingLot()

    def url(self, target: bytes) -> str:
        """Return the absolute URL of a target."""
        return f"{self._scheme}://{(self.host + target).decode('latin-1')}"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `retire` waiting until the block ends."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.unpark_all()

    async def retire(self) -> None:
        """Wait until it is not in use, then close all connections."""
        while self._calls:
            await self._idle.park()
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            await self._pool.aclose()

    def _connections(self) -> httpcore2.AsyncConnectionPool:
        if self._pool is None:
            tls = None
            if self._scheme == "https":
                try:
                    tls = context_for(self._route.ca_file)
                except OSError:  # ssl.SSLError is one too
                    raise HTTPError(502, "`ca_file` of this route cannot be used.") from None
            self._pool = httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=self._route.concurrency,
                max_keepalive_connections=min(self._route.concurrency, _IDLE_CONNECTIONS),
                keepalive_expiry=_IDLE_CONNECTION_SECONDS,
                retries=1,
            )
        return self._pool

    @asynccontextmanager
    async def call(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
    ) -> AsyncIterator[Answer]:
        """Send a request and yield the answer; at the end of the block the call is over.

        A connection that cannot be opened is tried once more. So is a call that the upstream drops
        without an answer, when doing it twice is the same as doing it once and its body is at hand:
        a kept connection may be closed by the upstream in the moment in which it is used.

        Args:
            method: upper case.
            target: path and query as they are sent.
            headers: all of them, with ``Host`` and those that frame the body.
            body: whole, or as it comes; not sent unless ``headers`` frame it.

        Raises:
            UpstreamError: there is no answer.
        """
        waits = self._route.timeouts
        timeouts = {
            "connect": waits.connect,
            "pool": waits.connect,
            "write": waits.idle,
            "read": waits.first_byte,
        }
        response = await self._send(method, target, headers, body, timeouts)
        timeouts["read"] = waits.idle
        pieces = _pieces(response)
        async with aclosing(response), aclosing(pieces):
            lower = [(name.lower(), value) for name, value in response.headers]
            yield Answer(response.status, lower, pieces)

    async def _send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        timeouts: dict[str, Any],
    ) -> httpcore2.Response:
        again = method in _IDEMPOTENT and isinstance(body, bytes)
        scheme, host, port = self._origin
        while True:
            request = httpcore2.Request(
                method,
                httpcore2.URL(scheme=scheme, host=host, port=port, target=target),
                headers=list(headers),
                content=body,
                extensions={"timeout": timeouts},
            )
            try:
                return await self._connections().handle_async_request(request)
            except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError) as e:
                if not again:
                    raise UpstreamError(_failure(e)) from None
                again = False
            except (
                httpcore2.NetworkError,
                httpcore2.TimeoutException,
                httpcore2.ProtocolError,
            ) as e:
                raise UpstreamError(_failure(e)) from None


async def _pieces(response: httpcore2.Response) -> AsyncGenerator[bytes, None]:
    stream = response.stream
    assert not isinstance(stream, bytes)
    try:
        async for piece in stream:  # type: ignore[union-attr]
            yield piece
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
        failure = _failure(error)
        # h11 says of a body that ends too early what it says of one that is no HTTP.
        raise UpstreamError("cut" if failure == "protocol" else failure) from None


def _failure(error: Exception) -> Failure:
    return _FAILURES.get(type(error), "cut")
