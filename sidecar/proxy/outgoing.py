"""A request as it goes to the upstream: redacted where its route says so, and framed anew."""

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

import msgspec
import trio

from sidecar.http.body import read_body
from sidecar.http.headers import HeaderList, without
from sidecar.http.messages import Exchange, HTTPError
from sidecar.pressure import Pressure
from sidecar.proxy.bodies import recompress, redact_body
from sidecar.proxy.destinations import Destination
from sidecar.proxy.forwarding import (
    body_framing,
    content_type,
    of_changed_body,
    request_headers,
    target_of,
)
from sidecar.proxy.heads import redact_headers, redact_target
from sidecar.proxy.route import CachedPost
from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.walk_otlp import Outcome
from sidecar.work import work_in_turns


class Dropped(Exception):  # noqa: N818 (it is an answer, not a fault)
    """A rule, or the route, says that this is not passed on, and that its sender is content."""


class Outgoing(msgspec.Struct):
    """A request as it goes on.

    Attributes:
        method: upper case.
        path: that of the call behind the route's name, percent-encoded and redacted.
        target: path and query at the upstream.
        headers: all but those that frame the body.
        framing: those.
        body: whole, or as the client sends it.
    """

    method: str
    path: bytes
    target: bytes
    headers: HeaderList
    framing: HeaderList
    body: bytes | AsyncIterator[bytes]

    def header(self, name: bytes) -> str:
        """Return the value of a header, ``""`` when there is none."""
        return next((v.decode("latin-1") for n, v in self.headers if n == name), "")


class Outgoings:
    """Makes requests that go on.

    Args:
        via: what this gateway is called.
        pressure: bounds the bodies that must be here as a whole.
        max_body_bytes: of one of them.
    """

    def __init__(self, via: bytes, pressure: Pressure, max_body_bytes: int) -> None:
        self._via = via
        self._pressure = pressure
        self._max_body_bytes = max_body_bytes

    async def make(
        self, exchange: Exchange, destination: Destination, rest: bytes, outcome: Outcome
    ) -> Outgoing:
        """Return the request that goes on in place of the client's.

        Args:
            exchange: the client's request.
            destination: where it goes.
            rest: what follows the route's name in its path, percent-encoded.
            outcome: takes what is found.

        Raises:
            HTTPError: the request is refused.
            Overloaded: there is no room for its body.
            Dropped: it is not to go on.
        """
        request, route = exchange.request, destination.route
        target = target_of(destination.upstream.base, rest)
        path, query = rest, request.query.encode("latin-1")
        headers = request_headers(
            request, destination.upstream.host, self._via, forwarded=route.forwarded
        )
        if route.redacts_request:
            try:
                path, query = redact_target(path, query, destination.redactor, outcome.report)
                headers = redact_headers(headers, destination.redactor, outcome.report)
            except UncheckedError as error:
                raise HTTPError(400, str(error)) from None
            except DropRecordError:
                raise Dropped from None
            # What a rule puts in place of something may be a dot, too.
            target = target_of(destination.upstream.base, path)
        if route.redacts_response:
            # What comes back is to be read here, and as a whole: a part shows less than it tells.
            headers = without(headers, b"accept-encoding", b"range", b"if-range")
            headers.append((b"accept-encoding", b"identity"))
        elif route.observe and (accepted := request.headers.get("accept-encoding")):
            # Of the codings that the client takes, those that are read in passing.
            readable = b"gzip, deflate" if "gzip" in accepted.lower() else b"identity"
            headers = [*without(headers, b"accept-encoding"), (b"accept-encoding", readable)]
        outgoing = Outgoing(
            request.method, path, target + b"?" + query if query else target, headers, [], b""
        )
        if exchange.ended:
            outgoing.framing = [(n, v) for n, v in body_framing(request) if n == b"content-length"]
        elif route.redacts_request or cached_post(destination, outgoing):
            await self._read(exchange, destination, outgoing, outcome)
        else:
            outgoing.framing = body_framing(request) or [(b"transfer-encoding", b"chunked")]
            body = exchange.whole() if outgoing.framing[0][0] == b"content-length" else None
            outgoing.body = _as_it_comes(exchange, route.timeouts.idle) if body is None else body
        return outgoing

    async def _read(
        self, exchange: Exchange, destination: Destination, outgoing: Outgoing, outcome: Outcome
    ) -> None:
        """Read the body as a whole, and redact it where it is to be."""
        request, route = exchange.request, destination.route
        coding = request.headers.get("content-encoding", "").strip().lower()
        with self._pressure.intake(request.held):
            body = await read_body(request, self._max_body_bytes)
            redacted = body
            if route.redacts_request:
                request.held.promise(len(body))
                redacted = await self._redacted(destination, outgoing, body, outcome)
        outgoing.body = recompress(redacted, coding)
        outgoing.framing = [(b"content-length", b"%d" % len(outgoing.body))]
        if redacted is not body:
            outgoing.headers = of_changed_body(outgoing.headers)

    async def _redacted(
        self, destination: Destination, outgoing: Outgoing, body: bytes, outcome: Outcome
    ) -> bytes:
        route = destination.route
        try:
            steps = redact_body(
                body,
                content_type(outgoing.headers),
                outgoing.path.decode("latin-1"),
                destination.redactor,
                outcome,
                limit=self._max_body_bytes,
                unknown=route.unknown,
            )
            return await work_in_turns(len(body), steps)
        except UnknownTypeError:
            if route.unknown == "pass":
                return body
            if route.unknown == "drop":
                raise Dropped from None
            raise HTTPError(
                415,
                "The body is of a type that cannot be redacted, so it was not sent. "
                "See `unknown` of the route.",
            ) from None
        except UncheckedError as error:
            raise HTTPError(400, str(error)) from None
        except DropRecordError:
            raise Dropped from None


def cached_post(destination: Destination, outgoing: Outgoing) -> CachedPost | None:
    """Return what the route says of a ``POST`` of this path that is answered from the cache."""
    cache = destination.route.cache
    if cache is None or outgoing.method != "POST" or outgoing.header(b"content-encoding"):
        return None
    path = outgoing.path.decode("latin-1")
    return next((post for post in cache.post if fnmatchcase(path, post.path)), None)


async def _as_it_comes(exchange: Exchange, idle_seconds: float) -> AsyncIterator[bytes]:
    while True:
        try:
            with trio.fail_after(idle_seconds):
                piece = await exchange.receive()
        except trio.TooSlowError:
            raise HTTPError(408, "The body did not arrive in time.") from None
        if not piece:
            return
        yield piece
