"""ASGI 3 (https://asgi.readthedocs.io/en/stable/specs/www.html): what speaks it, and to what.

The server of HTTP/2 calls an application of that kind; the one of HTTP/1.1 calls one for cold
routes.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import trio

from sidecar.http.http1 import LINGER_SECONDS, Http1Exchange
from sidecar.http.messages import HTTPError, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_MAX_BYTES = 64 * 1024


def join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return ASGI headers as `Request` has them."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def answer_by(app: ASGIApp, exchange: Http1Exchange) -> None:
    """Let an application answer; it gets the body in one piece, which must be a small one.

    Raises:
        HTTPError: the body is too large, or too slow.
        Disconnected: the client went away.
    """
    request = exchange.request
    body = await _read(request)
    scope: Scope = {
        "type": "http",
        "asgi": {"spec_version": "2.3", "version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query.encode("latin-1"),
        "root_path": "",
        "headers": request.raw_headers,
        "client": (request.client, 0),
        "server": None,
        "extensions": {},
    }
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await exchange.gone()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            await exchange.start(message["status"], list(message.get("headers", [])))
        elif message["type"] == "http.response.body":
            await exchange.send(message.get("body", b""))
            if not message.get("more_body", False):
                await exchange.finish()

    await app(scope, receive, send)


async def _read(request: Request) -> bytes:
    body = bytearray()
    with trio.move_on_after(LINGER_SECONDS):
        while piece := await request.receive():
            body += piece
            if len(body) > _MAX_BYTES:
                raise HTTPError(413, f"The body is larger than {_MAX_BYTES} bytes.")
        return bytes(body)
    raise HTTPError(408, "The body did not arrive in time.")
