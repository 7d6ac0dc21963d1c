"""Cuts a stream of bytes into what can be redacted on its own: text, JSON records, one document.

Bytes in, pieces out, in order and without a gap, as soon as they are whole: lines are never cut,
and neither is a private key, whose lines are one value. How it is cut depends on what comes in
alone, never on the blocks in which it comes: what one read brings is chance. The splitter keeps no
more than its bounds say, whatever comes in; where it cannot tell a piece within them it raises
rather than guess.
"""

import json
import re
from collections.abc import Generator, Iterator
from typing import Any, Literal

import msgspec
import re2

InputFormat = Literal["auto", "text", "json", "ndjson"]
INPUT_FORMATS: tuple[InputFormat, ...] = ("auto", "text", "json", "ndjson")

# The longest line, and the largest JSON document that is no line.
MAX_PIECE = 16 * 2**20
# A key of RSA-16384 takes 13 kB.
MAX_KEY_BYTES = 64 * 2**10

NO_JSON = object()
TOO_DEEP = object()

_KEY_BEGIN = rb"-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5}"
_KEY_END = rb"-{4,5} ?END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5}"
# Any byte is a character: what is no UTF-8 must not end a line or hide a key.
_BYTES = re2.Options()
_BYTES.encoding = re2.Options.Encoding.LATIN1
_FIND_KEY_BEGIN = re2.compile(_KEY_BEGIN, _BYTES)
_FIND_KEY_END = re2.compile(_KEY_END, _BYTES)
# Where something else than text may begin.
_FIND_MARK = re2.compile(rb"(?m)^[ \t]*[\[{]|" + _KEY_BEGIN, _BYTES)
# The same, at the beginning of a line.
_NEXT_RECORD = re.compile(rb"[ \t]*[\[{]")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINES = re.compile(rb"\s*\n")
_NO_BLANK = re.compile(rb"\S")
# What JSON decoders of other languages take beyond the standard.
_NO_NUMBER = re.compile(rb"\bNaN\b|-?\bInfinity\b")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

# How files begin in which nothing could be found, though it is there.
_UNREADABLE = {
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8 first",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8 first",
    b"\x1f\x8b": "compressed with gzip; decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it first",
}
_BEGINNINGS = (_BYTE_ORDER_MARK, *_UNREADABLE)


_KeyKind = Literal["text", "key", "open-key"]


class InputError(Exception):
    """The input cannot be redacted; the message says why, in one line."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the stream.

    Attributes:
        kind: ``blank`` is blank lines, or a byte order mark; ``text`` whole lines, each a value;
            ``key`` whole lines that are one value, since a private key stands in them;
            ``open-key`` the same where the key has no end within its bound; ``record`` one line of
            JSON; ``document`` all of the input.
        raw: its bytes, with the line end.
        value: the decoded JSON of a record or document, or `NO_JSON`, or `TOO_DEEP`.
    """

    kind: Literal["blank", "text", "key", "open-key", "record", "document"]
    raw: bytes
    value: Any = None


