"""One call through the proxy: it is fetched from the upstream, and delivered to the client.

Without a client it is the cache that asks, for what it keeps.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from http import HTTPStatus
from typing import TypeVar

import msgspec

from sidecar import metrics
from sidecar.http.client import ClientError, Failure
from sidecar.http.headers import HeaderList
from sidecar.http.messages import Exchange, HTTPError
from sidecar.pressure import Held, Overloaded
from sidecar.proxy.destinations import Destination
from sidecar.proxy.forwarding import response_headers
from sidecar.proxy.incoming import redact_answer
from sidecar.proxy.model_calls import Failure as ModelFailure
from sidecar.proxy.model_calls import ModelCall
from sidecar.proxy.outgoing import Outgoing
from sidecar.proxy.upstream import Answer, UpstreamError, Whole, answer_of
from sidecar.redaction.walk_otlp import Outcome

T = TypeVar("T")

_STATUSES = frozenset(map(int, HTTPStatus))
_upstream_seconds = cache(metrics.PROXY_UPSTREAM_SECONDS.labels)
_responses = cache(metrics.PROXY_RESPONSES.labels)
_MODEL_FAILURES: dict[Failure, ModelFailure] = {
    "connect": "connection",
    "tls": "connection",
    "busy": "connection",
    "timeout": "timeout",
    "protocol": "cut",
    "cut": "cut",
}


class Call(msgspec.Struct):
    """One call.

    Attributes:
        destination: where it goes.
        outgoing: its request.
        via: what this gateway is called.
        max_body_bytes: of an answer that is read as a whole.
        exchange: with the client; None when there is none.
        held: takes what its bodies take of the memory that there is for them.
        outcome: takes what is found in the answer.
        model: what is measured of it, if it is a call of a model.
        delivering, delivered: whether the answer has begun to go to the client, and all of it has.
    """

    destination: Destination
    outgoing: Outgoing
    via: bytes
    max_body_bytes: int
    exchange: Exchange | None
    held: Held
    outcome: Outcome
    model: ModelCall | None = None
    delivering: bool = False
    delivered: bool = False

    async def fetch(self, extra: HeaderList, use: Callable[[Answer], Awaitable[T]]) -> T:
        """Call the upstream, and return what becomes of its answer.

        Args:
            extra: headers beside those of the request.
            use: gets the answer, redacted; the call ends when it returns.

        Raises:
            UpstreamError: there is no answer.
            WithheldError: it must not be passed on.
            Overloaded: there is no room for it.
        """
        outgoing, route = self.outgoing, self.destination.route
        headers = [*outgoing.headers, *extra, *outgoing.framing]
        model = self.model
        body = outgoing.body
        if model is not None:
            if isinstance(body, bytes):
                model.request(body)
            else:
                body = _Tapped(body, model.request)
            model.forward(time.perf_counter())
        started = time.perf_counter()
        try:
            async with self.destination.upstream.call(
                outgoing.method, outgoing.target, headers, body
            ) as response:
                _upstream_seconds(route.name).observe(time.perf_counter() - started)
                answer = answer_of(response)
                if model is not None:
                    kind, coding = answer.value(b"content-type"), answer.value(b"content-encoding")
                    model.head(answer.status, kind, coding)
                    answer.pieces = _Observed(answer.pieces, model)
                if route.redacts_response:
                    answer = await redact_answer(
                        answer,
                        self.destination,
                        outgoing.method,
                        outgoing.path,
                        self.held,
                        self.outcome,
                        self.max_body_bytes,
                    )
                return await use(answer)
        except (ClientError, UpstreamError) as error:
            if model is not None:
                model.fail(_MODEL_FAILURES[error.failure])
            raise UpstreamError(error.failure) from None
        except (HTTPError, Overloaded):
            if model is not None:
                model.fail("withheld")
            raise
        finally:
            if model is not None:
                model.fail("client_gone")

    async def deliver(self, answer: Answer) -> None:
        """Send an answer to the client, piece by piece as it comes, but not its end.

        Args:
            answer: with the headers that are for the client.

        Raises:
            HTTPError: it did not come whole.
        """
        exchange = self.exchange
        if exchange is not None:
            self.delivering = True
            status = answer.status if answer.status in _STATUSES else "other"
            _responses(self.destination.route.name, status).inc()
            headers = response_headers(answer.status, answer.headers, self.via)
            piece = answer.pieces.next() if isinstance(answer.pieces, Whole) else b""
            await exchange.start(answer.status, headers, piece)
        async for piece in answer.pieces:
            if exchange is not None:
                await exchange.send(piece)
        self.delivered = True


class _Tapped:
    """Pieces of a request, shown to another as they pass."""

    def __init__(self, pieces: AsyncIterator[bytes], show: Callable[[bytes], None]) -> None:
        self._pieces = pieces
        self._show = show

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self._show(piece)
        return piece


class _Observed:
    """Pieces of the answer of a model, measured as they pass."""

    def __init__(self, pieces: AsyncIterator[bytes], model: ModelCall) -> None:
        self._pieces = pieces
        self._model = model

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._model.end()
            raise
        self._model.piece(piece, time.perf_counter())
        return piece
