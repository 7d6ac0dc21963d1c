"""What a shared HTTP cache may store, and what it may answer with (RFC 9111, RFC 5861).

Pure: no clock and no storage; times are seconds since 1970. Where an RFC leaves a choice, or the
operator's word stands for the origin's:

- An answer that does not say how long it is fresh is so for the route's ``ttl``; with none, not at
  all. There is no guess from ``Last-Modified`` (section 4.2.2).
- ``POST`` is cached only where the operator says that the answer depends on nothing but the body
  (`CachedPost`). It is fresh for ``ttl``, else for an hour, unless it says otherwise. The word of
  the operator also stands against ``no-cache``, with which servers of models keep proxies from
  holding up their streams, and against ``Set-Cookie``, which is left out of what is stored.
- Callers have a cache each (`sidecar.cache.http_keys`), which is what section 3.5 wants. With
  ``shared`` its rule holds for ``GET``, of all credentials: an answer to them is stored only if it
  says ``public``, ``s-maxage`` or ``must-revalidate``. For ``POST`` the operator's word is enough:
  it was given call by call.
- ``Set-Cookie`` is not stored, nor, but for ``POST``, is what it came with: a cookie is made for
  one client, and answering with it again would give a session to another one, or bring back one
  that has ended.
- Errors of the server (5xx) are never stored, whatever they say: the next call shall try again.
- Stale answers are given as the response says and, where it says nothing and was fresh once, as
  the route does. ``no-cache``, ``must-revalidate``, ``proxy-revalidate`` and ``s-maxage`` forbid
  them (section 4.2.4), also beside ``stale-while-revalidate``.
- Requests for a range, and those that must not happen unless something matches (RFC 9110 sections
  13.1.1, 13.1.4 and 14.2), go to the upstream.
"""

from typing import Literal

import msgspec

from sidecar.cache.fields import (
    MAX_SECONDS,
    combined,
    date_field,
    delta_seconds,
    directives,
    entity_tag,
    http_date,
    values,
)
from sidecar.cache.http_keys import CREDENTIALS
from sidecar.cache.stored import Stored, Varies
from sidecar.http.messages import Headers
from sidecar.proxy.route import RouteCache

Forwarded = Literal["bypass", "method", "uri-miss", "vary-miss", "request", "stale"]

# In place of these a stale answer may be given (RFC 5861 section 4).
SERVER_ERRORS = frozenset({500, 502, 503, 504})

# RFC 9110 section 15.1; of those, 206 is not understood and 501 an error of the server.
_HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414})
_UNDERSTOOD = _HEURISTIC | {302, 303, 307, 400, 401, 403, 406, 409, 413, 415, 422}
# Parts, answers to conditions and ranges that are not in the key, and RFC 6585 sections 3 to 5.
_NEVER = frozenset({206, 304, 412, 416, 428, 429, 431})
_NO_STALE = frozenset({"no-cache", "must-revalidate", "proxy-revalidate", "s-maxage"})

_POST_SECONDS = 3600.0
# For how long an answer that is no longer fresh is kept to ask whether it still holds.
_VALIDATION_SECONDS = 86_400.0
_MOST_SECONDS = 31_536_000.0


class Fresh(msgspec.Struct, frozen=True):
    """It may be given as it is.

    Attributes:
        age: seconds since the origin made it or confirmed it.
        ttl: seconds for which it is fresh still; negative where the request takes a stale one.
    """

    age: float
    ttl: float


class Stale(msgspec.Struct, frozen=True):
    """It is to be asked for again, and yet may be given (RFC 5861).

    Attributes:
        age: seconds since the origin made it or confirmed it.
        ttl: seconds since its freshness ended, negative.
        while_revalidate: at once, while it is asked for in the background.
        if_error: if that fails: `SERVER_ERRORS`, or no answer.
    """

    age: float
    ttl: float
    while_revalidate: bool
    if_error: bool


class Forward(msgspec.Struct, frozen=True):
    """The request goes to the upstream.

    Attributes:
        fwd: why, in the words of RFC 9211 section 2.2.
        validate: what is stored may be the answer, if the upstream confirms it.
    """

    fwd: Forwarded
    validate: bool = False


class NotCached(msgspec.Struct, frozen=True):
    """The answer is 504: the request is ``only-if-cached`` and nothing is (section 5.2.1.7)."""


