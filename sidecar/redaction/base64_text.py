"""Text in base64 that fills a value (RFC 4648, sections 4 and 5; data URLs of RFC 2397)."""

import base64
import binascii
import re

import msgspec

_BASE64 = re.compile(
    r"(?P<start>data:[\w.+/;=-]{0,128};base64,)?"
    r"(?P<body>[0-9A-Za-z+/]{8,}|[0-9A-Za-z_-]{8,})(?P<padding>(?:=|%3[Dd]){0,2})"
)
# What stands in no text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Base64Text(msgspec.Struct, frozen=True):
    """A text and how it was encoded.

    Attributes:
        plain: as it reads.
        start: what stands before its base64.
        padding: what one ``=`` is written as; empty when there is no padding.
        url_safe: whether ``-`` and ``_`` stand for ``+`` and ``/``.
    """

    plain: str
    start: str
    padding: str
    url_safe: bool

    def write(self, plain: str) -> str:
        """Return another text in the same encoding."""
        encode = base64.urlsafe_b64encode if self.url_safe else base64.b64encode
        return self.start + encode(plain.encode()).decode().replace("=", self.padding)


def as_base64(text: str) -> Base64Text | None:
    """Read a value that is nothing but base64 of UTF-8 text; return None when it is not."""
    match = _BASE64.fullmatch(text)
    if match is None:
        return None
    body, padding = match["body"], match["padding"]
    url_safe = "-" in body or "_" in body
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), b"-_" if url_safe else None)
        plain = raw.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not plain or _CONTROL.search(plain):
        return None
    # Without padding where none is needed, what is written later may need some.
    written = (padding[:3] if padding[0] == "%" else "=") if padding else ""
    if not padding and len(body) % 4 == 0:
        written = "="
    return Base64Text(plain, match["start"] or "", written, url_safe)
