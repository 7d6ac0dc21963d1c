"""Members of a JSON object, found by name while the object passes, however large the rest is.

An answer with embeddings is megabytes, and what it cost stands behind them. Nothing is kept but
the members that are wanted; the rest is skipped by its quotes and brackets (RFC 8259), unchecked.
"""

import re

# A longer name is none that anyone asks for.
_NAME_BYTES = 64
# How far to look for the end of what is skipped: to the end of a piece, again and again, would
# take the square of its length for brackets without a quote.
_LOOK_BYTES = 2048
# Strings and brackets, one or two microseconds each: what has more is given up, wherever it is cut.
_STEPS = 50_000
_STRUCTURE = re.compile(rb'["{}\[\]:,]')
_BRACKET = re.compile(rb"[{}\[\]]")
_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_BEFORE = b" \t\r\n\xef\xbb\xbf"


class JsonMembers:
    """Reads one JSON object, piece by piece; in anything else it finds nothing.

    Attributes:
        found: the value of each wanted member that was there, as it was written; of several of
            one name the last.
        done: whether what follows cannot tell more, or is not looked at any more.
    """

    def __init__(self, wanted: frozenset[bytes], value_bytes: int) -> None:
        """Look for members.

        Args:
            wanted: their names, as they are written in JSON.
            value_bytes: the most of a value; a larger one is not found.
        """
        self.found: dict[bytes, bytes] = {}
        self.done = False
        self._wanted = wanted
        self._value_bytes = value_bytes
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # Of the member whose value has begun.
        self._name: bytes | None = None
        # What has come of a name, with its quotes, or of a value, with its colon.
        self._kept: bytearray | None = None
        self._room = 0
        self._steps = _STEPS

    def feed(self, data: bytes) -> None:
        """Go on reading; never raises."""
        if not self._depth:
            data = data.lstrip(_BEFORE)
            if not data:
                return
            self._depth, self.done = 1, data[:1] != b"{"
            data = data[1:]
        at = 0
        while at < len(data) and not self.done:
            start = at
            if self._in_string:
                at = self._skip_string(data, at)
            elif self._depth > 1:
                at = self._skip_nested(data, at)
            else:
                at = self._step(data, at)
            if self._kept is not None:
                if len(self._kept) + at - start > self._room:
                    self._kept = None
                else:
                    self._kept += data[start:at]
            self.done = self.done or self._steps <= 0

    def _step(self, data: bytes, at: int) -> int:
        """Go on between the members, and to where their values begin."""
        match = _STRUCTURE.search(data, at)
        if match is None:
            return len(data)
        if match.start() > at:
            return match.start()
        self._steps -= 1
        mark = match[0]
        if mark == b'"':
            self._in_string = True
            if self._name is None:
                self._keep(_NAME_BYTES)
        elif mark == b":":
            self._name = bytes(self._kept or b"").strip()[1:-1]
            self._kept = None
            if self._name in self._wanted:
                self._keep(self._value_bytes)
        elif mark in b"{[":
            self._depth += 1
        else:
            if self._name is not None and self._kept is not None:
                self.found[self._name] = bytes(self._kept[1:]).strip()
            self._name = self._kept = None
            self.done = mark != b","
        return at + 1

    def _keep(self, room: int) -> None:
        self._kept, self._room = bytearray(), room

    def _skip_nested(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at, at + _LOOK_BYTES)
        end = quote if quote >= 0 else min(at + _LOOK_BYTES, len(data))
        closed = data.count(b"}", at, end) + data.count(b"]", at, end)
        if closed < self._depth - 1:
            opened = data.count(b"{", at, end) + data.count(b"[", at, end)
            self._steps -= opened + closed
            self._depth += opened - closed
        else:
            for match in _BRACKET.finditer(data, at, end):
                self._steps -= 1
                self._depth += 1 if match[0] in b"{[" else -1
                if self._depth == 1:
                    return match.end()
        self._in_string = quote >= 0
        self._steps -= self._in_string
        return end + self._in_string

    def _skip_string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        end = data.find(b'"', at)
        if end < 0 or (end > at and data[end - 1] == 0x5C):
            # A backslash before a quote may be an escaped one itself.
            match = _TEXT.match(data, at)
            end = match.end() if match else at
            if end == len(data) or data[end] == 0x5C:
                self._escaped = end < len(data)
                return len(data)
        self._in_string = False
        return end + 1
