"""Detectors of network identities and of what hides in URLs."""

import ipaddress

from sidecar.redaction.detectors.base import Detector, whole

_IPV4 = (
    r"(?:^|[^0-9A-Za-z.])(?P<value>[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})"
    r"(?:$|[^0-9A-Za-z.]|\.(?:$|[^0-9]))"
)
_IPV6 = (
    r"(?:^|[^0-9A-Za-z:.])"
    r"(?P<value>(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})?)"
    r"(?:$|[^0-9A-Za-z:.]|[.:](?:$|[^0-9A-Fa-f:]))"
)
_MAC = (
    r"(?i)(?:^|[^0-9a-z:-])"
    r"(?P<value>[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5})"
    r"(?:$|[^0-9a-z:-])"
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


def _is_ipv6(text: str) -> bool:
    # `std::dec` and the like are words before they are addresses.
    if not any(character.isdigit() for character in text):
        return text == "::"
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


DETECTORS = (
    Detector(name="ipv4", patterns=(_IPV4,), narrow=whole(_is_ipv4)),
    Detector(name="ipv6", patterns=(_IPV6,), narrow=whole(_is_ipv6)),
    Detector(name="mac", patterns=(_MAC,)),
    Detector(name="url-credentials", patterns=(_URL_CREDENTIALS,)),
    Detector(name="url-query", patterns=(_URL_WITH_QUERY, _TARGET_WITH_QUERY)),
)
