"""Redacts forms and queries of URLs (https://url.spec.whatwg.org/#application/x-www-form-urlencoded).

Pairs that are not changed keep their bytes.
"""

import re
from collections.abc import Callable, Generator
from urllib.parse import quote, unquote_to_bytes

from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import holds_json

# As PHP, Rails and others write fields within fields: user[email], tags[].
_BRACKETS = re.compile(r"(?<=.)\[([^\[\]]*)\]")
# In bytes. In longer values the redactor does not try whether `+` is a blank.
_LONG = 4096
# What may stand in a value that is encoded: escapes, and all that ends no pair and no query.
_ENCODED = "%+!$'()*,/:;=?@"


def redact_form(form: bytes, redactor: Redactor, report: Report) -> Generator[None, None, bytes]:
    """Redact pairs of names and values, each value under its name as key.

    The key of ``user[email]`` is ``user.email``.

    Yields:
        After each pair.

    Returns:
        The same object when nothing was found.

    Raises:
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    pairs = form.split(b"&")
    siblings = {}
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        siblings[_read(name)[0]] = _read(value)[0]
    written = []
    for pair in pairs:
        changed = _pair(pair, redactor, report, siblings)
        if changed is not None:
            written.append(changed)
        yield
    joined = b"&".join(written)
    return form if joined == form else joined


def redact_query(query: bytes, redactor: Redactor, report: Report) -> bytes:
    """Redact the query of a URL as `redact_form` does, at once."""
    steps = redact_form(query, redactor, report)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            redacted: bytes = finished.value
            return redacted


def as_text(raw: bytes) -> tuple[str, str]:
    """Return what bytes read as, and in which charset."""
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        # Every byte is a character of it, so what is ASCII within is found as well.
        return raw.decode("latin-1"), "latin-1"


def _pair(
    pair: bytes, redactor: Redactor, report: Report, siblings: dict[str, str]
) -> bytes | None:
    """Return a pair redacted, None when it goes."""
    name, mark, value = pair.partition(b"=")
    if not mark:
        return _redacted(pair, lambda text: redactor.string(text, "", report, siblings))
    shown = _redacted(name, lambda text: redactor.name(text, report)) or b""
    key = _BRACKETS.sub(r".\1", _read(shown)[0]).strip(".")
    if redactor.restricted and not redactor.allows(key):
        redactor.removed(key, report)
        return None
    changed = _redacted(value, lambda text: redactor.string(text, key, report, siblings))
    return None if changed is None else shown + mark + changed


def _redacted(raw: bytes, look: Callable[[str], str | None]) -> bytes | None:
    """Return a name or value redacted: the same object when nothing was found."""
    text, charset = _read(raw)
    forgotten = b"+" in raw and len(raw) <= _LONG and b"%2b" not in raw.lower()
    if forgotten and not holds_json(text):
        # Who writes no %2B at all may mean a plus, as in alice+news@example.com. As it is encoded,
        # the redactor reads it both ways.
        text, charset = as_text(raw)
        safe = _ENCODED
    else:
        safe = " "
    changed = look(text)
    if changed is None or changed is text:
        return None if changed is None else raw
    return quote(changed, safe, charset, "replace").replace(" ", "+").encode()


def _read(raw: bytes) -> tuple[str, str]:
    return as_text(unquote_to_bytes(raw.replace(b"+", b" ")))
