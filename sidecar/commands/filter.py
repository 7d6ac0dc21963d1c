"""Redacts the pieces of a stream: bytes in, bytes out, and counts of what was left out.

What was not changed comes out byte for byte. What could not be redacted does not come out. Every
line is a value, without its end, and so are all lines of a private key together: what becomes of
a line does not depend on those around it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from sidecar.commands.clean import CleanLook
from sidecar.commands.pieces import NO_JSON, TOO_DEEP, InputFormat, Piece, decode, lines
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor, UnstableError
from sidecar.redaction.report import Finding, Report
from sidecar.redaction.rules import Rules
from sidecar.redaction.walk_json import TooDeepError, redact_json

_KEY_LINE = re.compile(rb"[0-9A-Za-z+/=]*\s*")
_INDENT = re.compile(rb"^\s*[\[{]\r?\n([ \t]+)")
_BLANK = b"\xef\xbb\xbf \t\r\n\f\v"
# A private use character for every byte that is no UTF-8. Who uses them, uses none so high.
_FIRST_PRIVATE = 0x10FF00
_TO_PRIVATE = {0xDC00 + byte: _FIRST_PRIVATE + byte for byte in range(0x80, 0x100)}
_FROM_PRIVATE = {private: escape for escape, private in _TO_PRIVATE.items()}
_PRIVATE = re.compile(f"[{chr(_FIRST_PRIVATE)}-{chr(_FIRST_PRIVATE + 0xFF)}]")
# Each of two readings of a line may change what the other finds.
_MAX_READINGS = 16


class Filter:
    """Redacts piece after piece; see `sidecar.commands.pieces`.

    Args:
        redactor: the rules for the signal.
        rules: the folder that they are from.
        form: what the input is.
        note: takes each finding, when findings are asked for. ``path`` is ``""`` in text, where
            the offsets are in characters of the whole stream; in JSON it is a JSON Pointer, which
            begins with the number of the record when there are several.

    Attributes:
        failed: lines and records that were left out because they could not be redacted.
        dropped: lines and records that a rule took out.
    """

    def __init__(
        self,
        redactor: Redactor,
        rules: Rules,
        form: InputFormat,
        note: Callable[[Finding], None] | None = None,
    ) -> None:
        self._redactor = redactor
        self._clean = CleanLook(redactor, rules, audited=note is not None)
        self._finds_json = form == "auto"
        self._note = note
        self._characters = 0
        self._records = 0
        self._in_key = False
        # Findings of the first record, until it is known whether it is the only one.
        self._first: list[Finding] = []
        self._alone = True
        self.failed = 0
        self.dropped = 0

    def redact(self, pieces: Iterable[Piece]) -> bytes:
        """Return what comes out in place of some pieces, which are looked at together."""
        pieces = list(pieces)
        records = [piece for piece in pieces if piece.kind == "record"]
        unclean = self._clean.unclean_records([piece.value for piece in records])
        known = {id(piece) for index, piece in enumerate(records) if index not in unclean}
        return b"".join(
            self._piece(piece, id(piece) in known and not _is_ambiguous(piece.raw, piece.value))
            for piece in pieces
        )

    def finish(self) -> None:
        """Note what was kept back until the stream has ended."""
        self._give(self._first, "")

    def _piece(self, piece: Piece, clean: bool) -> bytes:
        if piece.kind == "document":
            return self._document(piece)
        if piece.kind == "record":
            self._in_key = False
            return self._record(piece, clean)
        if piece.raw.strip(_BLANK):
            self._several()
        if piece.kind == "blank":
            return self._as_it_is(piece.raw)
        raw = self._behind_key(piece.raw) if self._in_key else piece.raw
        if piece.kind == "text":
            return self._text(raw)
        written = self._value(raw)
        if piece.kind == "open-key":
            # A rule took it out to its last line, which need not be the last of the key.
            self._in_key = not written.endswith(lines(raw)[-1])
        return written

    def _behind_key(self, raw: bytes) -> bytes:
        """Leave out the lines that may go on with a private key."""
        end = 0
        for line in lines(raw):
            if not _KEY_LINE.fullmatch(line):
                self._in_key = False
                break
            end += len(line)
            self.failed += 1
        self._as_it_is(raw[:end])
        return raw[end:]

    def _text(self, raw: bytes) -> bytes:
        """Redact whole lines."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return b"".join(self._undecoded(raw))
        bodies = text.removesuffix("\n").split("\n")
        if "\r" in text:
            bodies = [body.removesuffix("\r") for body in bodies]
        changes = self._clean.changes(bodies)
        if not changes:
            return self._as_it_is(raw)
        written = lines(raw)
        for index, line in enumerate(written):
            if index not in changes:
                self._as_it_is(line)
            elif (changed := changes[index]) is None:
                written[index] = self._value(line)
            else:
                written[index] = self._changed(line, len(bodies[index].encode()), changed)
        return b"".join(written)

    def _changed(self, line: bytes, length: int, changed: str) -> bytes:
        """Return what is written for a line of which is known what becomes of it."""
        self._as_it_is(line)
        try:
            return self._settled(changed.encode()) + line[length:]
        except Exception as error:
            self._left_out(error, Report())
            return b""

    def _undecoded(self, raw: bytes) -> Iterator[bytes]:
        """Redact lines of which some are no UTF-8."""
        for is_utf8, run in groupby(lines(raw), _is_utf8):
            if is_utf8:
                yield self._text(b"".join(run))
            else:
                yield from map(self._value, run)

    def _as_it_is(self, raw: bytes) -> bytes:
        self._characters += len(raw) if raw.isascii() else len(_read(raw))
        return raw

    def _value(self, raw: bytes) -> bytes:
        """Redact one line, or the lines of a private key, as one value."""
        body = raw.removesuffix(b"\n").removesuffix(b"\r")
        report = Report(detailed=self._note is not None)
        try:
            written = self._line(body, report) if _is_utf8(body) else self._odd_line(body, report)
        except Exception as error:
            self._left_out(error, report)
            self._as_it_is(raw)
            return b""
        offset = self._characters
        self._as_it_is(raw)
        self._give([_moved(f, f.start + offset, f.end + offset) for f in report.findings], "")
        return raw if written is body else written + raw[len(body) :]

    def _line(self, body: bytes, report: Report) -> bytes:
        text = body.decode()
        changed = self._redactor.string(text, "", report, {})
        if changed is text:
            return body
        written = (changed or "").encode()
        # What comes out must come out again as it is, though it is many values now.
        if b"\n" in body:
            parts = written.split(b"\n") if b"PRIVATE KEY" not in written else []
            again = [self._line(part.removesuffix(b"\r"), Report()) for part in parts]
            ends = [b"\r" * part.endswith(b"\r") for part in parts]
            return b"\n".join(map(bytes.__add__, again, ends)) if parts else written
        return self._settled(written)

    def _settled(self, written: bytes) -> bytes:
        """Return a line as it comes out again when it is redacted again: it may be JSON now."""
        if self._finds_json and (value := decode(written)) is not NO_JSON:
            return msgspec.json.encode(self._json(value, Report()))
        return written

    def _odd_line(self, body: bytes, report: Report) -> bytes:
        """Redact a line that is no UTF-8, as it reads with and without the UTF-8 that is in it."""
        if _PRIVATE.search(body.decode(errors="ignore")):
            raise ValueError("is no UTF-8, and the characters that would stand for it are taken")
        length = len(_read(body))
        written = body
        for _ in range(_MAX_READINGS):
            before = written
            for read, write in ((_read, _write), (_read_latin_1, _write_latin_1)):
                text, found = read(written), Report(detailed=report.detailed)
                changed = self._redactor.string(text, "", found, {})
                for finding in found.findings:
                    # Exact while nothing is changed yet.
                    start, end = (
                        (len(_read(write(text[:place]))) for place in (finding.start, finding.end))
                        if written is body
                        else (0, length)
                    )
                    report.findings.append(_moved(finding, start, end))
                if changed is not text:
                    written = write(changed or "")
            if written == before:
                return written
        raise UnstableError("two readings of a line keep changing each other")

    def _record(self, piece: Piece, clean: bool) -> bytes:
        if self._records or not self._alone:
            self._several()
        self._as_it_is(piece.raw)
        number = self._records
        self._records += 1
        if clean:
            return piece.raw
        report = Report(detailed=self._note is not None)
        written = self._written(piece, report, msgspec.json.encode)
        if self._alone:
            self._first = report.findings
        else:
            self._give(report.findings, f"/{number}")
        return written

    def _document(self, piece: Piece) -> bytes:
        report = Report(detailed=self._note is not None)
        written = self._written(piece, report, lambda changed: _like(piece.raw, changed))
        self._give(report.findings, "")
        return written

    def _written(self, piece: Piece, report: Report, encode: Callable[[Any], bytes]) -> bytes:
        """Return what is written for a JSON value."""
        try:
            changed = self._json(piece.value, report)
            if changed is piece.value and not _is_ambiguous(piece.raw, changed):
                return piece.raw
            return _in_place(piece.raw, encode(changed))
        except Exception as error:
            self._left_out(error, report)
            return b""

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
        if self._alone:
            self._alone = False
            self._give(self._first, "/0")
            self._first = []

    def _give(self, findings: list[Finding], prefix: str) -> None:
        if self._note is not None:
            for found in findings:
                self._note(msgspec.structs.replace(found, path=prefix + found.path))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(raw: bytes) -> str:
    """Read UTF-8, and each byte that is none as a character."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape").translate(_TO_PRIVATE)


def _write(text: str) -> bytes:
    return text.translate(_FROM_PRIVATE).encode(errors="surrogateescape")


def _read_latin_1(raw: bytes) -> str:
    return raw.decode("latin-1")


def _write_latin_1(text: str) -> bytes:
    return text.encode("latin-1", errors="replace")


def _moved(found: Finding, start: int, end: int) -> Finding:
    return msgspec.structs.replace(found, start=start, end=end)


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
