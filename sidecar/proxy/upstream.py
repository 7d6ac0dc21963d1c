"""One upstream: its connections, and one call after another over them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Self
from urllib.parse import urlsplit

import msgspec
import trio

from sidecar.http.client import Client, ClientError, ClientResponse, Failure, Waits
from sidecar.http.headers import HeaderList
from sidecar.http.messages import Headers, HTTPError
from sidecar.proxy.route import ProxyRoute
from sidecar.tls import context_for

_DETAILS: dict[Failure, tuple[int, str]] = {
    "connect": (502, "The upstream cannot be reached."),
    "tls": (502, "The upstream's certificate cannot be verified, or TLS failed otherwise."),
    "protocol": (502, "The upstream's answer is not HTTP/1.1."),
    "cut": (502, "The upstream closed the connection before its answer was complete."),
    "timeout": (504, "The upstream took too long."),
    "busy": (503, "Too many calls of this route are under way; try again later."),
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

    def next(self) -> bytes:
        """Return the next piece, ``b""`` when there is none."""
        return next(filter(None, self._left), b"")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if piece := self.next():
            return piece
        raise StopAsyncIteration


class Upstream:
    """The connections to the upstream of one route; none before the first call.

    In a ``with`` block it is in use: `retire` waits until the block ends.

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
        self._client: Client | None = None
        self._calls = 0
        self._idle = trio.lowlevel.ParkingLot()

    def url(self, target: bytes) -> str:
        """Return the absolute URL of a target."""
        return f"{self._scheme}://{(self.host + target).decode('latin-1')}"

    def __enter__(self) -> Self:
        self._calls += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if self._idle and not self._calls:
            self._idle.unpark_all()

    async def retire(self) -> None:
        """Wait until it is not in use, then close all connections."""
        while self._calls:
            await self._idle.park()
        self.close()

    def close(self) -> None:
        """Close the connections that no call uses."""
        if self._client is not None:
            self._client.close()

    def close_expired(self) -> None:
        """Close the connections that no call has used for a while."""
        if self._client is not None:
            self._client.close_expired()

    def _connections(self) -> Client:
        if self._client is None:
            tls = None
            if self._scheme == "https":
                try:
                    tls = context_for(self._route.ca_file)
                except (OSError, ValueError):  # ssl.SSLError is the one; the other: a path with NUL
                    raise HTTPError(502, "`ca_file` of this route cannot be used.") from None
            waits = self._route.timeouts
            self._client = Client(
                self._route.upstream,
                tls,
                Waits(waits.connect, waits.first_byte, waits.idle),
                most=self._route.concurrency,
            )
        return self._client

    def call(
        self, method: str, target: bytes, headers: Headers, body: bytes | AsyncIterator[bytes]
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """Send a request and yield the response: see `sidecar.http.client.Client.call`."""
        return self._connections().call(method, target, headers, body)


def answer_of(response: ClientResponse) -> Answer:
    """Return a response as an answer; what raised `ClientError` raises `UpstreamError`."""
    body = response.whole()
    pieces = _Pieces(response) if body is None else Whole(body)
    return Answer(response.status, response.headers, pieces)


class _Pieces:
    """The body of a response; raises `UpstreamError` when it does not come whole."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._response)
        except ClientError as error:
            raise UpstreamError(error.failure) from None
