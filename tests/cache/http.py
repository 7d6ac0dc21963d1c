"""Heads and times of HTTP responses, for the tests of the response cache."""

from typing import Any

from sidecar.cache.fields import http_date_of
from sidecar.cache.stored import Stored
from sidecar.http.headers import HeaderList
from sidecar.proxy.route import RouteCache

NOW = 1_800_000_000.0
DAY = 86_400.0
NO_OPTIONS = RouteCache()


def at(seconds: float) -> str:
    """Return the date that is so many seconds after `NOW`."""
    return http_date_of(NOW + seconds).decode()


def h(control: str | None = None, /, **fields: str | list[str]) -> HeaderList:
    """Return headers: ``Cache-Control``, and others by name with ``_`` for ``-``."""
    found: dict[str, str | list[str]] = {} if control is None else {"cache-control": control}
    found |= {name.replace("_", "-"): value for name, value in fields.items()}
    return [
        (name.encode(), line.encode("latin-1"))
        for name, lines in found.items()
        for line in ([lines] if isinstance(lines, str) else lines)
    ]


def stored(headers: HeaderList, *, request: HeaderList | None = None, **changed: Any) -> Stored:
    """Return a response that was made, sent and received at `NOW`."""
    head: dict[str, Any] = {
        "method": "GET",
        "status": 200,
        "request_time": NOW,
        "response_time": NOW,
    } | changed
    pieces = head.pop("pieces", [])
    result = Stored.of(request=request or [], headers=headers, **head)
    result.pieces.extend(pieces)
    return result
