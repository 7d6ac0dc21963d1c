"""Redacts JSON and text as they were sent.

What is not changed is the same object. In JSON that is changed all else stays as it is written:
order, blanks, numbers, escapes.
"""

import json
import re
from collections.abc import Generator
from typing import Any

import msgspec

from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import (
    MAX_DEPTH,
    TooDeepError,
    holds_json,
    json_edits,
    redact_json,
    repeats_a_name,
)
from sidecar.redaction.walk_otlp import Outcome

_BYTE_ORDER_MARK = "\ufeff"
# A half of a surrogate pair, as JavaScript writes where it cuts a text within a character; and,
# first, what only looks like one.
_HALF = re.compile(
    r"\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def redact_document(body: bytes, redactor: Redactor, report: Report) -> bytes:
    """Redact one JSON value in UTF-8 (RFC 8259), with a byte order mark or without.

    Halves of surrogate pairs, which are no characters, become U+FFFD.

    Raises:
        UncheckedError: it is no JSON, or nested too deeply.
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UncheckedError("The JSON is not UTF-8.") from None
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    changed = _redact_json_text(text, redactor, report)
    return body if changed == text else (mark + changed).encode()


def redact_lines(body: bytes, redactor: Redactor, outcome: Outcome) -> Generator[None, None, bytes]:
    """Redact JSON values of which each is one line; a line that a rule drops is left out.

    Yields:
        After each line.

    Raises:
        UncheckedError, UnstableError: as `redact_document` does.
    """
    written = []
    for line in body.split(b"\n"):
        try:
            changed = redact_document(line, redactor, outcome.report) if line.strip() else line
        except DropRecordError:
            outcome.dropped += 1
        else:
            written.append(changed)
        yield
    joined = b"\n".join(written)
    return body if joined == body else joined


def redact_text(text: str, redactor: Redactor, report: Report) -> str:
    """Redact a text, which may be JSON; raises `UnstableError` and `DropRecordError`."""
    if holds_json(text) or text.lstrip().startswith('"'):
        try:
            return _redact_json_text(text, redactor, report)
        except UncheckedError:
            pass  # then it is text in brackets or quotes
    return redactor.string(text, "", report, {}) or ""


def _redact_json_text(text: str, redactor: Redactor, report: Report) -> str:
    changed = _redacted(text, redactor, report)
    if changed is None and (mended := _HALF.sub(_mend, text)) != text:
        changed = _redacted(mended, redactor, report)
    if changed is None:
        raise UncheckedError(f"This is no JSON, or nested deeper than {MAX_DEPTH} levels.")
    return changed


def _mend(match: re.Match[str]) -> str:
    return r"\ufffd" if match["half"] else match[0]


def _redacted(text: str, redactor: Redactor, report: Report) -> str | None:
    """Return redacted JSON; None when it is none."""
    if holds_json(text) and not redactor.restricted:
        edits = json_edits(text, "", redactor, report)
        if not edits:
            return None if edits is None else text
        pieces: list[str] = []
        last = 0
        for start, end, written in edits:
            pieces += (text[last:start], written)
            last = end
        return "".join([*pieces, text[last:]])
    noted = Report()
    try:
        value = _decode(text)
        changed = redact_json(value, redactor, noted)
    except (ValueError, RecursionError, TooDeepError):
        return None
    report.merge(noted)
    if changed is value and not repeats_a_name(text, value):
        return text
    return msgspec.json.encode(changed).decode()


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)  # with NaN, which Python's clients write
