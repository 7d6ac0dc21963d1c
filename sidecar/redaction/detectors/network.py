"""Detectors of network identities and of what hides in URLs."""

import ipaddress
import re

from sidecar.redaction.detectors.base import Detector, Shape, Span, whole

_IPV4 = (
    r"(?:^|[^0-9A-Za-z.])(?P<value>[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})"
    r"(?:$|[^0-9A-Za-z.]|\.(?:$|[^0-9]))"
)
# A run of groups; which part of it is an address, if any, is decided below.
_IPV6 = r"(?:^|[^0-9A-Za-z.])(?P<value>[0-9A-Fa-f:]{0,40}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,64})"
_MAC = (
    r"(?i)(?:^|[^0-9a-z:-]|[g-z][:-])"
    r"(?P<value>[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5})"
    r"(?:$|[^0-9a-z:-])"
)

_GROUP_STARTS = re.compile(r"(?:^|(?<=:))(?=[0-9A-Fa-f])|::")
_IPV6_SHAPE = re.compile(
    r"(?:[0-9A-Fa-f]{0,4}:){2,8}"
    r"(?:[0-9A-Fa-f]{1,4}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z]))?"
)

_URL_WITH_QUERY = r"(?i)\b[a-z][a-z0-9+.-]*://[^\s\"'<>\\?]+\?[^\s\"'<>\\]+"
_TARGET_WITH_QUERY = (
    r"\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (?P<value>/[^\s\"'<>\\?]*\?[^\s\"'<>\\]+)"
)
_URL_CREDENTIALS = r"(?i)\b[a-z][a-z0-9+.-]*://(?P<value>[^\s/?#@\"'<>:]*:[^\s/?#\"'<>]*@)"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _narrow_ipv6(text: str) -> Span | None:
    """Find the longest address in a run of groups: around it may stand a key and a port."""
    for border in _GROUP_STARTS.finditer(text):
        shape = _IPV6_SHAPE.match(text, border.start())
        piece = shape[0] if shape else ""
        while piece.count(":") > 1:
            if _is_ipv6(piece):
                return border.start(), border.start() + len(piece)
            piece = piece[: piece.rindex(":")]
    return None


def _is_ipv6(text: str) -> bool:
    groups = [group for group in text.split(":") if group]
    # `12::34` and `a::b` are words of other languages.
    if not groups or ("::" in text and len(groups) < 3 and max(map(len, groups)) < 4):
        return text == "::1"
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


DETECTORS = (
    Detector(name="ipv4", shapes=(Shape(pattern=_IPV4, narrow=whole(_is_ipv4)),)),
    Detector(name="ipv6", shapes=(Shape(pattern=_IPV6, narrow=_narrow_ipv6),)),
    Detector(name="mac", shapes=(Shape(pattern=_MAC),)),
    Detector(name="url-credentials", shapes=(Shape(pattern=_URL_CREDENTIALS),)),
    Detector(
        name="url-query",
        shapes=(Shape(pattern=_URL_WITH_QUERY), Shape(pattern=_TARGET_WITH_QUERY)),
    ),
)
