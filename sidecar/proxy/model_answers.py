"""The answer of a model API, read while it passes: a stream of events, or one document.

Pure; never raises, whatever comes; holds no more than one event, and of an answer that is no
stream only its numbers.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

from sidecar.proxy.json_members import JsonMembers
from sidecar.proxy.model_events import MEMBERS, Told

# Of one event, or line.
EVENT_BYTES = 256 * 1024
_VALUE_BYTES = 4096
# What a piece may decompress to: more is no answer of a model.
_INFLATED_BYTES = 2**20
_INFLATED_PIECE = 64 * 1024


class Reader(Protocol):
    """Reads the body of an answer."""

    def feed(self, data: bytes) -> None:
        """Go on reading; never raises."""

    def end(self) -> None:
        """Read what is left at the end of the body."""


def reader_of(content_type: str, coding: str, told: Told) -> Reader | None:
    """Return what reads such an answer into ``told``; None: it cannot be read.

    Args:
        content_type: as the header says, with parameters.
        coding: of the content: none, ``identity``, ``gzip`` or ``deflate`` (zlib).
        told: what the answer tells.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    reader: Reader
    if media_type == "text/event-stream":
        reader = _EventStream(told)
    elif media_type in _LINES:
        reader = _JsonLines(told)
    elif media_type == "application/json" or media_type.endswith("+json"):
        reader = _Whole(told)
    else:
        return None
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return reader
    return _Inflating(reader, told) if coding in ("gzip", "x-gzip", "deflate") else None


_LINES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
    }
)


class _Lines:
    """Splits at LF, CR and CRLF; of a line that is too large it yields None."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._too_large = False
        self._after_return = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        if self._after_return:
            data = data.removeprefix(b"\n")
        if data:
            self._after_return = data.endswith(b"\r")
        for line in data.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            if len(text) < len(line) and not self._rest and len(text) <= EVENT_BYTES:
                yield None if self._too_large else text
                self._too_large = False
                continue
            self._rest += text
            if len(self._rest) > EVENT_BYTES:
                self._too_large = True
                self._rest.clear()
            if len(text) < len(line):
                yield from self.end()

    def end(self) -> Iterator[bytes | None]:
        """Yield what there is of the last line."""
        if self._too_large:
            yield None
        elif self._rest:
            yield bytes(self._rest)
        self._rest.clear()
        self._too_large = False


class _JsonLines:
    def __init__(self, told: Told) -> None:
        self._told = told
        self._lines = _Lines()

    def feed(self, data: bytes) -> None:
        self._read(self._lines.feed(data))

    def end(self) -> None:
        self._read(self._lines.end())

    def _read(self, lines: Iterator[bytes | None]) -> None:
        for line in lines:
            if line is None:
                self._told.unread += 1
            elif line and not line.isspace():
                self._told.add(line)


class _EventStream:
    """Server-sent events (HTML standard, section 9.2.6), of which only the data matters."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._lines = _Lines()
        self._data: list[bytes] = []
        self._room = EVENT_BYTES

    def feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._add(line)

    def end(self) -> None:
        # Unlike a browser: a server that leaves out the last empty line has told it all the same.
        for line in self._lines.end():
            self._add(line)
        self._dispatch()

    def _add(self, line: bytes | None) -> None:
        if line is None:
            self._told.unread += 1
        elif not line:
            self._dispatch()
        elif line.startswith(b"data:"):
            self._room -= len(line)
            if self._room >= 0:
                self._data.append(line[5:])

    def _dispatch(self) -> None:
        if self._room < 0:
            self._told.unread += 1
        elif self._data:
            event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            if event.strip() == b"[DONE]":
                self._told.ended = True
            else:
                self._told.add(event)
        self._data.clear()
        self._room = EVENT_BYTES


class _Whole:
    def __init__(self, told: Told) -> None:
        self._told = told
        self._members = JsonMembers(MEMBERS, _VALUE_BYTES)

    def feed(self, data: bytes) -> None:
        if not self._members.done:
            self._members.feed(data)

    def end(self) -> None:
        found = self._members.found.items()
        self._told.add(b"{%b}" % b",".join(b'"%b":%b' % member for member in found))


class _Inflating:
    """Decompresses on the side; what goes on to the client stays compressed."""

    def __init__(self, reader: Reader, told: Told) -> None:
        self._reader = reader
        self._told = told
        # 32: gzip or zlib, as its head says.
        self._decoder = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._given_up = False

    def feed(self, data: bytes) -> None:
        room = _INFLATED_BYTES
        while not self._given_up:
            try:
                piece = self._decoder.decompress(data, _INFLATED_PIECE)
            except zlib.error:
                piece, room = b"", 0
            self._reader.feed(piece)
            room -= len(piece)
            if room <= 0:
                self._given_up = True
                self._told.unread += 1
            if len(piece) < _INFLATED_PIECE:
                return
            data = self._decoder.unconsumed_tail

    def end(self) -> None:
        self._reader.end()
