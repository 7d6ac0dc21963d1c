"""From exchanges to handlers: a table of routes, and what is counted of them.

Direct routes go straight to their handler. Every other path goes to the fallback, an ASGI
application, if there is one. No handler can break a connection or cause more than a 500.
"""

import time
from functools import cache, partial

from sidecar import metrics
from sidecar.http.asgi import ASGIApp, answer_by
from sidecar.http.failures import log_failure
from sidecar.http.http1 import Http1Exchange
from sidecar.http.messages import (
    Disconnected,
    HTTPError,
    Response,
    StreamHandler,
    overloaded,
    problem,
)
from sidecar.http.routing import Route, Router
from sidecar.pressure import Held, Overloaded, Pressure

# To look a metric up by its labels costs more than to count.
_requests = cache(metrics.HTTP_REQUESTS.labels)
_seconds = cache(metrics.HTTP_SECONDS.labels)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Application:
    """Answers exchanges.

    Args:
        routes: all that this listener serves; those that are not direct are the fallback's.
        pressure: bounds the bodies; None: nothing does.
        fallback: for every path without a direct route, or None.
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

    async def __call__(self, exchange: Http1Exchange) -> None:
        """Answer one request; raises `Disconnected` when the client went away."""
        started = time.perf_counter()
        path = exchange.request.path
        route, stream = path if path in self._paths else "other", None
        for prefix, (template, handler) in self._streams.items():
            if path.startswith(prefix):
                route, stream = template, handler
        method = exchange.request.method
        exchange.on_start = partial(_count, route, method if method in _METHODS else "other")
        with Held(self._pressure) as exchange.request.held:
            try:
                await self._answer(exchange, stream)
            except Disconnected:
                raise
            except Exception as error:
                response = _problem(error)
                if exchange.status:
                    return  # an answer that has begun cannot be taken back
                await exchange.respond(response)
        _seconds(route).observe(time.perf_counter() - started)

    async def _answer(self, exchange: Http1Exchange, stream: StreamHandler | None) -> None:
        if stream is not None:
            await stream(exchange)
        elif self._fallback is not None and exchange.request.path not in self._router:
            await answer_by(self._fallback, exchange)
        else:
            await exchange.respond(await self._router(exchange.request))


def _problem(error: Exception) -> Response:
    if isinstance(error, HTTPError):
        return problem(error)
    if isinstance(error, Overloaded):
        return problem(overloaded(error))
    log_failure(error)
    return problem(HTTPError(500, "The sidecar failed; its log says where."))


def _count(route: str, method: str, status: int) -> None:
    _requests(route, method, status).inc()
