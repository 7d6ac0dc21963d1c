"""What is measured of the calls of models on a route with ``observe: llm``.

Everything is told to it as it passes, with its time; nothing of it is kept but numbers and the
name of the model. Times are seconds of any clock that does not go back.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

import msgspec

from sidecar import metrics
from sidecar.proxy.json_members import JsonMembers
from sidecar.proxy.model_answers import Reader, reader_of
from sidecar.proxy.model_events import Told

Failure = Literal["timeout", "connection", "cut", "withheld", "client_gone"]

_PATHS = (
    "/completions",
    "/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/api/embed",
)
# How far the name of the model is looked for in a request.
_REQUEST_BYTES = 2**20
_NAME_BYTES = 256
# Content within less time came in one go, after it was held up on its way.
_SHORTEST_SECONDS = 0.01
# So many digits in a row may be a number of a person; a date has 8.
_MODEL = re.compile(r"(?!.*\d{9})[A-Za-z0-9._:/-]{1,64}")
_MOST_MODELS = 50
OTHER = "other"
_STATUSES = frozenset(map(int, HTTPStatus))


def is_model_call(method: str, path: str) -> bool:
    """Return whether a model is to say, or to embed, something; the path is without a query."""
    return method == "POST" and path.rstrip("/").endswith(_PATHS)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one call came to.

    Attributes:
        model: as the request calls it, else as the answer does.
        status: of HTTP; ``none``: there was no answer; ``cached``: the upstream was not asked.
        ttfb: seconds from the call of the upstream to the first byte of the answer's body.
        first_token: the same to the first content, reasoning or call of a tool of a stream.
        prompt_tokens, completion_tokens: as the server counts; without that, of a stream, the
            pieces of its content.
        tokens_per_second: as the server measured it; else those that came after the first piece of
            content, by the time from it to the last. Reasoning that was not sent is left out.
        error: what went wrong: a `Failure`, ``rate_limited``, ``client_error``, ``server_error``,
            or ``event``, an error that a stream told of.
        unread: events that could not be read.
    """

    route: str
    model: str | None = None
    status: str
    ttfb: float | None = None
    first_token: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    error: str | None = None
    unread: int = 0