Verdict = Fresh | Stale | Forward | NotCached


def judge(
    method: str, request: Headers, found: Stored | Varies | None, options: RouteCache, now: float
) -> Verdict:
    """Tell whether a request may be answered with what is stored (section 4).

    Args:
        method: of the request.
        request: its headers.
        found: what is under its key; a `Varies` if there is nothing under the variant's key.
        options: of the route.
        now: the time.
    """
    asked = directives(request)
    verdict = _judge(method, request, asked, found, options, now)
    return NotCached() if "only-if-cached" in asked and not at_once(verdict) else verdict


def at_once(verdict: Verdict) -> bool:
    """Tell whether what is stored is given without asking the upstream first."""
    return isinstance(verdict, Fresh) or (isinstance(verdict, Stale) and verdict.while_revalidate)


def storable(request: Headers, stored: Stored, options: RouteCache) -> float | None:
    """Return for how many seconds to keep a response (more than 0), or None: do not (section 3).

    That is while it is fresh, while it may be given stale, and for a day if it can be validated.
    The body is not looked at, but see `Stored.complete`.

    Args:
        request: the headers of the request.
        stored: the head of the response.
        options: of the route.
    """
    said = _said(stored)
    if not _may_store(request, stored, said, options):
        return None
    lifetime = _lifetime(stored, said, options)
    if lifetime is None and not _may_lack_lifetime(stored, said):
        return None
    left = (lifetime or 0.0) - current_age(stored, stored.response_time)
    kept = left + max(_stale_windows(said, {}, options, lifetime))
    if _can_be_validated(stored):
        kept = max(kept, 0.0) + _VALIDATION_SECONDS
    elif "no-cache" in said:
        return None
    return min(kept, _MOST_SECONDS) if kept > 0 else None


def serves_others(stored: Stored, options: RouteCache, now: float) -> bool:
    """Tell whether a response can be given to calls that follow, without asking again.

    Args:
        stored: the response.
        options: of the route.
        now: the time.
    """
    return at_once(_reuse(stored, _said(stored), [], {}, options, now))


def current_age(stored: Stored, now: float) -> float:
    """Return the seconds since the origin made a response or confirmed it (section 4.2.3)."""
    date = date_field(stored.headers, b"date")
    apparent_age = 0.0 if date is None else max(0.0, stored.response_time - date)
    response_delay = max(0.0, stored.response_time - stored.request_time)
    corrected_age = _age_value(stored.headers) + response_delay
    resident_time = max(0.0, now - stored.response_time)
    return max(apparent_age, corrected_age) + resident_time


