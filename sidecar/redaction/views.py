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
from collections.abc import Callable, Iterator
from urllib.parse import quote

import msgspec

_MAX_DEPTH = 3
_MAX_VIEWS = 12
_BLANK = re.compile(r"[\s\"'<>`]")


class Layer(msgspec.Struct, frozen=True):
    """One encoding.

    Attributes:
        name: for people.
        marker: a string without which a text is not in this encoding.
        escapes: finds one run of escapes; what lies between stays as it is.
        decode: a run → its characters, each with the length of its escape.
        encode: plain text → the same in this encoding.
    """

    name: str
    marker: str
    escapes: re.Pattern[str]
    decode: Callable[[str], list[tuple[str, int]]]
    encode: Callable[[str], str]


class View(msgspec.Struct, frozen=True):
    """A text with encodings undone.

    Attributes:
        text: as it reads.
        parent: the view it was made of, None for the text itself.
        layer: the encoding that was undone in the parent.
        starts: for each character, and for the end, its offset in the parent's text.
        depth: how many encodings are undone.
    """

    text: str
    parent: "View | None" = None
    layer: "Layer | None" = None
    starts: list[int] = []
    depth: int = 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where a piece of this view stands in the original text."""
        view = self
        while view.parent is not None:
            start, end = view.starts[start], view.starts[end]
            view = view.parent
        return start, end

    def bounds(self) -> frozenset[int]:
        """Return the offsets in the original text at which a character of this view begins."""
        return frozenset(self.span(place, place)[0] for place in range(len(self.text) + 1))

    def write(self, start: int, end: int, plain: str) -> str:
        """Return ``plain`` as it must be written in the original text, in place of a piece.

        It is encoded only where the word around the place is encoded, so that a placeholder for
        an address in a sentence stays readable when only a URL beside it has escapes.
        """
        view = self
        while view.parent is not None and view.layer is not None:
            start, end = view.starts[start], view.starts[end]
            if view.layer.escapes.search(_word(view.parent.text, start, end)):
                plain = view.layer.encode(plain)
            view = view.parent
        return plain


def views(text: str) -> list[View]:
    """Return the text and every reading of it with encodings undone, the deepest first."""
    found = [View(text)]
    seen = {text}
    for view in found:  # grows while it is read
        if view.depth == _MAX_DEPTH:
            break
        for layer in LAYERS:
            if layer.marker in view.text and len(found) < _MAX_VIEWS:
                deeper = _undo(view, layer)
                if deeper is not None and deeper.text not in seen:
                    seen.add(deeper.text)
                    found.append(deeper)
    found.reverse()
    return found


def _word(text: str, start: int, end: int) -> str:
    while start > 0 and not _BLANK.match(text[start - 1]):
        start -= 1
    while end < len(text) and not _BLANK.match(text[end]):
        end += 1
    return text[start:end]


def _undo(view: View, layer: Layer) -> View | None:
    pieces: list[str] = []
    starts: list[int] = []
    last = 0
    for match in layer.escapes.finditer(view.text):
        pieces.append(view.text[last : match.start()])
        starts.extend(range(last, match.start()))
        place = match.start()
        for character, length in layer.decode(match[0]):
            pieces.append(character)
            starts.append(place)
            place += length
        last = match.end()
    if not last:
        return None
    pieces.append(view.text[last:])
    starts.extend(range(last, len(view.text) + 1))
    return View("".join(pieces), view, layer, starts, view.depth + 1)


def _percent_decode(run: str) -> list[tuple[str, int]]:
    raw = bytes.fromhex(run.replace("%", ""))
    return [(character, 3 * size) for character, size in _utf8_characters(raw)]


def _form_decode(run: str) -> list[tuple[str, int]]:
    return [(" ", 1)] * len(run) if run[0] == "+" else _percent_decode(run)


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
_JSON_ESCAPE = re.compile(
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


def _json_encode(plain: str) -> str:
    return msgspec.json.encode(plain).decode()[1:-1]


def _html_decode(entity: str) -> list[tuple[str, int]]:
    plain = html.unescape(entity)
    # An entity may stand for two characters; the second has no place of its own.
    return [(character, 0 if index else len(entity)) for index, character in enumerate(plain)]


def percent_encode(plain: str) -> str:
    """Return the text with everything but RFC 3986 unreserved characters percent-encoded."""
    return quote(plain, safe="")


LAYERS = (
    Layer("percent", "%", re.compile(r"(?:%[0-9A-Fa-f]{2})+"), _percent_decode, percent_encode),
    Layer("form", "+", re.compile(r"(?:%[0-9A-Fa-f]{2})+|\++"), _form_decode, percent_encode),
    Layer("json", "\\", _JSON_ESCAPE, _json_decode, _json_encode),
    Layer(
        "html",
        "&",
        re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});"),
        _html_decode,
        html.escape,
    ),
)