class ModelCall:
    """One call; whatever is told of it, no method raises.

    Of `cached`, `end` and `fail` the first counts. A call of which the upstream was not told, with
    `forward`, is none.
    """

    def __init__(self, route: str, done: Callable[[Measured], None]) -> None:
        """Begin.

        Args:
            route: its name.
            done: gets what the call came to, once.
        """
        self._route = route
        self._done: Callable[[Measured], None] | None = done
        self._request = JsonMembers(frozenset({b"model"}), _NAME_BYTES)
        self._request_room = _REQUEST_BYTES
        self._started: float | None = None
        self._status: int | None = None
        self._told = Told()
        self._reader: Reader | None = None
        self._first_byte: float | None = None
        self._first_token: float | None = None
        self._last_token = 0.0
        self._first_pieces = 0

    def request(self, data: bytes) -> None:
        """Look at a piece of the request's body, as it goes to the upstream: redacted."""
        if not self._request.done and not self._request.found and self._request_room > 0:
            self._request.feed(data[: self._request_room])
            self._request_room -= len(data)

    def forward(self, now: float) -> None:
        """The upstream is called now."""
        self._started = now

    def head(self, status: int, content_type: str, coding: str) -> None:
        """The head of the answer has come; ``coding`` is the body's ``Content-Encoding``."""
        self._status = status
        if 200 <= status < 300:
            self._reader = reader_of(content_type, coding, self._told)

    def piece(self, data: bytes, now: float) -> None:
        """A piece of the answer's body has come, as the upstream coded it."""
        if not data:
            return
        if self._first_byte is None:
            self._first_byte = now
        if self._reader is None:
            return
        before = self._told.pieces
        self._reader.feed(data)
        if self._told.pieces > before:
            self._last_token = now
            if self._first_token is None:
                self._first_token = now
                self._first_pieces = self._told.pieces

    def end(self) -> None:
        """The whole answer has come."""
        if self._reader:
            self._reader.end()
        self._finish(_error_of(self._status, self._told))

    def fail(self, kind: Failure) -> None:
        """The call ended before its answer had come whole.

        A client that leaves when a stream has said that it is over has its answer.
        """
        over = kind == "client_gone" and self._told.ended
        self._finish(_error_of(self._status, self._told) if over else kind)

    def cached(self) -> None:
        """It is answered without the upstream."""
        if self._done:
            self._done(Measured(route=self._route, model=self._model(), status="cached"))
            self._done = None

    def _finish(self, error: str | None) -> None:
        if self._started is None or self._done is None:
            return
        told = self._told
        counted = told.completion_tokens
        measured = Measured(
            route=self._route,
            model=self._model(),
            status="none" if self._status is None else str(self._status),
            ttfb=_since(self._started, self._first_byte),
            first_token=_since(self._started, self._first_token),
            prompt_tokens=told.prompt_tokens,
            completion_tokens=counted if counted is not None else told.pieces or None,
            tokens_per_second=self._speed(),
            error=error,
            unread=told.unread,
        )
        self._done(measured)
        self._done = None

    def _model(self) -> str | None:
        try:
            return msgspec.json.decode(self._request.found.get(b"model", b""), type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._told.model

    def _speed(self) -> float | None:
        told = self._told
        if told.tokens_per_second is not None or self._first_token is None:
            return told.tokens_per_second
        seconds = self._last_token - self._first_token
        tokens = told.pieces if told.completion_tokens is None else told.completion_tokens
        if not told.reasoned:
            tokens -= told.reasoning_tokens
        later = tokens * (1 - self._first_pieces / told.pieces)
        return later / seconds if seconds >= _SHORTEST_SECONDS and later > 0 else None


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else end - start


def _error_of(status: int | None, told: Told) -> str | None:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limited"
    if status is not None and status >= 400:
        return "server_error" if status >= 500 else "client_error"
    return "event" if told.failed else None


class ModelCalls:
    """The model calls of the process, and their metrics.

    There is one, since it bounds their labels: a model gets a label of its own when an upstream
    has answered for it with success, up to 50 on all routes together. All others are ``other``, and
    so is a name that is long or unlike a model's.
    """

    def __init__(self) -> None:
        self._models: set[tuple[str, str]] = set()

    def begin(self, route: str, method: str, path: str) -> ModelCall | None:
        """Return what a request is to be told to; None: it is no call of a model."""
        return ModelCall(route, self.count) if is_model_call(method, path) else None

    def count(self, call: Measured) -> None:
        """Feed the metrics."""
        labels = (call.route, self._label(call))
        metrics.MODEL_CALLS.labels(*labels, _status_label(call.status)).inc()
        if call.error:
            metrics.MODEL_ERRORS.labels(*labels, call.error).inc()
        if call.ttfb is not None and _is_success(call):
            metrics.TTFB.observe(call.ttfb)
            metrics.MODEL_TTFB.labels(*labels).observe(call.ttfb)
        if call.first_token is not None:
            metrics.MODEL_FIRST_TOKEN.labels(*labels).observe(call.first_token)
        if call.tokens_per_second is not None:
            metrics.TOKENS_PER_SECOND.set(call.tokens_per_second)
            metrics.MODEL_SPEED.labels(*labels).observe(call.tokens_per_second)
        for kind, tokens in (
            ("prompt", call.prompt_tokens),
            ("completion", call.completion_tokens),
        ):
            if tokens:
                metrics.MODEL_TOKENS.labels(*labels, kind).inc(tokens)
        if call.unread:
            metrics.MODEL_UNREAD.labels(call.route).inc(call.unread)

    def _label(self, call: Measured) -> str:
        if call.model is None or not _MODEL.fullmatch(call.model):
            return OTHER
        known = (call.route, call.model) in self._models
        if not known and len(self._models) < _MOST_MODELS and _is_success(call):
            self._models.add((call.route, call.model))
            known = True
        return call.model if known else OTHER


def _is_success(call: Measured) -> bool:
    return call.status == "cached" or call.status.startswith("2")


def _status_label(status: str) -> str:
    return OTHER if status.isdecimal() and int(status) not in _STATUSES else status
