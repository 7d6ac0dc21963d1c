"""Headers as values: which are for one connection, and which tell who calls.

Names are in lower case.
"""

from sidecar.http.messages import Headers

HeaderList = list[tuple[bytes, bytes]]

# What the common APIs take credentials in.
CREDENTIALS = frozenset(
    {
        b"api-key",
        b"authorization",
        b"x-api-key",
        b"x-auth-token",
        b"x-goog-api-key",
        b"x-sentry-auth",
    }
)
# RFC 9110 section 7.6.1, and those of section 11.7, which are for the next proxy.
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


def end_to_end(headers: Headers) -> HeaderList:
    """Return the headers that are not for one connection only (RFC 9110 section 7.6.1)."""
    named = set()
    for name, value in headers:
        if name == b"connection":
            named.update([option.strip().lower() for option in value.split(b",")])
    return [pair for pair in headers if pair[0] not in _HOP_BY_HOP and pair[0] not in named]


def without(headers: Headers, *names: bytes) -> HeaderList:
    """Return the headers but for those of these names."""
    return [(name, value) for name, value in headers if name not in names]
