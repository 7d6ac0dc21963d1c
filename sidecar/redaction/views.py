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
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from urllib.parse import quote

import msgspec

_MAX_DEPTH = 3
# How much of a word is looked at on each side of a place.
_WORD = 256
_BLANK = re.compile(r"[\s\"'<>`]")


class View(msgspec.Struct, frozen=True):
    """A text with encodings undone.

    Attributes:
        text: as it reads.
        parent: the view it was made of, None for the text itself.
        layer: finds the escapes that were undone in the parent.
        starts: for each character, and for the end, its offset in the parent's text.
        depth: how many encodings are undone.
    """

    text: str
    parent: "View | None" = None
    layer: re.Pattern[str] | None = None
    starts: "array[int]" = msgspec.field(default_factory=lambda: array("I"))
    depth: int = 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where a piece of this view stands in the original text."""
        view = self
        while view.parent is not None:
            start, end = view.starts[start], view.starts[end]
            view = view.parent
        return start, end

    def begins_at(self, place: int) -> bool:
        """Tell whether a character of this view, or its end, stands at an original offset."""
        indices = range(len(self.text) + 1)
        index = bisect_left(indices, place, key=lambda i: self.span(i, i)[0])
        return index < len(indices) and self.span(index, index)[0] == place

    def write(self, start: int, end: int, plain: str) -> str:
        """Return ``plain`` as it must be written in the original text, in place of a piece.

        It is encoded only where the word around the place is encoded, so that a placeholder for
        an address in a sentence stays readable when only a URL beside it has escapes.
        """
        view = self
        while view.parent is not None and view.layer is not None:
            start, end = view.starts[start], view.starts[end]
            escape = view.layer.search(_word(view.parent.text, start, end))
            if escape:
                plain = _ENCODERS[escape[0][0]](plain)
            view = view.parent
        return plain


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


def _layers(text: str) -> list[re.Pattern[str]]:
    """Return the encodings that a text can be read in, the widest last."""
    layers = [layer for layer in _SINGLE if layer.search(text)]
    if len(layers) > 1:
        layers.append(_ALL)
    if "+" in text:
        layers.append(_ALL_FORM)
    return layers


def _word(text: str, start: int, end: int) -> str:
    before = _BLANK.split(text[max(0, start - _WORD) : start])[-1]
    after = _BLANK.split(text[end : end + _WORD], maxsplit=1)[0]
    return before + text[start:end] + after


def _undo(view: View, layer: re.Pattern[str]) -> View:
    pieces: list[str] = []
    starts = array("I")  # a list would take nine times as much
    last = 0
    for match in layer.finditer(view.text):
        pieces.append(view.text[last : match.start()])
        starts.extend(range(last, match.start()))
        place = match.start()
        for character, length in _DECODERS[match[0][0]](match[0]):
            pieces.append(character)
            starts.append(place)
            place += length
        last = match.end()
    pieces.append(view.text[last:])
    starts.extend(range(last, len(view.text) + 1))
    return View("".join(pieces), view, layer, starts, view.depth + 1)


def _percent_decode(run: str) -> list[tuple[str, int]]:
    raw = bytes.fromhex(run.replace("%", ""))
    return [(character, 3 * size) for character, size in _utf8_characters(raw)]


def _blanks(run: str) -> list[tuple[str, int]]:
    return [(" ", 1)] * len(run)


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


def percent_encode(plain: str) -> str:
    """Return the text with everything but RFC 3986 unreserved characters percent-encoded."""
    return quote(plain, safe="")


# By the first character of an escape.
_DECODERS: dict[str, Callable[[str], list[tuple[str, int]]]] = {
    "%": _percent_decode,
    "+": _blanks,
    "\\": _json_decode,
    "&": _html_decode,
}
_ENCODERS: dict[str, Callable[[str], str]] = {
    "%": percent_encode,
    "+": percent_encode,
    "\\": lambda plain: msgspec.json.encode(plain).decode()[1:-1],
    "&": html.escape,
}
_PERCENT = r"(?:%[0-9A-Fa-f]{2})+"
_HTML = r"&(?:#[0-9]{1,9}|#[xX][0-9a-fA-F]{1,8}|[a-zA-Z][a-zA-Z0-9]{1,30});"


# What text must hold for any of them to apply.
MARKERS = tuple(_DECODERS)
_SINGLE = (re.compile(_PERCENT), re.compile(_JSON_ESCAPE), re.compile(_HTML))
_ALL = re.compile(f"{_PERCENT}|{_JSON_ESCAPE}|{_HTML}")
_ALL_FORM = re.compile(rf"{_PERCENT}|\++|{_JSON_ESCAPE}|{_HTML}")
