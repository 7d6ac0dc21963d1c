"""Encodings that a value can hide in, and how to write into them.

A *view* is a text as it reads with one or more encodings undone, and knows for every character
where it stood. A match in a view is thereby a place in the original text, and what is written
there can be put into the same encoding. Encodings nest (percent twice, percent in JSON), so views
are made of views.

Pure: no state, no I/O. Percent-encoding is RFC 3986 section 2.1; ``+`` for a blank is the WHATWG
URL standard's application/x-www-form-urlencoded; escapes in JSON strings are RFC 8259 section 7.
"""

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from urllib.parse import quote

import msgspec
import re2

from sidecar.redaction.patterns import NOTHING, Spans, searching

_MAX_DEPTH = 3
# In bytes. In a longer line, encodings that stand side by side are undone together alone.
_LONG = 4096
# How much of a word is looked at on each side of a place.
_WORD = 256
_BLANK = re.compile(r"[\s\"'<>`]")


class _Layer(msgspec.Struct, frozen=True):
    """An encoding, or several side by side.

    Attributes:
        find: finds the next escape in UTF-8 text.
        form: whether ``+`` stands for a blank.
    """

    find: Callable[[bytes, int], Spans]
    form: bool = False

    def escapes(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where escapes stand, as offsets in characters."""
        data = text.encode()
        ascii_only = len(data) == len(text)
        counted = characters = 0
        start, end = self.find(data, 0)[0]
        while start >= 0:
            if ascii_only:
                yield start, end
            else:
                characters += len(data[counted:start].decode())
                counted = start
                yield characters, characters + len(data[start:end].decode())
            start, end = self.find(data, end)[0]

    def write(self, plain: str, word: str) -> str:
        """Return a text in the encoding that a word is in, if it is."""
        data = word.encode()
        start, _ = self.find(data, 0)[0]
        if start < 0:
            return percent_encode(plain) if self.form and "+" in word else plain
        encode = _ENCODERS.get(chr(data[start]))
        return plain if encode is None else encode(plain)


class View(msgspec.Struct, frozen=True):
    """A text with encodings undone.

    Attributes:
        text: as it reads.
        parent: the view it was made of, None for the text itself.
        layer: which escapes were undone in the parent.
        here, there: offsets in this text and in the parent's at which they begin to run side by
            side: for each character that was written as an escape, and behind each.
        depth: how many encodings are undone.
    """

    text: str
    parent: "View | None" = None
    layer: _Layer | None = None
    here: list[int] = msgspec.field(default_factory=list)
    there: list[int] = msgspec.field(default_factory=list)
    depth: int = 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where a piece of this view stands in the original text."""
        view = self
        while view.parent is not None:
            start, end = view._in_parent(start), view._in_parent(end)
            view = view.parent
        return start, end

    def _in_parent(self, place: int) -> int:
        run = bisect_right(self.here, place) - 1
        return self.there[run] + place - self.here[run]

    def begins_at(self, place: int) -> bool:
        """Tell whether a character of this view, or its end, stands at an original offset."""
        return self._from_original(place) is not None

    def _from_original(self, place: int) -> int | None:
        if self.parent is None:
            return place
        above = self.parent._from_original(place)
        if above is None:
            return None
        run = bisect_right(self.there, above) - 1
        below = self.here[run] + above - self.there[run]
        inside = run + 1 == len(self.here) or below < self.here[run + 1]
        return below if inside else None

    def write(self, start: int, end: int, plain: str) -> str:
        """Return ``plain`` as it must be written in the original text, in place of a piece.

        It is encoded only where the word around the place is encoded, so that a placeholder for
        an address in a sentence stays readable when only a URL beside it has escapes.
        """
        view = self
        while view.parent is not None and view.layer is not None:
            start, end = view._in_parent(start), view._in_parent(end)
            plain = view.layer.write(plain, _word(view.parent.text, start, end))
            view = view.parent
        return plain


def may_be_encoded(text: str) -> bool:
    """Tell, by one quick look, whether there may be more than one reading of a text."""
    return "%" in text or "\\" in text or "&" in text or "+" in text or not text.isascii()


def escapes(text: str) -> Iterator[int]:
    """Yield where a text holds something that can be read in another way."""
    return (start for start, _ in _ANY.escapes(text))


def views(text: str) -> list[View]:
    """Return the text and every reading of it with encodings undone, the deepest first.

    Where several encodings stand side by side, each is undone alone and all are undone together;
    only what has most undone, with ``+`` as it is and as a blank, is looked into further.
    """
    found = [View(text)]
    seen = {text}
    front = found
    for _ in range(_MAX_DEPTH):
        widest: list[View] = []
        for view in front:
            deeper = [_undo(view, layer) for layer in _layers(view.text)]
            new = {view.text: view for view in deeper if view.text not in seen}
            seen.update(new)
            found = [*found, *new.values()]
            widest += list(new.values())[-2:]
        front = widest
    found.reverse()
    return found


def _layers(text: str) -> list[_Layer]:
    """Return the encodings that a text can be read in, the widest last."""
    data = text.encode()
    layers = [
        layer for mark, layer in _SINGLE if mark in text and layer.find(data, 0)[0] != NOTHING
    ]
    if len(data) > len(text) and _LOOKALIKE.find(data, 0)[0] != NOTHING:
        layers.append(_LOOKALIKE)
    if len(layers) > 1:
        layers = [_ALL] if len(data) > _LONG else [*layers, _ALL]
    # A form of that length has other escapes, too.
    if "+" in text and (layers or len(data) <= _LONG) and _PLUS(data, 0)[0] != NOTHING:
        layers.append(_ALL_FORM)
    return layers


def _word(text: str, start: int, end: int) -> str:
    before = _BLANK.split(text[max(0, start - _WORD) : start])[-1]
    after = _BLANK.split(text[end : end + _WORD], maxsplit=1)[0]
    return before + text[start:end] + after


def _undo(view: View, layer: _Layer) -> View:
    text = view.text.replace("+", " ") if layer.form else view.text
    pieces: list[str] = []
    here, there = [0], [0]
    last = length = 0
    for start, end in layer.escapes(view.text):
        pieces.append(text[last:start])
        length += start - last
        place, escape = start, view.text[start:end]
        for character, size in _DECODERS.get(escape[0], _ascii)(escape):
            if character:
                here.append(length)
                there.append(place)
                pieces.append(character)
                length += 1
            place += size
        last = end
        here.append(length)
        there.append(last)
    pieces.append(text[last:])
    return View("".join(pieces), view, layer, here, there, view.depth + 1)


def _percent_decode(run: str) -> list[tuple[str, int]]:
    raw = bytes.fromhex(run.replace("%", ""))
    return [(character, 3 * size) for character, size in _utf8_characters(raw)]


def _utf8_characters(raw: bytes) -> Iterator[tuple[str, int]]:
    """Yield each character with its size in bytes; bytes that are not UTF-8 read as U+FFFD."""
    place = 0
    while place < len(raw):
        lead = raw[place]
        size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        try:
            yield raw[place : place + size].decode(), size
        except UnicodeDecodeError:
            yield "\ufffd", 1
            size = 1
        place += size


_JSON_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_JSON_ESCAPE = (
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair
    r"|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[\"\\/bfnrt]"
)


def _json_decode(escape: str) -> list[tuple[str, int]]:
    if len(escape) == 12:
        pair = bytes.fromhex(escape[2:6] + escape[8:12])
        return [(pair.decode("utf-16-be"), 12)]
    if escape[1] in "ux":
        code = int(escape[2:], 16)
        return [(chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd", len(escape))]
    return [(_JSON_SHORT.get(escape[1], escape[1]), 2)]


def _html_decode(entity: str) -> list[tuple[str, int]]:
    plain = html.unescape(entity)
    # An entity may stand for two characters; the second has no place of its own.
    return [(character, 0 if index else len(entity)) for index, character in enumerate(plain)]


def _ascii(run: str) -> list[tuple[str, int]]:
    """Read characters that look like others, or like nothing, as those."""
    return [(_LOOKALIKES.get(character, ""), 1) for character in run]


def percent_encode(plain: str) -> str:
    """Return the text with everything but RFC 3986 unreserved characters percent-encoded."""
    return quote(plain, safe="")


# By the first character of an escape; what looks like ASCII needs no writing of its own.
_DECODERS: dict[str, Callable[[str], list[tuple[str, int]]]] = {
    "%": _percent_decode,
    "\\": _json_decode,
    "&": _html_decode,
}
_ENCODERS: dict[str, Callable[[str], str]] = {
    "%": percent_encode,
    "\\": lambda plain: msgspec.json.encode(plain).decode()[1:-1],
    "&": html.escape,
}

# Full-width forms, and decimal digits of other scripts (Unicode character database, category Nd).
_LOOKALIKES = (
    {chr(0xFF01 + place): chr(0x21 + place) for place in range(0x5E)}
    | {"\u3000": " "}
    | {
        chr(zero + digit): str(digit)
        for zero in (0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6)
        for digit in range(10)
    }
)
# What takes no room: soft hyphen, joiners, marks of direction, variation selectors.
_NO_WIDTH = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u2069\ufe00-\ufe0f\ufeff"
)

_PERCENT = r"(?:%[0-9A-Fa-f]{2})+"
_HTML = r"&(?:#[0-9]{1,9}|#[xX][0-9a-fA-F]{1,8}|[a-zA-Z][a-zA-Z0-9]{1,30});"
_LOOKALIKE_RUN = f"[{''.join(_LOOKALIKES)}{_NO_WIDTH}]+"
_FORM_BLANK = r"[0-9A-Za-z)]\+[0-9A-Za-z(]"


def _layer(*patterns: str, form: bool = False) -> _Layer:
    return _Layer(searching(re2.compile("|".join(patterns))), form)


# By what a text must hold for it to apply.
_SINGLE = (
    ("%", _layer(_PERCENT)),
    ("\\", _layer(_JSON_ESCAPE)),
    ("&", _layer(_HTML)),
)
_LOOKALIKE = _layer(_LOOKALIKE_RUN)
_ALL = _layer(_PERCENT, _JSON_ESCAPE, _HTML, _LOOKALIKE_RUN)
_ALL_FORM = _layer(_PERCENT, _JSON_ESCAPE, _HTML, _LOOKALIKE_RUN, form=True)
_PLUS = searching(re2.compile(_FORM_BLANK))
_ANY = _layer(_PERCENT, _JSON_ESCAPE, _HTML, _FORM_BLANK, _LOOKALIKE_RUN)
