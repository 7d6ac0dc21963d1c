"""Keys of stored responses: the same call of the same caller, the same key.

A key reads ``http:<route>:<method>:<digest>``. The digest is of all that decides what a response
may be used for (RFC 9111 sections 2 and 4): route, method, target URI, the body of a ``POST``, and
the caller's credentials. So nothing of a URI, of a body or of a credential can be read in it.

Unless a route says ``shared``, callers with different credentials have different keys, and no
response to one of them is ever found by another: the cache is a shared one, split into one per
caller. That is how it keeps to RFC 9111 section 3.5; what it does with ``shared`` is in
`sidecar.cache.rfc9111`.
"""

import hashlib
import json
import re
from functools import lru_cache
from operator import itemgetter
from typing import Any
from urllib.parse import urljoin, urlsplit

from sidecar.cache.fields import values
from sidecar.cache.keys import canonical
from sidecar.cache.stored import Stored, Varies, selection
from sidecar.http import headers
from sidecar.http.messages import Headers

CREDENTIALS = tuple(sorted(headers.CREDENTIALS | {b"cookie", b"proxy-authorization"}))
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What has the origin, path and query, and a fragment, which is no part of a target.
_URL = re.compile(r"([^:/?#]+://[^/?#]*)([^#]*)")


def key_of(
    route: str, method: str, url: str, request: Headers, *, shared: bool, body: bytes = b""
) -> str | None:
    """Return the primary key of a call, or None when the cache has no part in it.

    Args:
        route: the name of the route.
        method: ``GET``, ``HEAD``, which has the key of ``GET``, or ``POST``; no other has a key.
        url: the target at the upstream, absolute.
        request: the caller's headers, its credentials among them.
        shared: leave the credentials out.
        body: of a ``POST``, as it goes to the upstream. Equal is what is the same JSON value, as in
            `sidecar.cache.keys`, whatever its ``Content-Type``. None is returned for what is no
            JSON, or names a member twice: readers differ in what that means.
    """
    if method not in ("GET", "HEAD", "POST"):
        return None
    target = _normal(url)
    if target is None:
        return None
    parts: list[Any] = [route, target, None if shared else _credentials(request)]
    try:
        if method == "POST":
            parts.append(json_value(body))
        text = canonical(parts)
    except (ValueError, RecursionError):
        return None
    method = "GET" if method == "HEAD" else method
    return f"http:{route}:{method}:{hashlib.sha256(text.encode()).hexdigest()}"


def variant_key(primary: str, varies: Varies, request: Headers) -> str:
    """Return the key of the response that this request may have (RFC 9111 section 4.1)."""
    chosen = hashlib.sha256(selection(varies.names, request) + repr(varies.born).encode())
    return f"{primary}:{chosen.hexdigest()}"


def placed(
    primary: str,
    request: Headers,
    stored: Stored,
    seconds: float,
    found: Stored | Varies | None,
    found_seconds: float,
) -> list[tuple[str, Stored | Varies, float]]:
    """Return what to keep, in this order: key, entry and for how many seconds.

    Args:
        primary: the key of the call.
        request: its headers.
        stored: the response.
        seconds: what `sidecar.cache.rfc9111.storable` told of it.
        found: what is under the primary key now, and
        found_seconds: for how long still.
    """
    if not stored.vary:
        return [(primary, stored, seconds)]
    varies = found
    if not isinstance(varies, Varies) or varies.names != stored.vary:
        varies, found_seconds = Varies(stored.vary, stored.response_time), 0.0
    places: list[tuple[str, Stored | Varies, float]] = [
        (variant_key(primary, varies, request), stored, seconds)
    ]
    if found_seconds < seconds:
        places.append((primary, varies, seconds))
    return places


def invalidated(
    route: str,
    method: str,
    url: str,
    request: Headers,
    status: int,
    response: Headers,
    *,
    shared: bool,
) -> list[str]:
    """Return the keys to delete after a call (RFC 9111 section 4.4).

    After an unsafe method and no error: those of the target URI, and of ``Location`` and
    ``Content-Location`` if they are of the same origin; of the caller's own responses to ``GET``,
    and with ``shared`` of all. Not to be asked for a ``POST`` that is answered from the cache: the
    operator says that it changes nothing.
    """
    if method in _SAFE or not 200 <= status < 400:
        return []
    urls = [url]
    for name in (b"location", b"content-location"):
        others = (_joined(url, reference) for reference in values(response, name))
        urls += [each for each in others if each and _origin(each) == _origin(url)]
    keys = [key_of(route, "GET", each, request, shared=shared) for each in urls]
    return list(dict.fromkeys(key for key in keys if key is not None))


def json_value(body: bytes) -> Any:
    """Return the one JSON value that a body is.

    Raises:
        ValueError: it is none, or is ambiguous: a member named twice, or a number that is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_refuse)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _credentials(request: Headers) -> list[tuple[str, str]]:
    given = [
        (name.decode(), value.decode("latin-1").strip(" \t"))
        for name, value in request
        if name in CREDENTIALS
    ]
    given.sort(key=itemgetter(0))
    return given


def _joined(url: str, reference: str) -> str | None:
    try:
        return urljoin(url, reference)
    except ValueError:
        return None


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port (RFC 9110 section 4.3.1), or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname:
        return None
    return (parts.scheme, parts.hostname, port or _DEFAULT_PORTS.get(parts.scheme))


# Of the upstreams, which are few.
_known_origin = lru_cache(maxsize=64)(_origin)


def _normal(url: str) -> list[str | int | None] | None:
    """Return the one form of a URL: of scheme, host, port and an empty path (RFC 9110 4.2.3)."""
    found = _URL.match(url) if url.isascii() and url.isprintable() else None
    origin = _known_origin(found[1]) if found else None
    if found is None or origin is None:
        return None
    path = found[2]
    return [*origin, path if path.startswith("/") else "/" + path]
