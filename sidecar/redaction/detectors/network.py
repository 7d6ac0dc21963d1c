"""Detectors of network identities and of what hides in URLs."""

from sidecar.redaction.detectors.base import Detector, Shape

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4_ADDRESS = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_VERSION_WORDS = (
    "version|release|build|ver|v|revision|rev|hotfix|firmware|kernel|tag|oid|section|chapter|clause"
)
_PACKAGE = (
    rf"(?:^|[^0-9A-Za-z.]){_IPV4_ADDRESS}(?:[_-][0-9a-z]{{1,12}})?"
    r"\.(?:tar|tgz|zip|whl|deb|rpm|jar|gem|dll|exe|msi|apk|nupkg)"
)
# What has no value is passed over: versions of four numbers, by a word or in the name of a file,
# networks (`10.42.3.0/24`), net masks. But for files, it stops before their last character, so that
# the next address has one before it.
_NO_ADDRESS = (
    rf"(?:(?:\b(?i:{_VERSION_WORDS})|[a-z]Version)(?: is)?[\"']?[ :=/]{{1,2}}[\"']?|[<>~]=)"
    rf"(?:{_OCTET}\.){{3}}|{_PACKAGE}"
    rf"|(?:^|[^0-9A-Za-z.])(?:(?:{_OCTET}\.){{3}}0/[1-3]|255\.255\.[0-9])"
)
_IPV4_BEHIND = r"(?:$|[^0-9A-Za-z.]|\.(?:$|[^0-9]))"
_IPV4 = rf"{_NO_ADDRESS}|(?:^|[^0-9A-Za-z.])(?P<value>{_IPV4_ADDRESS}){_IPV4_BEHIND}"
_IPV4_AFTER_FILE = rf"{_PACKAGE}[^0-9A-Za-z.](?P<value>{_IPV4_ADDRESS}){_IPV4_BEHIND}"

_H, _H4 = "[0-9A-Fa-f]{1,4}", "[0-9A-Fa-f]{4}"


def _compressed(left: int, fewest: int) -> str:
    """Return a pattern for addresses with ``::``, by the groups before it and the fewest behind."""
    before = f"{_H}(?::{_H}){{{left - 1}}}" if left else ""
    behind = f"{_H}(?::{_H}){{{max(0, fewest - 1)},{6 - left}}}"
    return f"{before}::{behind}" if fewest else f"{before}::(?:{behind})?"


# RFC 4291 section 2.2. With fewer than three groups, one has four digits and one is behind:
# `12::34` and `a::b` are words of other languages, `fe80::` is a network and `:::8080` a port.
_COMPRESSED_IPV6 = "|".join(
    (
        rf"{_H}(?::{_H}){{0,4}}::(?:{_H}:){{0,4}}{_IPV4_ADDRESS}",
        *(_compressed(left, max(0, 3 - left)) for left in range(1, 7)),
        f"(?:{_H}:){{7}}:|{_H4}::{_H}|{_H}::{_H4}",
    )
)
_ZEROS_FIRST_IPV6 = rf"::(?:{_H}:){{0,5}}{_IPV4_ADDRESS}|{_compressed(0, 3)}|::1"
# What follows with a colon is no group: a port, a name.
_IPV6_BEHIND = (
    r"(?:$|[^0-9A-Za-z:.]|[.:](?:$|[^0-9A-Za-z:])"
    r"|:(?:[0-9A-Za-z]{5}|[0-9A-Fa-f]{0,4}[G-Zg-z]|[0-9]{1,4}(?:$|[^0-9A-Za-z:])))"
)
_IPV6 = rf"(?:^|[^0-9A-Za-z.])(?P<value>{_COMPRESSED_IPV6}){_IPV6_BEHIND}"
_IPV6_ZEROS_FIRST = rf"(?:^|[^0-9A-Za-z.:])(?P<value>{_ZEROS_FIRST_IPV6}){_IPV6_BEHIND}"
# A key may stand before it, `peer:2001:…`; one more group makes it a list.
_IPV6_FULL = (
    r"(?:^|[^0-9A-Za-z.:]|(?:[G-Zg-z_][0-9A-Fa-f]{0,4}|[0-9A-Fa-f]{5}):)"
    rf"(?P<value>(?:{_H}:){{7}}{_H}|(?:{_H}:){{6}}{_IPV4_ADDRESS}){_IPV6_BEHIND}"
)
_MAC = (
    r"(?i)(?:^|[^0-9a-z:-]|[g-z][:-])"
    r"(?P<value>[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5})"
    r"(?:$|[^0-9a-z:-])"
)

_URL_WITH_QUERY = r"(?i)\b[a-z][a-z0-9+.-]*://[^\s\"'<>\\?]+\?[^\s\"'<>\\]+"
_TARGET_WITH_QUERY = (
    r"\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (?P<value>/[^\s\"'<>\\?]*\?[^\s\"'<>\\]+)"
)
_URL_CREDENTIALS = r"(?i)\b[a-z][a-z0-9+.-]*://(?P<value>[^\s/?#@\"'<>:]*:[^\s/?#\"'<>]*@)"
# A password with `/`, `?` or `#` should be percent-encoded and often is not. Then what is before
# the first of them is no port, no `@` stands there, and what looks like a host follows the `@`.
_URL_CREDENTIALS_UNESCAPED = (
    r"(?i)\b(?:https?|wss?|s?ftps?|ssh|git|smtps?|imaps?|ldaps?|amqps?|mqtts?|nats|kafka|socks5h?"
    r"|redis(?:s|\+[a-z]+)?|mongodb(?:\+srv)?|(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle"
    r"|clickhouse)(?:\+[a-z0-9]+)?)://"
    r"(?P<value>[^\s/?#@\"'<>:]*:[0-9]*[^\s/?#@\"'<>0-9][^\s/?#@\"'<>]*[/?#][^\s@\"'<>]*@)"
    r"(?:\[[0-9a-f:.]+\]|[a-z0-9][a-z0-9._-]*)(?:$|[/?#\s\"'<>,;)]|:[0-9])"
)


DETECTORS = (
    Detector(name="ipv4", shapes=(Shape(pattern=_IPV4), Shape(pattern=_IPV4_AFTER_FILE))),
    Detector(
        name="ipv6",
        shapes=tuple(Shape(pattern=p) for p in (_IPV6, _IPV6_ZEROS_FIRST, _IPV6_FULL)),
    ),
    Detector(name="mac", shapes=(Shape(pattern=_MAC),)),
    Detector(
        name="url-credentials",
        shapes=(Shape(pattern=_URL_CREDENTIALS), Shape(pattern=_URL_CREDENTIALS_UNESCAPED)),
    ),
    Detector(
        name="url-query",
        shapes=(Shape(pattern=_URL_WITH_QUERY), Shape(pattern=_TARGET_WITH_QUERY)),
    ),
)
