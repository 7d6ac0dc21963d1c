"""What a gateway does to the heads of requests and responses (RFC 9110 section 7.6).

Pure: headers in, headers out. Names are in lower case. Bodies are framed anew on each side, so
nothing of the framing of one side reaches the other.
"""

from urllib.parse import unquote_to_bytes

from sidecar.http.messages import Headers, HTTPError, Request

HeaderList = list[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1, and those of section 11.7, which are for the next proxy: this one.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
# Of the body as it was: wrong when it is changed (RFC 9530, RFC 2616 section 14.15).
_DIGESTS = frozenset({b"content-digest", b"content-md5", b"digest", b"repr-digest"})


def end_to_end(headers: Headers) -> HeaderList:
    """Return the headers that are not for one connection only (RFC 9110 section 7.6.1)."""
    named = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return [
        (name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in named
    ]


def without(headers: Headers, *names: bytes) -> HeaderList:
    """Return the headers but for those of these names."""
    return [(name, value) for name, value in headers if name not in names]


def of_changed_body(headers: Headers) -> HeaderList:
    """Return the headers but for those that are wrong for another body than theirs."""
    return [(n, v) for n, v in headers if n not in _DIGESTS and n != b"content-length"]


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
    if any(n == b"via" and via in v.replace(b",", b" ").split() for n, v in request.raw_headers):
        raise HTTPError(508, "The route's upstream leads back to this sidecar.")
    # `Expect` is answered by the server of this side (section 10.1.1).
    dropped = {b"host", b"expect", b"content-length"} | _FORWARDED
    headers = [(b"host", host)]
    headers += [(n, v) for n, v in end_to_end(request.raw_headers) if n not in dropped]
    if forwarded:
        headers += _forwarded(request)
    headers.append((b"via", b"1.1 " + via))
    return headers


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


def response_headers(headers: Headers, via: bytes) -> HeaderList:
    """Return the headers of a response as it goes back."""
    return [*end_to_end(headers), (b"via", b"1.1 " + via)]


def target_of(base: bytes, rest: bytes) -> bytes:
    """Return the path at the upstream.

    Args:
        base: the path of the route's URL.
        rest: what follows the route's name in the request, percent-encoded; empty, or begins
            with a slash.

    Raises:
        HTTPError: 400, the path would climb out of ``base``: it has a segment ``.`` or ``..``,
            also percent-encoded. An upstream may read a backslash or ``%2F`` as a slash.
    """
    for segment in rest.split(b"/"):
        parts = unquote_to_bytes(segment).replace(b"\\", b"/").split(b"/")
        if b"." in parts or b".." in parts:
            raise HTTPError(400, "The path must not have segments of dots.")
    return (base.rstrip(b"/") + rest) or b"/"
