"""Reading the header fields that caching depends on.

Values in, values out. Names are in lower case. No reading raises, whatever a field holds: what is
malformed is read as what lets the cache do least.
"""

import re
from datetime import UTC, datetime
from email.utils import formatdate, parsedate
from functools import lru_cache

from sidecar.http.messages import Headers

# What larger numbers are read as (RFC 9111 section 1.2.2).
MAX_SECONDS = 2**31

_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_BALANCED = re.compile(rf'(?:[^"]++|{_QUOTED})*+', re.DOTALL)
_MEMBER = re.compile(rf'(?:[^",]++|{_QUOTED})++', re.DOTALL)
# A semicolon or a space for a comma is an error, behind which a `no-store` still counts.
_DIRECTIVE = re.compile(rf'(?:[^",; \t]++|{_QUOTED})++', re.DOTALL)
_WITH_SECONDS = frozenset(
    {"max-age", "s-maxage", "max-stale", "min-fresh", "stale-while-revalidate", "stale-if-error"}
)
_HTTP_DATE = re.compile(
    r"[a-z]{3}, \d\d [a-z]{3} [1-9]\d{3} \d\d:\d\d:\d\d GMT"
    r"|[a-z]{6,9}, \d\d-[a-z]{3}-\d\d \d\d:\d\d:\d\d GMT"
    r"|[a-z]{3} [a-z]{3} [ \d]\d \d\d:\d\d:\d\d [1-9]\d{3}",
    re.ASCII | re.IGNORECASE,
)
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')


def values(headers: Headers, name: bytes) -> list[str]:
    """Return the values of all lines with this name, in their order."""
    return [value.decode("latin-1").strip(" \t") for n, value in headers if n == name]


def combined(headers: Headers, name: bytes) -> str | None:
    """Return the one value of a field (RFC 9110 section 5.3); None: it is not there."""
    found = values(headers, name)
    return ", ".join(found) if found else None


def members(value: str) -> list[str]:
    """Return the members of a list (RFC 9110 section 5.6.1), those that are empty left out.

    A value with a quote that does not end is one member.
    """
    found = _MEMBER.findall(value) if _BALANCED.fullmatch(value) else [value]
    return [member for member in (text.strip(" \t") for text in found) if member]


def directives(headers: Headers) -> dict[str, int]:
    """Return what ``Cache-Control`` says (RFC 9111 section 5.2), by name in lower case.

    Of directives with seconds, these, from 0 to `MAX_SECONDS`: of one given twice the most
    restrictive; of ``max-stale`` without argument the greatest; of what is not a number the most
    restrictive (section 4.2.1). Of all others 0, with or without an argument: the qualified forms
    of ``no-cache`` and ``private`` are read like the unqualified ones, as sections 5.2.2.4 and
    5.2.2.7 allow.
    """
    value = combined(headers, b"cache-control")
    if value is None:
        return {}
    if not _BALANCED.fullmatch(value):
        value = value.replace('"', " ")
    found: dict[str, int] = {}
    for directive in _DIRECTIVE.findall(value):
        name, equals, argument = directive.partition("=")
        name = name.lower()
        seconds = 0
        if name == "max-stale" and not equals:
            seconds = MAX_SECONDS
        elif name in _WITH_SECONDS:
            # Of all directives this one alone asks for more when its number is greater.
            seconds = _seconds(argument, MAX_SECONDS if name == "min-fresh" else 0)
        pick = max if name == "min-fresh" else min
        found[name] = pick(found.get(name, seconds), seconds)
    return found


def delta_seconds(text: str) -> int | None:
    """Return a number of seconds, at most `MAX_SECONDS` (RFC 9111 section 1.2.2), or None."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    return MAX_SECONDS if len(digits) > 10 else min(int(digits), MAX_SECONDS)


def http_date(text: str) -> float | None:
    """Return a date as seconds since 1970, or None if it has none of the three forms of HTTP.

    RFC 9110 section 5.6.7. Letters in any case, no time zone but GMT (RFC 9111 section 4.2).
    """
    return _seconds_of(text) if _HTTP_DATE.fullmatch(text) else None


@lru_cache(maxsize=256)
def _seconds_of(date: str) -> float | None:
    parsed = parsedate(date)
    if parsed is None:
        return None
    year, month, day, hour, minute, second = parsed[:6]
    try:
        # Python has no leap seconds, HTTP has.
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
    except ValueError:
        return None


def date_field(headers: Headers, name: bytes) -> float | None:
    """Return the date in a field that stands there once, or None."""
    found = values(headers, name)
    return http_date(found[0]) if len(found) == 1 else None


def http_date_of(seconds: float) -> bytes:
    """Return seconds since 1970 as the value of a date field."""
    return formatdate(seconds, usegmt=True).encode()


def entity_tag(headers: Headers) -> str | None:
    """Return the ``ETag``, or None when there is none that is well formed (RFC 9110 8.8.3)."""
    found = values(headers, b"etag")
    return found[0] if len(found) == 1 and _ENTITY_TAG.fullmatch(found[0]) else None


def entity_tags(text: str) -> list[str]:
    """Return the entity tags in a list of them (RFC 9110 section 13.1.2)."""
    return _ENTITY_TAG.findall(text)


def same_entity(left: str, right: str) -> bool:
    """Compare two entity tags weakly (RFC 9110 section 8.8.3.2)."""
    return left.removeprefix("W/") == right.removeprefix("W/")


def _seconds(argument: str, otherwise: int) -> int:
    # Both forms are to be accepted (RFC 9111 section 5.2).
    if len(argument) >= 2 and argument[0] == argument[-1] == '"':
        argument = argument[1:-1]
    seconds = delta_seconds(argument)
    return otherwise if seconds is None else seconds