class Splitter:
    """Takes the stream block by block.

    Args:
        form: what the input is; ``auto`` tells it line by line, and sees one JSON document that
            spans lines by its beginning.
        max_piece: in bytes, of one line or document.
        max_key: in bytes, of what is held back for the end of a private key.
    """

    def __init__(
        self, form: InputFormat, *, max_piece: int = MAX_PIECE, max_key: int = MAX_KEY_BYTES
    ) -> None:
        self._form = form
        self._max_piece = max_piece
        self._max_key = max_key
        self._marks = _FIND_MARK if form == "auto" else _FIND_KEY_BEGIN
        self._waiting = bytearray()
        # Of what waits, so many bytes are whole lines that begin with a private key.
        self._in_key = 0
        self._begun = False
        self._is_document: bool | None = None
        self._next_look = 0

    @property
    def held(self) -> int:
        """How many bytes wait for what follows; no more than both bounds together."""
        return len(self._waiting)

    def feed(self, data: bytes, *, end: bool = False) -> Iterator[Piece]:
        """Take the next block, of any length; ``end`` says that it is the last.

        Raises:
            InputError: a line or document is too long, or the input no text at all.
        """
        self._waiting += data
        if self._is_document is None:
            yield from self._lead(end)
            self._is_document = self._decide(end)
            data = bytes(self._waiting)
        if self._is_document is False and (end or b"\n" in data):
            yield from self._take_lines(end)
        elif self._is_document is not False and len(self._waiting) > self._max_piece:
            blank = _NO_BLANK.search(self._waiting) is None
            raise self._too_long("line" if blank and self._form != "json" else "JSON document")
        elif self._is_document and end:
            raw = bytes(self._waiting)
            self._waiting.clear()
            yield Piece("document", raw, decode(raw))
        if len(self._waiting) - self._in_key > self._max_piece:
            yield from self._split(bytes(self._waiting[: self._in_key]), end=True)
            raise self._too_long("line")

    def _too_long(self, what: str) -> InputError:
        return InputError(
            f"a {what} is longer than {self._max_piece} bytes; from it on, all is left out"
        )

    def _lead(self, end: bool) -> Iterator[Piece]:
        """Yield a byte order mark and blank lines, which may stand before anything."""
        if not self._begun:
            head = bytes(self._waiting[:4])
            for beginning, what in _UNREADABLE.items():
                if head.startswith(beginning):
                    raise InputError(f"this is {what}")
            if not end and any(len(head) < len(b) and b.startswith(head) for b in _BEGINNINGS):
                return
            self._begun = True
            if head.startswith(_BYTE_ORDER_MARK):
                del self._waiting[: len(_BYTE_ORDER_MARK)]
                yield Piece("blank", _BYTE_ORDER_MARK)
        if blank := _BLANK_LINES.match(self._waiting):
            taken = bytes(blank.group())
            too_long = self._first_too_long(taken)
            yield Piece("blank", taken[:too_long])
            if too_long is not None:
                raise self._too_long("JSON document" if self._form == "json" else "line")
            del self._waiting[: len(taken)]

    def _decide(self, end: bool) -> bool | None:
        """Tell whether the input is one JSON document; None while that cannot be told.

        It is when all of it can be decoded and its first line alone cannot. All else only finds
        that out earlier: what is looked at are whole lines, in which no value is cut, so that what
        cannot go on as JSON is told from what can.
        """
        if not self._begun:
            return None
        if self._form in ("text", "ndjson"):
            return False
        first = _NO_BLANK.search(self._waiting)
        if first is None:
            return self._form == "json" if end else None
        if self._form == "json":
            return True
        if first.group() not in (b"{", b"["):
            return False
        too_long = len(self._waiting) > self._max_piece
        whole = self._waiting.rfind(b"\n", 0, self._max_piece) + 1
        if not (end or too_long) and (not whole or len(self._waiting) < self._next_look):
            return None
        line_end = self._waiting.find(b"\n", 0, self._max_piece) + 1
        if line_end and decode(bytes(self._waiting[:line_end])) is not NO_JSON:
            return False
        if end and not too_long:
            return decode(bytes(self._waiting)) is not NO_JSON
        # At twice the length, so that all looks together take no more than twice the time of one.
        self._next_look = 2 * len(self._waiting)
        return None if _may_go_on(bytes(self._waiting[:whole])) else False

    def _take_lines(self, end: bool) -> Iterator[Piece]:
        cut = len(self._waiting) if end else self._waiting.rfind(b"\n") + 1
        whole = bytes(self._waiting[:cut])
        too_long = self._first_too_long(whole)
        if too_long is not None:
            whole, end = whole[:too_long], True
        taken = len(whole)
        if self._form == "ndjson":
            for line in lines(whole):
                yield Piece("record", line, decode(line)) if line.strip() else Piece("blank", line)
        else:
            taken = yield from self._split(whole, end)
        if too_long is not None:
            raise self._too_long("line")
        del self._waiting[:taken]
        self._in_key = len(whole) - taken

    def _first_too_long(self, lines: bytes) -> int | None:
        """Return where the first line begins that is too long; None when there is none."""
        if len(lines) <= self._max_piece:
            return None
        return next(
            (
                line.start()
                for line in _LINE.finditer(lines)
                if len(line.group().rstrip(b"\n")) > self._max_piece
            ),
            None,
        )

    def _split(self, data: bytes, end: bool) -> Generator[Piece, None, int]:
        """Yield the pieces of whole lines; return where what is held back begins."""
        begun = at = 0
        while mark := self._mark(data, at):
            line = data.rfind(b"\n", 0, mark.end()) + 1
            stop: int | None = data.find(b"\n", mark.end()) + 1 or len(data)
            piece = None
            if not mark.group().endswith(b"-"):
                value = decode(data[line:stop])
                if value is not NO_JSON:
                    piece = Piece("record", data[line:stop], value)
                elif data.find(b"PRIVATE KEY", mark.end(), stop) >= 0:
                    mark = _FIND_KEY_BEGIN.search(data, mark.end(), stop)
                else:
                    mark = None
            if piece is None and mark:
                kind, stop = self._key(data, line, mark.end(), end)
                if kind != "text" and stop is not None:
                    piece = Piece(kind, data[line:stop])
            if begun < line and (piece is not None or stop is None):
                yield Piece("text", data[begun:line])
            if stop is None:
                return line
            at = stop
            if piece is not None:
                yield piece
                begun = at
        if begun < len(data):
            yield Piece("text", data[begun:])
        return len(data)

    def _mark(self, data: bytes, at: int) -> Any:
        """Return the match where something else than text may begin, None when it all is text.

        Args:
            data: whole lines.
            at: where one of them begins.
        """
        # Mostly one record follows the other, and a search takes ten times as long.
        if self._form == "auto" and (mark := _NEXT_RECORD.match(data, at)):
            return mark
        return self._marks.search(data, at)

    def _key(self, data: bytes, line: int, begun: int, end: bool) -> tuple[_KeyKind, int | None]:
        """Tell where the lines end in which a private key stands, None while that is to come.

        Args:
            data: whole lines.
            line: where that begins in which the key begins.
            begun: behind its first words.
            end: nothing comes behind ``data``.
        """
        first = data.find(b"\n", begun) + 1 or len(data)
        bound = max(line + self._max_key, first)
        while closing := _FIND_KEY_END.search(data, begun, min(bound, len(data))):
            stop = data.find(b"\n", closing.end()) + 1 or len(data)
            again = _FIND_KEY_BEGIN.search(data, closing.end(), stop)
            if not again:
                return ("text" if stop == first else "key"), stop
            begun = again.end()
        if len(data) < bound:
            return ("key", len(data)) if end else ("key", None)
        return "open-key", data.rfind(b"\n", first - 1, bound) + 1 or first


def lines(raw: bytes) -> list[bytes]:
    """Return the lines of a text with their ends."""
    return _LINE.findall(raw)


def decode(raw: bytes) -> Any:
    """Return the JSON value that ``raw`` holds, else `NO_JSON` or `TOO_DEEP`."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        return TOO_DEEP
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not raw.rstrip().endswith((b"}", b"]")):
            return NO_JSON
    # What Python and JavaScript write beyond the standard: NaN, halves of surrogate pairs.
    try:
        return json.loads(raw.decode())
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return NO_JSON


def _may_go_on(beginning: bytes) -> bool:
    """Tell whether this may be the beginning of a JSON document, or all of it."""
    standard = _HALF_PAIR.sub(rb"\\n", _NO_NUMBER.sub(b"0", beginning))
    try:
        msgspec.json.decode(standard)
    except (RecursionError, msgspec.ValidationError):
        return True
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except UnicodeDecodeError:
        return False
    return True
