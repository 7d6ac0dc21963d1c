"""Cuts a stream of bytes into what can be redacted on its own: text, JSON records, one document.

Bytes in, pieces out, in order and without a gap, as soon as they are whole: lines are never cut,
and neither is a private key, whose lines are one value. The splitter keeps no more than its bounds
say, whatever comes in; where it cannot tell a piece within them it raises rather than guess.
"""

import json
import re
from collections.abc import Generator, Iterator
from typing import Any, Literal, cast

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
_UNIT = re2.compile(
    rb"[^\n]*" + _KEY_BEGIN + rb"(?:(?s:.*?)" + _KEY_END + rb"[^\n]*\n?|(?s:.*))|[^\n]*\n|[^\n]+",
    _BYTES,
)
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
# A byte order mark and blank lines may stand before anything.
_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s*\n)?")
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


class InputError(Exception):
    """The input cannot be redacted; the message says why, in one line."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the stream.

    Attributes:
        kind: ``text`` is whole lines; ``open-key`` text that begins with a private key that has
            no end within its bound; ``record`` one line of JSON; ``document`` all of the input.
        raw: its bytes, with the line end.
        value: the decoded JSON of a record or document, or `NO_JSON`, or `TOO_DEEP`.
    """

    kind: Literal["text", "open-key", "record", "document"]
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
        self._is_document: bool | None = None
        self._next_look = 0

    def feed(self, data: bytes, *, end: bool = False) -> Iterator[Piece]:
        """Take the next block, of any length; ``end`` says that it is the last.

        Raises:
            InputError: a line or document is too long, or the input no text at all.
        """
        self._waiting += data
        if self._is_document is None:
            if lead := cast(re.Match[bytes], _LEAD.match(self._waiting)).group():
                del self._waiting[: len(lead)]
                yield Piece("text", bytes(lead))
            self._is_document = self._decide(end)
            data = bytes(self._waiting)
        if self._is_document is False and (end or b"\n" in data):
            yield from self._take_lines(end)
        elif self._is_document and end:
            raw = bytes(self._waiting)
            yield Piece("document", raw, decode(raw))
        if len(self._waiting) > self._max_piece and not end:
            what = "JSON document" if self._is_document is not False else "line"
            raise InputError(
                f"a {what} is longer than {self._max_piece} bytes; from it on, all is left out"
            )

    def _decide(self, end: bool) -> bool | None:
        """Tell whether the input is one JSON document; None while that cannot be told."""
        head = bytes(self._waiting[:4])
        for beginning, what in _UNREADABLE.items():
            if head.startswith(beginning):
                raise InputError(f"this is {what}")
        if len(head) < 4 and b"\n" not in head and not end:
            return None
        if self._form != "auto":
            return self._form == "json"
        first = _NO_BLANK.search(self._waiting)
        if first is None:
            return False if end else None
        if first.group() not in (b"{", b"["):
            return False
        line_end = self._waiting.find(b"\n")
        if not end and (line_end < 0 or len(self._waiting) < self._next_look):
            return None
        if line_end >= 0 and decode(bytes(self._waiting[:line_end])) is not NO_JSON:
            return False
        if end:
            return decode(bytes(self._waiting)) is not NO_JSON
        # At twice the length, so that all looks together take no more than twice the time of one.
        self._next_look = 2 * len(self._waiting)
        return None if _may_go_on(bytes(self._waiting)) else False

    def _take_lines(self, end: bool) -> Iterator[Piece]:
        cut = len(self._waiting) if end else self._waiting.rfind(b"\n") + 1
        whole = bytes(self._waiting[:cut])
        if self._form == "ndjson":
            for line in _LINE.findall(whole):
                yield Piece("record", line, decode(line)) if line.strip() else Piece("text", line)
        else:
            cut = yield from self._split(whole, end)
        del self._waiting[:cut]

    def _split(self, data: bytes, end: bool) -> Generator[Piece, None, int]:
        """Yield the pieces of whole lines; return where what is held back begins."""
        begun = at = 0
        while mark := self._marks.search(data, at):
            if mark.group().endswith(b"-"):
                # From here to its end all is text, whatever it looks like.
                closing = _FIND_KEY_END.search(data, mark.end())
                if closing is not None:
                    at = closing.end()
                    continue
                if end:
                    break
                line = data.rfind(b"\n", 0, mark.start()) + 1
                if begun < line:
                    yield Piece("text", data[begun:line])
                if len(data) - line <= self._max_key:
                    return line
                yield Piece("open-key", data[line:])
                return len(data)
            line = mark.start()
            stop = data.find(b"\n", line) + 1 or len(data)
            value = decode(data[line:stop])
            if value is NO_JSON:
                at = mark.end()
                continue
            if begun < line:
                yield Piece("text", data[begun:line])
            yield Piece("record", data[line:stop], value)
            begun = at = stop
        if begun < len(data):
            yield Piece("text", data[begun:])
        return len(data)


def units(raw: bytes) -> Iterator[bytes]:
    """Yield the lines of a text with their ends; those of a private key together."""
    for match in _UNIT.finditer(raw):
        yield match.group()


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
