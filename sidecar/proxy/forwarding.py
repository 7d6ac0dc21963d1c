"""What a gateway does to the heads of requests and responses (RFC 9110 section 7.6).

Pure: headers in, headers out. Names are in lower case. Bodies are framed anew on each side, so
nothing of the framing of one side reaches the other.
"""

import re
from urllib.parse import unquote_to_bytes

from sidecar.http.headers import HeaderList, end_to_end, without
from sidecar.http.messages import Headers, HTTPError, Request
from sidecar.proxy.unchecked import UncheckedError

# These are written anew: the host is the upstream's, the body is framed by `body_framing`, and
# `Expect` is answered by the server of this side (section 10.1.1).
_REPLACED = frozenset({b"host", b"expect", b"content-length"})
# RFC 7239, and what was there before it.
_FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip")
# What is larger is taken for this (RFC 9110 section 7.6.2).
_MOST_FORWARDS = 2**31 - 1
# Of the body as it was: wrong when it is changed (RFC 9530, RFC 2616 section 14.15).
_DIGESTS = frozenset({b"content-digest", b"content-md5", b"digest", b"repr-digest"})
# What a segment of dots is made of, encoded or not.
_DOT = re.compile(rb"[.%]")
_QUOTED = re.compile(rb'"[^"]*"')


def of_changed_body(headers: Headers) -> HeaderList:
    """Return the headers but for those that are wrong for another body than theirs."""
    return [(n, v) for n, v in headers if n not in _DIGESTS and n != b"content-length"]


def content_type(headers: Headers) -> str:
    """Return the media type of a body, ``""`` when it has none.

    Raises:
        UncheckedError: it has several (RFC 9110 section 8.3), and whoever reads it takes the one
            or the other.
    """
    values = [value for name, value in headers if name == b"content-type"]
    if len(values) > 1 or any(b"," in _QUOTED.sub(b"", value) for value in values):
        raise UncheckedError("The body has more than one Content-Type.")
    return values[0].decode("latin-1") if values else ""


def request_headers(request: Request, host: bytes, via: bytes, *, forwarded: bool) -> HeaderList:
    """Return the headers of a request as it goes on, without those that frame its body.

    Args:
        request: as it came.
        host: of the upstream, with its port where that is not the default.
        via: what this gateway is called.
        forwarded: tell from where it came, in ``X-Forwarded-*``.

    Raises:
        HTTPError: 508, it has passed here before.
    """
    for name, value in request.raw_headers:
        if name == b"via" and via in value.replace(b",", b" ").split():
            raise HTTPError(508, "The route's upstream leads back to this sidecar.")
    headers = [(b"host", host)]
    for pair in end_to_end(request.raw_headers):
        name = pair[0]
        if name in _REPLACED or name.startswith(_FORWARDED):
            continue
        if name == b"max-forwards" and (left := forwards_left(request)) is not None:
            pair = name, b"%d" % (left - 1)
        headers.append(pair)
    if forwarded:
        headers += _forwarded(request)
    headers.append((b"via", b"1.1 " + via))
    return headers


def forwards_left(request: Request) -> int | None:
    """Return how often a request may go on, if it says so (RFC 9110 section 7.6.2)."""
    value = request.headers.get("max-forwards", "")
    if request.method != "OPTIONS" or not (value.isascii() and value.isdecimal()):
        return None
    return _MOST_FORWARDS if len(value) > 9 else int(value)


def _forwarded(request: Request) -> HeaderList:
    came = {name: value.encode("latin-1") for name, value in request.headers.items()}
    client = request.client.encode()
    before = came.get("x-forwarded-for")
    return [
        (b"x-forwarded-for", b"%b, %b" % (before, client) if before else client),
        (b"x-forwarded-host", came.get("x-forwarded-host", came.get("host", b""))),
        (b"x-forwarded-proto", came.get("x-forwarded-proto", b"http")),
    ]


def body_framing(request: Request) -> HeaderList:
    """Return the headers that frame a request body which is passed on as it comes; none: no body.

    A length beside a transfer coding means nothing (RFC 9112 section 6.3).
    """
    length = request.headers.get("content-length")
    if "transfer-encoding" in request.headers:
        return [(b"transfer-encoding", b"chunked")]
    return [] if length is None else [(b"content-length", length.encode("latin-1"))]


def response_headers(status: int, headers: Headers, via: bytes) -> HeaderList:
    """Return the headers of a response as it goes back.

    A length beside a transfer coding means nothing (RFC 9112 section 6.3), and a 204 has none
    (RFC 9110 section 8.6).
    """
    shown = end_to_end(headers)
    if status == 204 or b"transfer-encoding" in [name for name, _ in headers]:
        shown = without(shown, b"content-length")
    return [*shown, (b"via", b"1.1 " + via)]


def target_of(base: bytes, rest: bytes) -> bytes:
    """Return the path at the upstream.

    Args:
        base: the path of the route's URL.
        rest: what follows the route's name in the request, percent-encoded; empty, or begins
            with a slash.

    Raises:
        HTTPError: 400, the path would climb out of ``base``: it has a segment ``.`` or ``..``,
            also percent-encoded. An upstream may read a backslash or ``%2F`` as a slash, and may
            leave out what follows a semicolon. Or it has a fragment, which none may have
            (RFC 9112 section 3.2.1).
    """
    if b"#" in rest:
        raise HTTPError(400, "The path must not have a fragment.")
    for segment in rest.split(b"/") if _DOT.search(rest) else ():
        for part in unquote_to_bytes(segment).replace(b"\\", b"/").split(b"/"):
            if part.partition(b";")[0] in (b".", b".."):
                raise HTTPError(400, "The path must not have segments of dots.")
    return (base.rstrip(b"/") + rest) or b"/"
