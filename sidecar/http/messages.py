"""Requests and responses as values: what a handler sees, whatever server it runs under.

A handler is ``async (Request) -> Response``. It knows no server, so a route can move from one
server to another without being rewritten. A handler refuses a request by raising `HTTPError`.

A handler that streams is ``async (Exchange) -> None``: it takes the request's body and gives the
response's piece by piece, and so holds what it needs open until the response is complete.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from sidecar.pressure import Held, Overloaded

Headers = Sequence[tuple[bytes, bytes]]


class Request(msgspec.Struct):
    """One HTTP request whose head has arrived.

    Attributes:
        method: upper case.
        path: percent-decoded.
        query: the raw query string, without the ``?``.
        headers: names in lower case; of a repeated header, the values joined with ``", "``.
        receive: the next piece of the body, ``b""`` at its end; raises `Disconnected` when the
            client goes away first, `Overloaded` when there is no room for the piece.
        held: what its body takes of the memory that there is for bodies.
        raw_path: as it was sent, percent-encoded.
        raw_headers: every header line in its order, names in lower case.
        client: the address it came from.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    receive: Callable[[], Awaitable[bytes]]
    held: Held = msgspec.field(default_factory=Held)
    raw_path: bytes = b""
    raw_headers: Headers = ()
    client: str = ""


class Response(msgspec.Struct):
    """One HTTP response, complete."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""


Handler = Callable[[Request], Awaitable[Response]]


class Exchange(Protocol):
    """A request and its response under way.

    One task at a time may be in `receive`, one in `send`, and one in `gone`.
    """

    @property
    def request(self) -> Request:
        """The request; `Request.receive` counts what it returns as held, `receive` does not."""

    @property
    def ended(self) -> bool:
        """Whether the request's body has been read to its end; at first, whether it has none."""

    async def receive(self) -> bytes:
        """Return the next piece of the request's body, ``b""`` at its end.

        Raises:
            Disconnected: the client went away.
        """

    def whole(self) -> bytes | None:
        """Return what is left of the request's body if all of it has come, else None."""

    async def start(self, status: int, headers: Headers, piece: bytes = b"") -> None:
        """Send the head of the response, and a piece of its body with it.

        Without a ``Content-Length`` the body is chunked.
        """

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body at once; nothing when the response has none, as to ``HEAD``."""

    async def finish(self) -> None:
        """Say that the response is complete. A response that is not ends with its connection."""

    async def gone(self) -> None:
        """Return when the client has gone away; waits for the end of the request's body first."""

    def abandon(self) -> None:
        """Cancel what is done for the request, and close its connection."""


StreamHandler = Callable[[Exchange], Awaitable[None]]


class Disconnected(Exception):  # noqa: N818 (the name says what happened, as in asyncio and trio)
    """The client went away before its request was complete."""


class HTTPError(Exception):
    """The request is refused with this status.

    Args:
        status: the HTTP status code.
        detail: one sentence for the client; never a piece of its payload.
        headers: such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def overloaded(error: Overloaded) -> HTTPError:
    """Return the answer to a request for which there is no room now."""
    return HTTPError(429, str(error), {"retry-after": str(error.retry_after_seconds)})


class Problem(msgspec.Struct):
    """An error body as ``application/problem+json`` (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


_TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    508: "Loop Detected",
}


def title_of(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110 section 15)."""
    return _TITLES.get(status, "Error")


def problem(error: HTTPError) -> Response:
    """Return the RFC 9457 response for an error."""
    body = Problem(title=title_of(error.status), status=error.status, detail=error.detail)
    headers = {"content-type": "application/problem+json", **error.headers}
    return Response(error.status, headers, msgspec.json.encode(body))


def json_response(value: object, status: int = 200) -> Response:
    """Return ``value`` encoded by msgspec as ``application/json``."""
    return Response(status, {"content-type": "application/json"}, msgspec.json.encode(value))
