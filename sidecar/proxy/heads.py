"""Redacts the target and the headers of what passes a redacting route.

What says how a message is to be read passes as it is, and so do the credentials that an upstream
asks for: they are meant for it, and without them no call succeeds.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from sidecar.http.headers import CREDENTIALS
from sidecar.proxy.forms import as_text, redact_query
from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report

# The key of each segment of a path. Where segments are needed as they are, a route keeps it.
PATH_KEY = "url.path"

# RFC 9110, RFC 9111 and https://www.w3.org/TR/trace-context/: what has a form of its own.
_STRUCTURAL = frozenset(
    {
        b"age",
        b"allow",
        b"cache-control",
        b"cache-status",
        b"connection",
        b"content-digest",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"date",
        b"etag",
        b"expect",
        b"expires",
        b"host",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"keep-alive",
        b"last-modified",
        b"pragma",
        b"proxy-authenticate",
        b"range",
        b"retry-after",
        b"te",
        b"traceparent",
        b"tracestate",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"vary",
        b"via",
        b"www-authenticate",
    }
)
_STRUCTURAL_PREFIXES = (b"accept", b"access-control-", b"sec-")
# These hold the target of a request to come.
_TARGETS = frozenset({b"content-location", b"location"})
# RFC 3986 section 3.3: what may stand in a segment.
_SEGMENT = "!$&'()*+,;=:@~"
# RFC 9110 section 5.5: what may not stand in a value.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def redact_target(
    path: bytes, query: bytes, redactor: Redactor, report: Report
) -> tuple[bytes, bytes]:
    """Redact the target of a request: segments of the path as text, the query as a form.

    Args:
        path: percent-encoded.
        query: what follows the ``?``, without it.
        redactor: the rules.
        report: takes the findings.

    Returns:
        Both, the same objects where nothing was found.

    Raises:
        UncheckedError: it could not be redacted.
        DropRecordError: a rule says that the request must not be passed on.
    """
    try:
        segments = [_segment(segment, redactor, report) for segment in path.split(b"/")]
        shown = b"/".join(segments)
        return (path if shown == path else shown), redact_query(query, redactor, report)
    except DropRecordError:
        raise
    except Exception:
        # The error's text may hold a piece of the target.
        raise UncheckedError("The target could not be redacted.") from None


def redact_headers(
    headers: list[tuple[bytes, bytes]], redactor: Redactor, report: Report
) -> list[tuple[bytes, bytes]]:
    """Redact the values of headers, each under its name as key.

    Args:
        headers: names in lower case, and values.
        redactor: the rules.
        report: takes the findings.

    Returns:
        The headers in their order, but for those that a rule drops, that are not allowed, or whose
        names tell something.

    Raises:
        UncheckedError: one could not be redacted.
        DropRecordError: a rule says that the message must not be passed on.
    """
    try:
        siblings = {as_text(name)[0]: as_text(value)[0] for name, value in headers}
        shown = []
        for name, value in headers:
            changed = _header(name, value, redactor, report, siblings)
            if changed is not None:
                shown.append((name, changed))
        return shown
    except DropRecordError:
        raise
    except Exception:
        # The error's text may hold a piece of a header.
        raise UncheckedError("The headers could not be redacted.") from None


def _segment(segment: bytes, redactor: Redactor, report: Report) -> bytes:
    text, charset = as_text(unquote_to_bytes(segment))
    changed = redactor.string(text, PATH_KEY, report, {})
    if changed is text:
        return segment
    return quote(changed or "", safe=_SEGMENT, encoding=charset, errors="replace").encode()


def _header(
    name: bytes, value: bytes, redactor: Redactor, report: Report, siblings: dict[str, str]
) -> bytes | None:
    """Return the value of a header redacted, None when the header goes."""
    if name in CREDENTIALS or name in _STRUCTURAL or name.startswith(_STRUCTURAL_PREFIXES):
        return value
    key, _ = as_text(name)
    if redactor.name(key, report) is not key:
        return None
    if redactor.restricted and not redactor.allows(key):
        redactor.removed(key, report)
        return None
    if name in _TARGETS:
        path, mark, query = value.partition(b"?")
        path, query = redact_target(path, query, redactor, report)
        return path + mark + query
    text, charset = as_text(value)
    changed = redactor.string(text, key, report, siblings)
    if changed is None or changed is text:
        return None if changed is None else value
    written = changed.encode(charset, errors="replace")
    return _CONTROL.sub(lambda control: b"%%%02X" % control[0][0], written)
