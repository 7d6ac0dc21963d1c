"""Sanitizers: the structure of a value stays, what a person put into it goes."""

import re
from urllib.parse import quote

_PLACEHOLDER = quote("[REDACTED]", safe="")
# RFC 3986 appendix B, with user info taken apart.
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)?(?(scheme)(?P<userinfo>[^/?#]*@)?)"
    r"(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)
_BARE_QUERY = re.compile(r"[^/?#=&\s]+=")


def sanitize_url(text: str) -> str:
    """Return a URL, a request target or a bare query string without what a person put into it.

    Scheme, host, path and the names of parameters stay; user info goes, every parameter's value
    is replaced. A parameter without ``=`` counts as a value. Sanitizing twice changes nothing.
    """
    if _BARE_QUERY.match(text):
        return _sanitize_query(text)
    parts = _URL.fullmatch(text)
    if parts is None:
        return _PLACEHOLDER
    query, fragment = parts["query"] or "", parts["fragment"] or ""
    return (
        (parts["scheme"] or "")
        + parts["path"]
        + (query and "?" + _sanitize_query(query[1:]))
        + (fragment and "#" + (_sanitize_query(fragment[1:]) if "=" in fragment else fragment[1:]))
    )


def _sanitize_query(query: str) -> str:
    return "&".join(_sanitize_parameter(parameter) for parameter in query.split("&"))


def _sanitize_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return _PLACEHOLDER if name else ""
    return f"{name}={_PLACEHOLDER}" if value else parameter
