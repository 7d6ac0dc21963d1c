"""URLs without what a person put into them.

Syntax is RFC 3986, matrix parameters are its section 3.3, request targets RFC 9112 section 3.2,
parameters of a query the WHATWG URL standard's application/x-www-form-urlencoded.
"""

import ipaddress
import re
from urllib.parse import quote

_PLACEHOLDER = quote("[REDACTED]", safe="")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*+):(//)?")
# What follows these is a value as a whole, or may be.
_OPAQUE = re.compile(
    r"about|blob|callto|cid|data|facetime|geo|javascript|magnet|mailto|mid|sips?|skype|sms|smsto|"
    r"tel|urn|view-source|webcal|xmpp",
    re.IGNORECASE,
)
_AUTHORITY_END = re.compile(r"[/?#]")
# Letters and digits of any script, for IDN; percent-encoding may hide an `@`.
_HOST = re.compile(
    # What rules write in its place is percent-encoded.
    rf"(?:{_PLACEHOLDER}|%5B\w{{1,80}}%5D|\[(?P<ipv6>[0-9A-Fa-f:.]++)\]|[\w.~!$&'()*+,;=-]*+)(?::[0-9]{{0,5}})?"
)
_HOST_AND_PORT = re.compile(r"[\w.-]++:[0-9]{1,5}(?=[/?#]|\Z)")
_PATH_END = re.compile(r"[?#]")
_BARE_QUERY = re.compile(r"[^/?#=&\s:]*+[=&]|[^/?#=&\s]*+=")
# Of a path that begins with no slash, nothing but its characters says that it is one.
_RELATIVE = re.compile(r"[^\s/:<>\"{}|\\^`]*+/[^\s<>\"{}|\\^`]*+")
# A longer name, one with an `@` or with a long number in it, is a value in the wrong place.
_NAME = re.compile(r"(?:amp;)?(?![^=]*[0-9]{7})(?:[\w.~$:*!,()|\[\]-]|%5[BbDd]){1,64}")
_ANCHOR = re.compile(r"[A-Za-z](?![^=]*[0-9]{7})[\w.-]{0,63}")


def sanitize_url(text: str) -> str:
    """Return a URL, a request target or a bare query string without what a person put into it.

    Scheme, host, port, path and the names of parameters stay; user info goes, and every value of
    a parameter is replaced, in the query, in the fragment and in the path (``;name=value``). A
    parameter without ``=`` counts as a value, and so does a name that does not look like one. Of
    an opaque URI (``mailto:``) only the scheme stays. What can be read as none of these goes.

    The result is a valid URL wherever the text is one. Sanitizing twice changes nothing.
    """
    result = _sanitize(text)
    return text if result == text else result


def _sanitize(text: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme and _OPAQUE.fullmatch(scheme[1]):
        return f"{scheme[1]}:{_PLACEHOLDER if len(text) > len(scheme[1]) + 1 else ''}"
    if scheme and scheme[2]:
        return _hierarchical(scheme[0], text[scheme.end() :])
    if text.startswith("//"):
        return _hierarchical("//", text[2:])
    if not text or text == "*" or text[0] in "/?#":
        return _after_host(text)
    if place := _HOST_AND_PORT.match(text):
        return place[0] + _after_host(text[place.end() :])
    if _BARE_QUERY.match(text):
        return _query(text)
    path = _PATH_END.split(text, maxsplit=1)[0]
    if _RELATIVE.fullmatch(path):
        return _after_host(text)
    return _PLACEHOLDER + _after_host(text[len(path) :])


def _hierarchical(start: str, text: str) -> str:
    authority = _AUTHORITY_END.split(text, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    if not _is_host(host):
        # A slash in a password ends the authority too early: nothing that follows is sure.
        return start + _PLACEHOLDER
    return start + host + _after_host(text[len(authority) :])


def _is_host(text: str) -> bool:
    host = _HOST.fullmatch(text)
    if host is None or host["ipv6"] is None:
        return host is not None
    try:
        ipaddress.IPv6Address(host["ipv6"])
    except ValueError:
        return False
    return True


def _after_host(text: str) -> str:
    """Sanitize path, query and fragment."""
    text, hash_sign, fragment = text.partition("#")
    path, mark, query = text.partition("?")
    if ";" in path:
        path = "/".join(_segment(segment) for segment in path.split("/"))
    return path + mark + _query(query) + hash_sign + _fragment(fragment)


def _segment(segment: str) -> str:
    name, *parameters = segment.split(";")
    return ";".join([name, *map(_parameter, parameters)])


def _query(query: str) -> str:
    return "&".join(map(_parameter, query.split("&")))


def _fragment(fragment: str) -> str:
    if fragment.startswith(("/", "!/")):  # a route of an application in the browser
        path, mark, query = fragment.partition("?")
        return path + mark + _query(query)
    if not fragment or _ANCHOR.fullmatch(fragment):
        return fragment
    return _query(fragment)


def _parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return _PLACEHOLDER if name else ""
    if name and not _NAME.fullmatch(name):
        name = _PLACEHOLDER
    return f"{name}={_PLACEHOLDER if value else ''}"
