"""Outbound calls of the pod: ``/proxy/<route>/<path>`` goes to the upstream of the route.

Only to upstreams that the rules folder declares. A call ends when its client goes away: whatever
was under way for it is cancelled, the call of the upstream with it.
"""

import secrets
from collections.abc import Callable
from functools import cache
from typing import Self

import trio

from sidecar import metrics
from sidecar.cache.tiers import Cache
from sidecar.http.failures import log_failure
from sidecar.http.messages import Disconnected, Exchange, HTTPError
from sidecar.pressure import Held, Overloaded, Pressure
from sidecar.proxy.caching import Background, ResponseCache
from sidecar.proxy.call import Call
from sidecar.proxy.destinations import Destination, Destinations
from sidecar.proxy.forwarding import forwards_left
from sidecar.proxy.incoming import WithheldError
from sidecar.proxy.model_calls import ModelCalls
from sidecar.proxy.outgoing import Dropped, Outgoings
from sidecar.proxy.presence import Presence
from sidecar.proxy.upstream import UpstreamError
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Redactions, Report
from sidecar.redaction.walk_otlp import Outcome

PREFIX = b"/proxy/"
# RFC 9110 sections 9.3.6 and 9.3.8: a tunnel goes past the redaction, a trace shows credentials.
_REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
_ALLOWED = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
# Answers that are fetched anew while nobody waits for them.
_MOST_IN_BACKGROUND = 32
# Beside them: connections and clients are looked after.
_OWN_TASKS = 2
_calls = cache(metrics.PROXY_CALLS.labels)


class Proxy:
    """The proxy: `run` it, then give it to a listener.

    Args:
        rules: that declare the routes and say what is redacted.
        cache: for the answers of routes that have one.
        redactions: takes what was found.
        pressure: bounds the bodies that are read as a whole.
        max_body_bytes: of one of them.
        stopping: tells whether new calls are to be sent away.
    """

    def __init__(
        self,
        rules: RulesInForce,
        cache: Cache,
        redactions: Redactions,
        pressure: Pressure,
        max_body_bytes: int,
        stopping: Callable[[], bool],
    ) -> None:
        # Unlike that of any other sidecar, so that a call that comes back is known.
        self._via = f"sidecar-{secrets.token_hex(4)}".encode()
        self._destinations = Destinations(rules)
        self._outgoings = Outgoings(self._via, pressure, max_body_bytes)
        self._cache = ResponseCache(cache, self._in_background)
        self._models = ModelCalls()
        self._presence = Presence()
        self._redactions = redactions
        self._pressure = pressure
        self._max_body_bytes = max_body_bytes
        self._stopping = stopping
        self._nursery: trio.Nursery | None = None
        self._calls = 0
        self._idle = trio.lowlevel.ParkingLot()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what goes on beside the calls, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._destinations.run)
            await self._nursery.start(self._presence.run)
            task_status.started()

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await trio.lowlevel.checkpoint()
        while self._calls:
            await self._idle.park()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request below ``/proxy/``.

        Raises:
            HTTPError: it is refused, or there is no answer.
            Overloaded: there is no room for its body.
            Disconnected: the client went away.
        """
        if self._stopping():
            raise HTTPError(503, "The sidecar is shutting down; try again.", {"retry-after": "1"})
        request = exchange.request
        name, slash, path = request.raw_path.removeprefix(PREFIX).partition(b"/")
        destination = self._destinations.find(name.decode("latin-1"))
        if request.method in _REFUSED_METHODS:
            raise HTTPError(405, "The proxy does not take this method.", {"allow": _ALLOWED})
        if forwards_left(request) == 0:
            await exchange.start(200, [(b"allow", _ALLOWED.encode()), (b"content-length", b"0")])
            await exchange.finish()
            return
        with destination.upstream:
            await self._counted(exchange, destination, slash + path)

    async def _counted(self, exchange: Exchange, destination: Destination, path: bytes) -> None:
        route = destination.route.name
        self._calls += 1
        _calls(route).inc()
        try:
            await self._call(exchange, destination, path)
            await exchange.finish()
        except HTTPError as error:
            metrics.PROXY_FAILURES.labels(route, _reason(error)).inc()
            raise
        except Overloaded as error:
            metrics.PROXY_FAILURES.labels(route, error.reason).inc()
            raise
        except Disconnected:
            metrics.PROXY_FAILURES.labels(route, "client_gone").inc()
            raise
        finally:
            self._calls -= 1
            _calls(route).dec()
            if self._idle and not self._calls:
                self._idle.unpark_all()

    async def _call(self, exchange: Exchange, destination: Destination, path: bytes) -> None:
        route, request = destination.route, exchange.request
        with _Found(self._redactions) as found:
            try:
                outgoing = await self._outgoings.make(exchange, destination, path, found.outcome)
            except Dropped:
                await exchange.start(204, [])
                return
            found.count()
            call = Call(
                destination,
                outgoing,
                self._via,
                self._max_body_bytes,
                exchange,
                request.held,
                found.outcome,
            )
            if route.observe == "llm":
                call.model = self._models.begin(route.name, request.method, request.path)
            try:
                await self._presence.while_here(exchange, self._answer(call))
            except Disconnected:
                if not call.delivered:
                    raise

    async def _answer(self, call: Call) -> None:
        if call.destination.route.cache is not None:
            await self._cache.answer(call)
            return
        await call.fetch([], call.deliver)

    def _in_background(self, function: Background) -> None:
        nursery = self._nursery
        if nursery is not None and len(nursery.child_tasks) < _OWN_TASKS + _MOST_IN_BACKGROUND:
            nursery.start_soon(self._run_alone, function)

    async def _run_alone(self, function: Background) -> None:
        with _Found(self._redactions) as found, Held(self._pressure) as held:
            try:
                await function(found.outcome, held)
            # It is nobody's call, so it must not end those of others.
            except Exception as error:
                log_failure(error)


class _Found:
    """Counts what is found in a block at its end, however that comes.

    Attributes:
        outcome: takes it.
    """

    def __init__(self, redactions: Redactions) -> None:
        self._redactions = redactions
        self.outcome = Outcome()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.count()

    def count(self) -> None:
        """Count what was found since the last time."""
        report = self.outcome.report
        if report.counts or report.audited:
            self.outcome.report = Report()
            # The thread of a call that was cancelled may still write into its report.
            found = Report()
            found.merge(report)
            self._redactions.add("http", found)


def _reason(error: HTTPError) -> str:
    if isinstance(error, UpstreamError):
        return error.failure
    return "withheld" if isinstance(error, WithheldError) else "refused"
