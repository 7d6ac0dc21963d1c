"""Redacts the pieces of a stream: bytes in, bytes out, and counts of what was left out.

What was not changed comes out byte for byte. What could not be redacted does not come out.
"""

import json
import re
from collections.abc import Callable
from itertools import groupby
from typing import Any

import msgspec

from sidecar.commands.pieces import NO_JSON, TOO_DEEP, Piece, units
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Finding, Report
from sidecar.redaction.walk_json import TooDeepError, redact_json

_KEY_LINE = re.compile(rb"[0-9A-Za-z+/=]*\s*")
_INDENT = re.compile(rb"^\s*[\[{]\r?\n([ \t]+)")


class Filter:
    """Redacts piece after piece; see `sidecar.commands.pieces`.

    Args:
        redactor: the rules for the signal.
        note: takes each finding, when findings are asked for. ``path`` is ``""`` in text, where
            the offsets are in characters of the whole stream; in JSON it is a JSON Pointer, which
            begins with the number of the record when there are several.

    Attributes:
        failed: lines and records that were left out because they could not be redacted.
        dropped: lines and records that a rule took out.
    """

    def __init__(self, redactor: Redactor, note: Callable[[Finding], None] | None = None) -> None:
        self._redactor = redactor
        self._note = note
        self._characters = 0
        self._records = 0
        self._in_key = False
        # Findings of the first record, until it is known whether it is the only one.
        self._first: list[Finding] = []
        self._alone = True
        self.failed = 0
        self.dropped = 0

    def redact(self, piece: Piece) -> bytes:
        """Return what comes out in place of a piece."""
        if piece.kind == "document":
            return self._document(piece)
        if piece.kind == "record":
            self._in_key = False
            return self._record(piece)
        if piece.raw.strip():
            self._several()
        raw = self._behind_key(piece.raw) if self._in_key else piece.raw
        if _coding(raw) == "utf-8":
            written = self._text(raw, "utf-8")
        else:
            runs = groupby(units(raw), _coding)
            written = b"".join(self._text(b"".join(run), coding) for coding, run in runs)
        if piece.kind == "open-key":
            # A rule took it out to its last line, which need not be the last of the key.
            self._in_key = not written.endswith(raw[raw.rstrip().rfind(b"\n") + 1 :])
        return written

    def finish(self) -> None:
        """Note what was kept back until the stream has ended."""
        self._give(self._first, "")

    def _behind_key(self, raw: bytes) -> bytes:
        """Leave out the lines that may go on with a private key."""
        end = 0
        for line in units(raw):
            if not _KEY_LINE.fullmatch(line):
                self._in_key = False
                break
            end += len(line)
            self.failed += 1
        self._characters += end
        return raw[end:]

    def _text(self, raw: bytes, coding: str) -> bytes:
        """Redact lines in one go, and one by one where that fails."""
        text = raw.decode(coding)
        report = Report(detailed=self._note is not None)
        try:
            changed = self._redactor.string(text, "", report, {})
        except Exception as error:
            lines = list(units(raw))
            if len(lines) > 1:
                return b"".join(self._text(line, coding) for line in lines)
            self._left_out(error, report)
            changed = ""
        offset = self._characters
        self._characters += len(text)
        self._give(
            [
                msgspec.structs.replace(found, start=found.start + offset, end=found.end + offset)
                for found in report.findings
            ],
            "",
        )
        if changed is text:
            return raw
        return (changed or "").encode(coding, errors="replace")

    def _record(self, piece: Piece) -> bytes:
        if self._records or not self._alone:
            self._several()
        report = Report(detailed=self._note is not None)
        number = self._records
        self._records += 1
        self._characters += len(piece.raw.decode())
        try:
            changed = self._json(piece.value, report)
            same = changed is piece.value and not _is_ambiguous(piece.raw, changed)
            written = piece.raw if same else _in_place(piece.raw, msgspec.json.encode(changed))
        except Exception as error:
            self._left_out(error, report)
            written = b""
        if self._alone:
            self._first = report.findings
        else:
            self._give(report.findings, f"/{number}")
        return written

    def _document(self, piece: Piece) -> bytes:
        report = Report(detailed=self._note is not None)
        try:
            changed = self._json(piece.value, report)
            same = changed is piece.value and not _is_ambiguous(piece.raw, changed)
            written = piece.raw if same else _in_place(piece.raw, _like(piece.raw, changed))
        except Exception as error:
            self._left_out(error, report)
            written = b""
        self._give(report.findings, "")
        return written

    def _json(self, value: Any, report: Report) -> Any:
        if value is NO_JSON:
            raise ValueError("is no JSON")
        if value is TOO_DEEP:
            raise TooDeepError
        return redact_json(value, self._redactor, report)

    def _left_out(self, error: Exception, report: Report) -> None:
        if isinstance(error, DropRecordError):
            self.dropped += 1
        else:
            self.failed += 1
            report.findings.clear()

    def _several(self) -> None:
        """From here on, the paths of findings name the record."""
        self._alone = False
        self._give(self._first, "/0")
        self._first = []

    def _give(self, findings: list[Finding], prefix: str) -> None:
        if self._note is not None:
            for found in findings:
                self._note(msgspec.structs.replace(found, path=prefix + found.path))


def _coding(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        # Every byte is a character of it, so what is ASCII within is found as well.
        return "latin-1"
    return "utf-8"


def _is_ambiguous(raw: bytes, value: Any) -> bool:
    """Tell whether an object in ``raw`` has a name twice: of its values only one was looked at."""
    if raw.count(b'"') == msgspec.json.encode(value).count(b'"') and b"\\u0022" not in raw:
        return False
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)

    json.loads(raw, object_pairs_hook=look)
    return found


def _in_place(raw: bytes, written: bytes) -> bytes:
    """Put the blanks and line ends around a JSON value around what is written for it."""
    start, end = len(raw) - len(raw.lstrip()), len(raw.rstrip())
    return raw[:start] + written + raw[end:]


def _like(raw: bytes, value: Any) -> bytes:
    """Write JSON with the indentation, the line ends and the escapes of ``raw``."""
    indent = _INDENT.match(raw)
    if indent is None:
        return msgspec.json.encode(value)
    written = json.dumps(value, indent=indent[1].decode(), ensure_ascii=raw.isascii())
    if b"\r\n" in raw:
        written = written.replace("\n", "\r\n")
    return written.encode()
