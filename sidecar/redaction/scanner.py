"""Finds the values of many finders in a text.

A first look says where each finder may find something (`sidecar.redaction.first_look`); here its
pattern is tried there, and what matches is held against what else the finder asks for: a check, the
words nearby, a narrower place within.

A scanner keeps no state but the automata that RE2 builds as it goes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Set

import msgspec

from sidecar.redaction import warm_up
from sidecar.redaction.actions import Change
from sidecar.redaction.detectors.base import Shape, Span
from sidecar.redaction.first_look import FirstLook, Places, Sought
from sidecar.redaction.keys import KeyMatcher
from sidecar.redaction.leads import leads
from sidecar.redaction.nearby import REACH, Nearby, nearby
from sidecar.redaction.patterns import NOTHING, Search, Spans
from sidecar.redaction.rules import Rule

Near = tuple[Nearby, ...]
Found = tuple[int, int, "Finder"]

_UUID = re.compile(rb"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
# How much text is looked at before there is any: at a time; by each pattern that is searched for;
# and how many beginnings of those that are tried where they may begin.
_WARM_LOOK, _WARM_PART, _WARM_LEADS = 2_000, 20_000, 4
# How much longer than its literal a word nearby may be, in bytes.
_LONGEST_WORD = 64
# What detectors without a literal have in common; each is small alone.
_FAMILIES = {
    **dict.fromkeys(("card", "national-id", "coordinates"), "digits with a check"),
    **dict.fromkeys(("us-ssn", "phone"), "digits"),
    **dict.fromkeys(("iban", "crypto-wallet", "service-token"), "letters and digits"),
    **dict.fromkeys(("ipv6", "mac"), "addresses"),
}


class Finder(msgspec.Struct, frozen=True, kw_only=True):
    """One pattern of a rule.

    Attributes:
        rule: what it belongs to.
        order: the rule's place among all.
        search, match: the compiled pattern, as `searching` and `matching` return it.
        group: the group of it that is the value.
        sought: what the first look looks for.
        narrow, valid: what a value must pass; see `Shape` and ``validate`` of a rule.
        near: words that must stand near, all of them.
        integers, spares_uuids: see `Detector`.
        change: what is done with a value.
        excepted: tells whether a value, in UTF-8, is left alone.
        not_at: keys at which the rule does not hold.
    """

    rule: Rule
    order: int
    search: Search
    match: Search
    group: int
    sought: Sought
    narrow: Callable[[str], Span | None] | None
    near: Near
    valid: Callable[[str], bool] | None
    integers: bool
    spares_uuids: bool
    change: Change
    excepted: Callable[[bytes], bool] | None
    not_at: KeyMatcher

    def all(self, data: bytes, near: Near, begin: int = 0, end: int = -1) -> Iterator[Span]:
        """Yield where values stand in UTF-8 text, or in a part of it, as offsets in bytes."""
        while (spans := self.search(data, begin, end))[0] != NOTHING:
            value = self._value(data, spans, near)
            if value is not None and not self._excepts(data, value):
                yield value
            begin = self._behind(spans, value)
            if 0 <= end < begin:
                return

    def in_lines(self, data: bytes, places: Iterable[Span]) -> Iterator[Span]:
        """Yield where values stand in the lines of some places, given in order."""
        behind = 0
        for place, _ in places:
            if place >= behind:
                line = data.rfind(b"\n", behind, place) + 1
                line_end = data.find(b"\n", place)
                behind = len(data) if line_end < 0 else line_end
                yield from self.all(data, (), line, behind)

    def at(self, data: bytes, places: Iterable[Span]) -> Iterator[Span]:
        """Yield where values stand whose pattern matches at one of some places, in order."""
        behind = 0
        for place, _ in places:
            # What begins within a value, or in what is passed over, is none.
            if place < behind or (spans := self.match(data, place))[0] == NOTHING:
                continue
            value = self._value(data, spans, ())
            if value is not None:
                behind = value[1]
                if not self._excepts(data, value):
                    yield value
            elif spans[self.group] == NOTHING:
                behind = spans[0][1]

    def beside(self, data: bytes, words: Iterable[Span], near: Near) -> Iterator[Span]:
        """Yield where values stand in the lines of some words, as far as words reach."""
        begin, spans = 0, [NOTHING]
        for word, word_end in words:
            begin = max(begin, data.rfind(b"\n", begin, word) + 1)
            reach = word_end + _LONGEST_WORD + REACH
            while True:
                if spans[0][0] < begin:
                    spans = self.search(data, begin)
                    if spans[0] == NOTHING:
                        return
                if spans[0][0] > reach:
                    break
                value = None
                # Words before this one are out of reach.
                if spans[0][1] + REACH >= word:
                    value = self._value(data, spans, near)
                    if value is not None and not self._excepts(data, value):
                        yield value
                begin = self._behind(spans, value)

    def _behind(self, spans: Spans, value: Span | None) -> int:
        """Return where to go on behind a match, of which something was a value or nothing."""
        start, end = spans[self.group]
        if value is not None:
            # Not the end of the match: the character behind a value may stand before the next.
            return value[1]
        # Another value may begin inside what only looked like one, but not in what has no value.
        return start + 1 if end > start else spans[0][1] + 1

    def _excepts(self, data: bytes, value: Span) -> bool:
        return self.excepted is not None and self.excepted(data[slice(*value)])

    def _value(self, data: bytes, spans: Spans, near: Near) -> Span | None:
        """Return what of a match is a value; None when nothing is."""
        start, end = spans[self.group]
        if end <= start:
            return None
        for words in near:
            if not words(data, start, end):
                return None
        if self.narrow is not None or self.valid is not None:
            text = data[start:end].decode(errors="replace")
            span = (0, len(text)) if self.narrow is None else self.narrow(text)
            if span is None or not (self.valid is None or self.valid(text[slice(*span)])):
                return None
            if span != (0, len(text)):
                first, last = span
                end = start + len(text[:last].encode())
                start += len(text[:first].encode())
        if self.spares_uuids and _in_uuid(data, start, end):
            return None
        return start, end


def _in_uuid(data: bytes, start: int, end: int) -> bool:
    """Tell whether a place touches a UUID."""
    return any(
        low + match.start() < end and start < low + match.end()
        for low in (max(0, start - 37),)
        for match in _UUID.finditer(data[low : end + 37])
    )


def sought(shape: Shape, keywords: list[str], detector: str) -> Sought:
    """Return what to look for first: words that must stand near, if any, else the pattern."""
    words = shape.near or keywords
    if words:
        return Sought(nearby(tuple(words)).pattern)
    return Sought(shape.pattern, shape.lines, _FAMILIES.get(detector, ""))


class Scanner:
    """Looks for the values of all of some finders.

    Raises:
        re2.error: the patterns together need too much memory.
    """

    def __init__(self, finders: list[Finder]) -> None:
        self.finders = finders
        self._look = FirstLook([finder.sought for finder in finders])
        self._warm()

    def __call__(
        self, text: str, skipped: Set[int] = frozenset(), near: dict[int, Near] | None = None
    ) -> list[Found]:
        """Return where values stand in a text, as offsets in characters, in no order.

        Args:
            text: any.
            skipped: orders of rules that do not hold here.
            near: finder index → the words that must still stand near, of those for which the name
                of what holds the text has others.
        """
        data = text.encode()
        return self._found(text, data, self._look(text, data), skipped, near)

    def unless(self, text: str, some: Set[int]) -> list[Found] | None:
        """Return where values stand in a text; None when some finders may find something in it.

        Args:
            text: any.
            some: indices of finders.
        """
        data = text.encode()
        looked = self._look(text, data)
        if not all(map(some.isdisjoint, looked)):
            return None
        return self._found(text, data, looked, frozenset(), None)

    def _found(
        self,
        text: str,
        data: bytes,
        looked: tuple[Places, Places, set[int]],
        skipped: Set[int],
        near: dict[int, Near] | None,
    ) -> list[Found]:
        places, lines, everywhere = looked
        if not places and not lines and not everywhere and not near:
            return []
        found: list[Found] = []
        for index, words in (near or {}).items():
            places.pop(index, None)
            lines.pop(index, None)
            everywhere.discard(index)
            finder = self.finders[index]
            if finder.order not in skipped:
                found += [(*span, finder) for span in finder.all(data, words)]
        for index in (*everywhere, *lines, *places):
            finder = self.finders[index]
            if finder.order in skipped:
                continue
            if finder.near:
                at = places.get(index)
                named = sorted(at) if at else finder.near[0].places(data)
                values = finder.beside(data, named, finder.near)
            elif index in places:
                values = finder.at(data, sorted(places[index]))
            elif index in lines:
                values = finder.in_lines(data, sorted(lines[index]))
            else:
                values = finder.all(data, ())
            found += [(*span, finder) for span in values]
        return found if len(data) == len(text) or not found else _in_characters(data, found)

    def _warm(self) -> None:
        for text in warm_up.texts():
            # In pieces, since in a long text the look gives up what matches everywhere.
            for begin in range(0, len(text), _WARM_LOOK):
                piece = text[begin : begin + _WARM_LOOK]
                self._look(piece, piece.encode())
            part = text[:_WARM_PART].encode()
            for finder in self.finders:
                if finder.near or not leads(finder.sought.pattern):
                    for _ in finder.all(part, ()):
                        pass
        for finder in self.finders:
            for lead in leads(finder.sought.pattern)[:_WARM_LEADS]:
                for beginning in (lead.literal, f" {lead.literal}"):
                    finder.match((beginning + warm_up.END).encode(), 0)


def _in_characters(data: bytes, found: list[Found]) -> list[Found]:
    """Turn offsets in bytes into offsets in characters."""
    places = sorted({place for start, end, _ in found for place in (start, end)})
    characters: dict[int, int] = {}
    last = count = 0
    for place in places:
        count += len(data[last:place].decode(errors="replace"))
        last = place
        characters[place] = count
    return [(characters[start], characters[end], finder) for start, end, finder in found]
