"""One upstream: its connections, and one call after another over them.

Environment proxies are not trusted, redirects not followed and cookies not kept: a call goes to the
declared host and nowhere else, and comes back as it is.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import httpcore2
import msgspec

from sidecar.http.messages import Headers, HTTPError
from sidecar.proxy.forwarding import HeaderList
from sidecar.proxy.route import ProxyRoute
from sidecar.tls import context_for

Failure = Literal["connect", "timeout", "protocol", "cut", "busy"]

# RFC 9110 section 9.2.2.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_IDLE_CONNECTION_SECONDS = 30.0
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
    """

    status: int
    headers: HeaderList
    pieces: AsyncIterator[bytes]


class Upstream:
    """The connections to the upstream of one route.

    Args:
        route: that says where it is, how long to wait, and how many calls at a time.

    Raises:
        OSError: its authorities cannot be read.

    Attributes:
        host: for the ``Host`` header.
        base: the path before every path of a call.
    """

    def __init__(self, route: ProxyRoute) -> None:
        self._route = route
        url = urlsplit(route.upstream)
        self.base = url.path.encode()
        self._origin = (url.scheme.encode(), (url.hostname or "").encode(), url.port)
        self.host = url.netloc.encode()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context_for(route.ca_file) if url.scheme == "https" else None,
            max_connections=route.concurrency,
            max_keepalive_connections=min(route.concurrency, 16),
            keepalive_expiry=_IDLE_CONNECTION_SECONDS,
            retries=1,
        )

    async def close(self) -> None:
        """Close all connections; calls under way end with an error."""
        await self._pool.aclose()

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
                return await self._pool.handle_async_request(request)
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
