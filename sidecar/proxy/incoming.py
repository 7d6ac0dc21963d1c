"""A response as it goes back to the client: redacted where its route says so."""

from collections.abc import AsyncIterator, Callable
from functools import partial

from sidecar.http.body import decompress
from sidecar.http.headers import without
from sidecar.http.messages import HTTPError
from sidecar.pressure import Held
from sidecar.proxy.bodies import redact_body
from sidecar.proxy.destinations import Destination
from sidecar.proxy.event_stream import EventStreamRedactor
from sidecar.proxy.forwarding import content_type, of_changed_body
from sidecar.proxy.heads import redact_headers
from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.proxy.upstream import Answer, Whole
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.walk_otlp import Outcome
from sidecar.work import work, work_in_turns

_WITHOUT_BODY = frozenset({204, 304})
_NOT_REDACTED = "The upstream's answer could not be redacted, so it is not passed on."


class WithheldError(HTTPError):
    """The answer of the upstream could not be checked, so it does not come back."""

    def __init__(self, detail: str = _NOT_REDACTED) -> None:
        super().__init__(502, detail)


async def redact_answer(
    answer: Answer,
    destination: Destination,
    method: str,
    path: bytes,
    held: Held,
    outcome: Outcome,
    max_body_bytes: int,
) -> Answer:
    """Return the answer as it may go back.

    A stream of events goes on event by event; any other body is read as a whole first.

    Args:
        answer: of the upstream.
        destination: where it comes from.
        method: of the request.
        path: of the request.
        held: takes what the body takes.
        outcome: takes what is found.
        max_body_bytes: of a body, compressed and decompressed, or of one event.

    Raises:
        WithheldError: it could not be checked, or a rule says that it is not passed on.
        UpstreamError: it did not come whole.
        Overloaded: there is no room for it.
    """
    try:
        headers = redact_headers(answer.headers, destination.redactor, outcome.report)
        if answer.status in _WITHOUT_BODY:
            return Answer(answer.status, headers, answer.pieces)
        if method == "HEAD":
            # Not necessarily those of what `GET` gets (RFC 9110 section 8.6).
            return Answer(answer.status, of_changed_body(headers), answer.pieces)
        if answer.status == 206:
            raise WithheldError("The upstream's answer is a part, which cannot be checked.")
        coding = answer.value(b"content-encoding").strip().lower()
        kind = content_type(answer.headers)
        if kind.lower().partition(";")[0].strip() == "text/event-stream" and coding in (
            "",
            "identity",
        ):
            stream = EventStreamRedactor(destination.redactor, outcome.report, max_body_bytes)
            return Answer(answer.status, of_changed_body(headers), _Events(answer.pieces, stream))
        body = await _read(answer, held, max_body_bytes)
        redacted = await _redacted(body, coding, kind, destination, path, outcome, max_body_bytes)
    except UncheckedError:
        raise WithheldError from None
    except DropRecordError:
        raise WithheldError("A rule says that the upstream's answer is not passed on.") from None
    if redacted is None:
        return Answer(answer.status, headers, Whole(body))
    headers = without(of_changed_body(headers), b"content-encoding", b"etag", b"accept-ranges")
    headers.append((b"content-length", b"%d" % len(redacted)))
    return Answer(answer.status, headers, Whole(redacted), incomplete=bool(body and not redacted))


async def _read(answer: Answer, held: Held, limit: int) -> bytes:
    body = bytearray()
    async for piece in answer.pieces:
        held.take(len(piece))
        body += piece
        if len(body) > limit:
            raise WithheldError(f"The upstream's answer is larger than {limit} bytes.")
    return bytes(body)


async def _redacted(
    body: bytes,
    coding: str,
    kind: str,
    destination: Destination,
    path: bytes,
    outcome: Outcome,
    limit: int,
) -> bytes | None:
    """Return the body redacted and without a coding, or None when it goes on as it came."""
    unknown = destination.route.unknown
    try:
        plain = decompress(body, coding, limit) if body else body
    except HTTPError:
        raise WithheldError from None
    held_plain = redact_body(
        plain,
        kind,
        path.decode("latin-1"),
        destination.redactor,
        outcome,
        limit=limit,
        unknown=unknown,
        is_answer=True,
    )
    try:
        redacted = await work_in_turns(len(plain), held_plain)
    except UnknownTypeError:
        if unknown == "pass":
            return None
        if unknown == "drop":
            return b""
        raise WithheldError(
            "The upstream's answer is of a type that cannot be redacted. See `unknown` of the "
            "route."
        ) from None
    return None if redacted is plain else redacted


class _Events:
    """A stream of events, redacted as they come."""

    def __init__(self, pieces: AsyncIterator[bytes], stream: EventStreamRedactor) -> None:
        self._pieces = pieces
        self._stream = stream
        self._over = False
        self._waiting = 0  # bytes of an event that is not complete

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        redact: Callable[[], bytes]
        try:
            while not self._over:
                try:
                    piece = await anext(self._pieces)
                except StopAsyncIteration:
                    self._over = True
                    redact = self._stream.finish
                else:
                    self._waiting += len(piece)
                    redact = partial(self._stream.feed, piece)
                if redacted := await work(self._waiting, redact):
                    self._waiting = 0
                    return redacted
        except (UncheckedError, DropRecordError):
            raise WithheldError from None
        raise StopAsyncIteration