def answer_headers(stored: Stored, age: float) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer from the cache, with its ``Age`` (section 5.1)."""
    kept = [(name, value) for name, value in stored.headers if name != b"age"]
    return [*kept, (b"age", b"%d" % min(age, MAX_SECONDS))]


def bypasses(method: str, request: Headers) -> bool:
    """Tell whether a request is none that the cache answers, or stores the answer of."""
    conditions = {b"range", b"if-match", b"if-unmodified-since"}
    if method == "POST":
        conditions |= {b"if-none-match"}
    return any(name in conditions for name, _ in request)


def _judge(
    method: str,
    request: Headers,
    asked: dict[str, int],
    found: Stored | Varies | None,
    options: RouteCache,
    now: float,
) -> Verdict:
    if method not in ("GET", "HEAD", "POST"):
        return Forward("method")
    if bypasses(method, request):
        return Forward("bypass")
    if isinstance(found, Varies):
        return Forward("vary-miss")
    if found is None or (found.method == "POST") != (method == "POST"):
        return Forward("uri-miss")
    if not found.matches(request):
        return Forward("vary-miss")
    return _reuse(found, _said(found), request, asked, options, now)


def _reuse(
    stored: Stored,
    said: dict[str, int],
    request: Headers,
    asked: dict[str, int],
    options: RouteCache,
    now: float,
) -> Verdict:
    lifetime = _lifetime(stored, said, options)
    age = current_age(stored, now)
    ttl = (lifetime or 0.0) - age
    validate = _can_be_validated(stored)
    if "no-cache" in said:
        return Forward("stale", validate)
    if _reload(request, asked) or age > asked.get("max-age", age):
        return Forward("request" if ttl > 0 else "stale", validate)
    if ttl > 0:
        return Fresh(age, ttl) if ttl >= asked.get("min-fresh", 0) else Forward("request", validate)
    if "min-fresh" in asked or not _NO_STALE.isdisjoint(said):
        return Forward("stale", validate)
    if -ttl <= asked.get("max-stale", -1):
        return Fresh(age, ttl)
    while_revalidate, if_error = (
        -ttl < window for window in _stale_windows(said, asked, options, lifetime)
    )
    if while_revalidate or if_error:
        return Stale(age, ttl, while_revalidate, if_error)
    return Forward("stale", validate)


def _may_store(request: Headers, stored: Stored, said: dict[str, int], options: RouteCache) -> bool:
    # An answer to HEAD would stand under the key of GET, without its body.
    if stored.method not in ("GET", "POST") or bypasses(stored.method, request):
        return False
    if "no-store" in directives(request):
        return False
    if not 200 <= stored.status < 500 or stored.status in _NEVER:
        return False
    if "must-understand" in said:
        # It says no-store to those caches only that do not know of it (section 5.2.2.3).
        if stored.status not in _UNDERSTOOD:
            return False
    elif "no-store" in said:
        return False
    if "private" in said or "*" in stored.vary:
        return False
    if any(name in (b"set-cookie", b"content-range") for name, _ in stored.headers):
        return False
    return (
        not options.shared
        or stored.method == "POST"
        or not any(name in CREDENTIALS for name, _ in request)
        or not said.keys().isdisjoint({"public", "s-maxage", "must-revalidate"})
    )


def _lifetime(stored: Stored, said: dict[str, int], options: RouteCache) -> float | None:
    """Return for how long a response is fresh (section 4.2.1); None: nobody says so."""
    for directive in ("s-maxage", "max-age"):
        if directive in said:
            return float(said[directive])
    expires = values(stored.headers, b"expires")
    if expires:
        dates = [http_date(value) for value in expires]
        made = date_field(stored.headers, b"date")
        end = min(0.0 if date is None else date for date in dates)
        return max(0.0, end - (stored.response_time if made is None else made))
    if stored.method == "POST":
        default = _POST_SECONDS if options.ttl is None else options.ttl
        return default if 200 <= stored.status < 300 else None
    return options.ttl if _may_lack_lifetime(stored, said) else None


def _said(stored: Stored) -> dict[str, int]:
    """Return the directives of a response, of those that count."""
    said = directives(stored.headers)
    if stored.method == "POST":
        said.pop("no-cache", None)
    return said


def _may_lack_lifetime(stored: Stored, said: dict[str, int]) -> bool:
    """Tell whether others may say how long a response is fresh, when it does not (section 3)."""
    return stored.method == "GET" and (stored.status in _HEURISTIC or "public" in said)


def _stale_windows(
    said: dict[str, int], asked: dict[str, int], options: RouteCache, lifetime: float | None
) -> tuple[float, float]:
    """Return the seconds of stale-while-revalidate and stale-if-error (RFC 5861)."""
    if not _NO_STALE.isdisjoint(said):
        return 0.0, 0.0
    # What was never fresh is not made to last by the route.
    ours = options if lifetime else RouteCache()
    error = asked.get("stale-if-error", ours.stale_if_error)
    return (
        said.get("stale-while-revalidate", ours.stale_while_revalidate),
        said.get("stale-if-error", error),
    )


def _reload(request: Headers, asked: dict[str, int]) -> bool:
    """Tell whether the client wants nothing that is not confirmed (sections 5.2.1.4 and 5.4)."""
    if "no-cache" in asked:
        return True
    if combined(request, b"cache-control") is not None:
        return False
    return "no-cache" in directives(
        [(b"cache-control", value) for name, value in request if name == b"pragma"]
    )


def _can_be_validated(stored: Stored) -> bool:
    """Tell whether a response has a validator that goes into a request (section 4.3.1)."""
    if stored.method == "POST":
        return False  # `If-None-Match` would make the upstream refuse it (RFC 9110 13.1.2).
    return (
        entity_tag(stored.headers) is not None
        or date_field(stored.headers, b"last-modified") is not None
    )


def _age_value(headers: Headers) -> int:
    """Return ``Age``: of several the first, of one that is invalid 0 (section 5.1)."""
    first = (combined(headers, b"age") or "").partition(",")[0].strip()
    return delta_seconds(first) or 0
