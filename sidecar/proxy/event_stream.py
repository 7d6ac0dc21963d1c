"""Redacts a stream of server-sent events, event by event, as they come.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. An event
goes on as soon as it is whole. So a value that is split over two events cannot be seen: of a
model's answer, which comes word by word, only what stands within one piece is redacted.
"""

import re

from sidecar.proxy.documents import redact_text
from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report

MAX_EVENT = 2**20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_ANY_LINE_END = re.compile(r"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DATA = re.compile(rb"data(?:: ?|\Z)")


class EventStreamRedactor:
    """Takes a stream piece by piece.

    Args:
        redactor: the rules.
        report: takes the findings.
        limit: the most bytes that one event may have.
    """

    def __init__(self, redactor: Redactor, report: Report, limit: int = MAX_EVENT) -> None:
        self._redactor = redactor
        self._report = report
        self._limit = limit
        self._begun = False
        self._waiting = bytearray()
        self._looked = 0
        self._lines: list[tuple[bytes, bytes]] = []
        self._size = 0
        # A line ended with CR, so that a LF that comes next belongs to that end.
        self._behind_cr = False

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the stream; return the events that are whole now, redacted.

        What is not changed comes out byte for byte.

        Raises:
            UncheckedError: an event is too large, is not UTF-8, or could not be redacted. Nothing
                more may be fed.
        """
        written = bytearray()
        if self._behind_cr and data:
            self._behind_cr = False
            if data[:1] == b"\n":
                data = data[1:]
                if self._lines:
                    self._lines[-1] = self._lines[-1][0], b"\r\n"
                else:
                    written += b"\n"
        self._waiting += data
        if not self._begun and not self._begin(written):
            return bytes(written)
        taken = 0
        while end := _LINE_END.search(self._waiting, max(taken, self._looked)):
            line = bytes(self._waiting[taken : end.start()])
            taken = end.end()
            self._take(line, end[0], written)
        self._behind_cr = taken > 0 and taken == len(self._waiting) and self._waiting[-1:] == b"\r"
        del self._waiting[:taken]
        self._looked = len(self._waiting)
        if self._size + len(self._waiting) > self._limit:
            raise UncheckedError(f"An event is larger than {self._limit} bytes.")
        return bytes(written)

    def finish(self) -> bytes:
        """Return what is left at the end of the stream, redacted as an event of its own.

        Raises:
            UncheckedError: as `feed` does.
        """
        if self._waiting:
            self._lines.append((bytes(self._waiting), b""))
            self._waiting.clear()
        return self._event()

    def _begin(self, written: bytearray) -> bool:
        """Pass a byte order mark; tell whether it is known if there is one."""
        head = bytes(self._waiting[:3])
        if len(head) < 3 and _BYTE_ORDER_MARK.startswith(head):
            return False
        self._begun = True
        if head == _BYTE_ORDER_MARK:
            written += head
            del self._waiting[:3]
        return True

    def _take(self, line: bytes, end: bytes, written: bytearray) -> None:
        self._lines.append((line, end))
        self._size += len(line) + len(end)
        if self._size > self._limit:
            raise UncheckedError(f"An event is larger than {self._limit} bytes.")
        if not line:
            written += self._event()

    def _event(self) -> bytes:
        lines, self._lines, self._size = self._lines, [], 0
        try:
            return b"".join(self._redacted(lines))
        except DropRecordError:
            return b""
        except UnicodeDecodeError:
            raise UncheckedError("The stream of events is not UTF-8.") from None
        except Exception:
            # The error's text may hold a piece of the event.
            raise UncheckedError("An event could not be redacted.") from None

    def _redacted(self, lines: list[tuple[bytes, bytes]]) -> list[bytes]:
        data = [line[mark.end() :] for line, _ in lines if (mark := _DATA.match(line))]
        text = b"\n".join(data).decode()
        changed = redact_text(text, self._redactor, self._report) if text else text
        values = _ANY_LINE_END.split(changed) if changed is not text else None
        written = []
        for line, end in lines:
            mark = _DATA.match(line)
            if mark is None:
                written += [self._other(line) if line else line, end]
            elif values is None:
                written += [line, end]
            elif values:
                start = mark[0] if b":" in mark[0] else b"data:"
                for value in values:
                    written += [start, value.encode(), end or b"\n"]
                values = []
        return written

    def _other(self, line: bytes) -> bytes:
        """Redact a comment, or a field such as ``event`` or ``id``."""
        name, mark, value = line.decode().partition(":")
        shown = self._redactor.name(name, self._report)
        changed = self._redactor.string(value, name, self._report, {}) or ""
        if shown is name and changed is value:
            return line
        return _ANY_LINE_END.sub(" ", shown + mark + changed).encode()
