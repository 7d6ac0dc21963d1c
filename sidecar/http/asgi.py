"""From ASGI to handlers and back: an ASGI 3 application made of a table of routes.

Direct routes go straight from the ASGI scope to their handler. Every other path goes to the
fallback application, if there is one. No handler can break a connection or cause more than a 500.
"""

import functools
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from email.utils import formatdate
from types import TracebackType
from typing import Any

import structlog
import trio

from sidecar import metrics
from sidecar.http.messages import (
    Disconnected,
    Headers,
    HTTPError,
    Request,
    Response,
    StreamHandler,
    overloaded,
    problem,
)
from sidecar.http.routing import Route, Router
from sidecar.pressure import Held, Overloaded, Pressure

_log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# What is read and thrown away of a body that its handler refused: a body up to this size keeps
# its connection; on any other the client is told to close it.
DRAIN_BYTES = 64 * 1024
# How long a client may take to read a refusal while it still sends: closing at once would reset
# the connection, and the refusal would be lost with it (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
# The largest body that the fallback gets; cold routes take none or a small one.
_FALLBACK_BYTES = 64 * 1024
# RFC 9110 section 6.4.1: responses that have no content whatever their head says.
_WITHOUT_BODY = frozenset({204, 304})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class _Exchange:
    """One request and its response: what is left of the body, and what was answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, route: str, held: Held) -> None:
        self._asgi_receive = receive
        self._send = send
        self._route = route
        self._http1 = scope["http_version"].startswith("1")
        self.ended = False
        self._body_ended = trio.Event()
        self._has_body = True
        self.answered = False
        self.request = Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=join_headers(scope["headers"]),
            receive=self._receive_to_keep,
            held=held,
            raw_path=scope["raw_path"],
            raw_headers=scope["headers"],
            client=(scope["client"] or ("",))[0],
        )
        if self._http1 and not _announces_body(self.request):
            self._end()

    async def receive(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end; raises `Disconnected`."""
        while not self.ended:
            message = await self._asgi_receive()
            if message["type"] == "http.disconnect":
                self.ended = True
                raise Disconnected
            if not message.get("more_body", False):
                self._end()
            if body := message.get("body", b""):
                return bytes(body)
        return b""

    def _end(self) -> None:
        self.ended = True
        self._body_ended.set()

    async def gone(self) -> None:
        """Return when the client has gone away; see `sidecar.http.messages.Exchange`."""
        await self._body_ended.wait()
        while (await self._asgi_receive())["type"] != "http.disconnect":
            pass

    async def _receive_to_keep(self) -> bytes:
        piece = await self.receive()
        self.request.held.take(len(piece))
        return piece

    async def respond(self, response: Response) -> None:
        """Send the response, then take what is left of the body off the connection."""
        headers = [(k.lower().encode(), v.encode("latin-1")) for k, v in response.headers.items()]
        # RFC 9110 section 8.6: these have no content, so no length.
        if response.status >= 200 and response.status not in _WITHOUT_BODY:
            headers.append((b"content-length", b"%d" % len(response.body)))
        await self.start(response.status, headers)
        if self.ended:
            await self._finish(response.body if self._has_body else b"")
        else:
            await self.send(response.body)
            await self.finish()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of a response; see `sidecar.http.messages.Exchange`."""
        self._has_body = self.request.method != "HEAD" and status not in _WITHOUT_BODY
        headers = list(headers)
        if self._http1 and not self.ended and not _is_short(self.request):
            headers.append((b"connection", b"close"))
        # RFC 9110 section 6.6.1: of who answers, and of who passes on what has none.
        if not any(name == b"date" for name, _ in headers):
            headers.append((b"date", _date(int(time.time()))))
        await self._start({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body of a response."""
        if self._has_body:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self) -> None:
        """Send the end of a response, then take what is left of the body off the connection."""
        if not self.ended:
            # The client has the whole response now, and may stop sending.
            await self._drain()
        await self._finish(b"")

    async def _finish(self, last: bytes) -> None:
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def _start(self, message: Message) -> None:
        # Counted before it is sent, so that who has the answer finds it counted.
        self.answered = True
        method = self.request.method if self.request.method in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(self._route, method, message["status"]).inc()
        await self._send(message)

    async def _drain(self) -> None:
        # The server hands on a body through a bounded queue and waits when that is full, also
        # when it has to tell the end of the exchange; so an unread body would hang it.
        with trio.move_on_after(LINGER_SECONDS):
            try:
                while await self.receive():
                    pass
            except Disconnected:
                pass

    async def pass_on(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        """Let another application answer; it gets the body in one piece."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await self._asgi_receive()

        async def send(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            await (self._start if is_start else self._send)(message)

        await app(scope, receive, send)


@functools.lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return ASGI headers as `Request` has them."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _announces_body(request: Request) -> bool:
    # RFC 9112 section 6.3: in HTTP/1.1 a request without these has no body.
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or length.strip("0") != ""


def _is_short(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdecimal() and len(length) < 10 and int(length) <= DRAIN_BYTES


class Application:
    """An ASGI 3 application.

    Args:
        routes: all that this listener serves; those that are not direct are the fallback's.
        pressure: bounds the bodies; None: nothing does.
        fallback: the application for every path without a direct route, or None.
    """

    def __init__(
        self,
        routes: list[Route],
        pressure: Pressure | None = None,
        *,
        fallback: ASGIApp | None = None,
    ) -> None:
        self._router = Router([route for route in routes if route.direct])
        self._paths = {route.path for route in routes}
        # What a path begins with → its route, and what answers it.
        self._streams: dict[str, tuple[str, StreamHandler]] = {
            route.path.partition("{")[0]: (route.path, route.stream)
            for route in routes
            if route.stream is not None
        }
        self._pressure = pressure
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; a ``websocket`` is refused."""
        if scope["type"] == "http":
            with Held(self._pressure) as held:
                await self._exchange(scope, receive, send, held)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send, held: Held) -> None:
        started = time.perf_counter()
        path = scope["path"]
        route, stream = path if path in self._paths else "other", None
        for prefix, (template, handler) in self._streams.items():
            if path.startswith(prefix):
                route, stream = template, handler
        exchange = _Exchange(scope, receive, send, route, held)
        try:
            response = await self._answer(exchange, scope, stream)
            if response is not None:
                await exchange.respond(response)
        except Disconnected:
            return
        except Exception as error:  # such as a header of the handler's that HTTP does not allow
            log_failure(error)
            return
        metrics.HTTP_SECONDS.labels(route).observe(time.perf_counter() - started)

    async def _answer(
        self, exchange: _Exchange, scope: Scope, stream: StreamHandler | None
    ) -> Response | None:
        """Return the response, or None when it has been sent as far as it ever will."""
        try:
            if stream is not None:
                await stream(exchange)
                return None
            if self._fallback is not None and exchange.request.path not in self._router:
                body = await _read_small(exchange.request)
                await exchange.pass_on(self._fallback, scope, body)
                return None
            return await self._router(exchange.request)
        except HTTPError as error:
            return None if exchange.answered else problem(error)
        except Overloaded as error:
            return None if exchange.answered else problem(overloaded(error))
        except Disconnected:
            raise
        except Exception as error:
            log_failure(error)
            if exchange.answered:
                return None
            return problem(HTTPError(500, "The sidecar failed; its log says where."))


async def _read_small(request: Request) -> bytes:
    body = bytearray()
    with trio.move_on_after(LINGER_SECONDS):
        while piece := await request.receive():
            body += piece
            if len(body) > _FALLBACK_BYTES:
                raise HTTPError(413, f"The body is larger than {_FALLBACK_BYTES} bytes.")
        return bytes(body)
    raise HTTPError(408, "The body did not arrive in time.")


def log_failure(error: BaseException) -> None:
    """Log the type of an unexpected exception and where it came from.

    Its text is left out, and so are the values in its frames: both may hold a payload.
    """
    _log.error("handler_failed", error=type(error).__name__, stack=_stack(error.__traceback__))


def _stack(traceback: TracebackType | None) -> list[str]:
    places = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{module}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places
