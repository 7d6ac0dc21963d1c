"""Redacts bodies by their type.

Fails closed: what cannot be looked into is an error, and what becomes of a type that is not known
here, the route says. What is not changed is the same object.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Generator

import zstandard

from sidecar.http.body import decompress
from sidecar.http.messages import HTTPError
from sidecar.proxy.documents import redact_document, redact_lines, redact_text
from sidecar.proxy.event_stream import EventStreamRedactor
from sidecar.proxy.forms import redact_form
from sidecar.proxy.otlp import otlp_signal, redact_answer, redact_json_request, redact_protobuf
from sidecar.proxy.route import Unknown
from sidecar.proxy.sentry import redact_envelope
from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import holds_json
from sidecar.redaction.walk_otlp import Outcome

_JSON = re.compile(r"application/(?:json|csp-report|[^/]+\+json)")
_JSON_LINES = frozenset(
    {
        "application/json-lines",
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/x-jsonlines",
        "application/x-ndjson",
    }
)
_FORM = "application/x-www-form-urlencoded"
_PROTOBUF = frozenset({"application/x-protobuf", "application/protobuf"})
_ENVELOPE = "application/x-sentry-envelope"
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]*)', re.IGNORECASE)

# RFC 1952 section 2.3.1, with the one method there is.
_GZIP = b"\x1f\x8b\x08"
_GZIP_LEVEL = 4


def redact_body(
    body: bytes,
    content_type: str,
    path: str,
    redactor: Redactor,
    outcome: Outcome,
    *,
    limit: int,
    unknown: Unknown = "block",
    is_answer: bool = False,
) -> Generator[None, None, bytes]:
    """Redact the body of a request or response, as its type says how to read it.

    Args:
        body: all of it, decompressed.
        content_type: the header, ``""`` when there is none.
        path: of the request.
        redactor: the rules for the signal ``http``.
        outcome: takes the findings; in bodies of several records (OTLP, Sentry's envelopes, lines
            of JSON) also what was left out of them.
        limit: the most bytes that it may have when it is gzip within, and one event of a stream.
        unknown: what becomes of items of an envelope that are of no known type.
        is_answer: whether this is a response.

    Yields:
        After each record of such a body, for `sidecar.work.work_in_turns`.

    Returns:
        The redacted body; the same object when nothing in it was changed. OTLP in JSON is always
        written anew.

    Raises:
        UnknownTypeError: nobody can look into a body of this type.
        UncheckedError: it is not what its type says, or could not be redacted; the message is for
            the sender.
        DropRecordError: a rule says that it must not be passed on, as a whole.
    """
    try:
        return (
            yield from _redact(
                body, content_type, path, redactor, outcome, limit, unknown, is_answer
            )
        )
    except (UncheckedError, UnknownTypeError, DropRecordError):
        raise
    except Exception:
        # The error's text may hold a piece of the body.
        raise UncheckedError("The body could not be redacted.") from None


def recompress(body: bytes, coding: str) -> bytes:
    """Return a body in a content coding that `decompress` reads; equal bodies become equal bytes.

    Raises:
        ValueError: another coding.
    """
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)
    if coding == "deflate":
        return zlib.compress(body)
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(body)
    raise ValueError(coding)


def _redact(
    body: bytes,
    content_type: str,
    path: str,
    redactor: Redactor,
    outcome: Outcome,
    limit: int,
    unknown: Unknown,
    is_answer: bool,
) -> Generator[None, None, bytes]:
    if not body:
        return body
    kind = content_type.partition(";")[0].strip().lower()
    report = outcome.report
    otlp = otlp_signal(path)
    if otlp is not None and kind in _PROTOBUF:
        if is_answer:
            return redact_answer(otlp, body, redactor, report)
        return (yield from redact_protobuf(otlp, body, redactor, outcome))
    is_text = kind == _FORM or kind.startswith("text/") or _is_json(kind)
    if is_text and body.startswith(_GZIP):
        # As PostHog's clients in browsers do: they must not set Content-Encoding there.
        plain = _gunzip(body, limit)
        changed = yield from _redact(
            plain, content_type, path, redactor, outcome, limit, unknown, is_answer
        )
        return body if changed is plain else recompress(changed, "gzip")
    is_envelope = kind == _ENVELOPE or (kind in ("", "text/plain") and _is_envelope_path(path))
    if is_envelope and not is_answer:
        return (yield from redact_envelope(body, redactor, outcome, unknown))
    if kind in _JSON_LINES:
        return (yield from redact_lines(body, redactor, outcome))
    if _is_json(kind):
        if otlp is not None and not is_answer:
            return (yield from redact_json_request(otlp, body, redactor, outcome))
        return redact_document(body, redactor, report)
    if kind == _FORM:
        return (yield from _form(body, redactor, report))
    if kind == "text/event-stream":
        stream = EventStreamRedactor(redactor, report, limit)
        changed = stream.feed(body) + stream.finish()
        return body if changed == body else changed
    if kind.startswith("text/"):
        return _text(body, content_type, redactor, report)
    raise UnknownTypeError("The body is of a type that cannot be redacted.")


def _is_json(kind: str) -> bool:
    return kind in _JSON_LINES or _JSON.fullmatch(kind) is not None


def _is_envelope_path(path: str) -> bool:
    return path.rstrip("/").endswith("/envelope")


def _gunzip(body: bytes, limit: int) -> bytes:
    try:
        plain = decompress(body, "gzip", limit)
    except HTTPError as error:
        raise UncheckedError(error.detail) from None
    if plain.startswith(_GZIP):
        raise UncheckedError("The body is compressed twice.")
    return plain


def _form(body: bytes, redactor: Redactor, report: Report) -> Generator[None, None, bytes]:
    if holds_json(body.decode("latin-1")):
        try:
            # What `curl -d` sends without a type.
            return redact_document(body, redactor, report)
        except UncheckedError:
            pass
    return (yield from redact_form(body, redactor, report))


def _text(body: bytes, content_type: str, redactor: Redactor, report: Report) -> bytes:
    declared = _CHARSET.search(content_type)
    try:
        charset = codecs.lookup(declared[1] if declared else "utf-8").name
        text = body.decode(charset)
    except LookupError:
        raise UnknownTypeError("The text is in a charset that cannot be redacted.") from None
    except UnicodeError:
        raise UncheckedError("The text is not in the charset that it should be in.") from None
    changed = redact_text(text, redactor, report)
    written = body if changed == text else changed.encode(charset, errors="replace")
    if charset not in ("utf-8", "ascii"):
        # An upstream may read it as if no charset were declared.
        plain = written.decode("latin-1")
        if redactor.string(plain, "", Report(), {}) is not plain:
            raise UncheckedError("The text is in another charset than it says.")
    return written
