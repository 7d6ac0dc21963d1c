"""Where any of many patterns may match a text: one look, whatever their number.

All literals that patterns begin with or contain (`sidecar.redaction.leads`) are looked for at
once, by an Aho-Corasick automaton. A pattern that begins with a literal is to be tried only where
that stands; one that contains a literal is to be searched for only in a text that holds it. The few
without a literal, digits in groups mostly, are searched for together with others of their family,
and tried where any of it matches. They are not put into one: an automaton has a state for each
combination of what its patterns are at, and explodes on high-entropy text when many are under way
at a time. For the same reason no pattern of an operator is put there.

The look never passes over a place at which a pattern matches; it may name too many.
"""

import re
from functools import lru_cache

import msgspec
from ahocorasick_rs import BytesAhoCorasick, Implementation

from sidecar.redaction.leads import Lead, Mark, leads, marks
from sidecar.redaction.patterns import (
    NOTHING,
    Search,
    any_of,
    compile_pattern,
    matching,
    searching,
)

# A pattern that may begin at more places, or at more than one in so many bytes, is cheaper searched
# for in the whole text.
_MOST_PLACES, _BYTES_FOR_A_PLACE = 64, 256
# Where no match begins, where it begins with the literal, with the character before, with either.
_NOWHERE, _AT_LITERAL, _BEFORE_IT, _EITHER = range(4)
_ANYWHERE = bytes([_AT_LITERAL] * 256)
_LINE_END = ord("\n")
# A character that RE2 takes for part of a word, and one that it does not. Tables tell of ASCII, and
# the latter is none of it.
_WORD, _NO_WORD = "_", "\u2014"
# Letters whose other case takes more or fewer bytes, and those that are others in any case, as the
# long s is an s.
_CASE_CHANGES_LENGTH = searching(
    compile_pattern(
        "[\u017f\u0130\u023a\u023e\u1e9e\u2126\u212a\u212b\u2c62\u2c64\u2c6d-\u2c70\u2c7e\u2c7f"
        "\u00b5\u0345\u03a3\u03c2\u03d0\u03d1\u03d5\u03d6\u03f0\u03f1\u03f4\u03f5\u1c80-\u1c88\u1fbe"
        "\ua78d\ua7aa-\ua7ae\ua7b0-\ua7b2\ua7c5]"
    )
)
# What has a lower case; Roman numerals and letters in circles are no letters to Unicode.
_UPPER = searching(compile_pattern(r"[\p{Lu}\p{Lt}\x{2160}-\x{216f}\x{24b6}-\x{24cf}]"))

Span = tuple[int, int]
Places = dict[int, list[Span]]


class Sought(msgspec.Struct, frozen=True):
    """A pattern to look for.

    Attributes:
        pattern: RE2.
        lines: whether it looks at one line at a time.
        family: patterns without a literal and of the same family are searched for together.
    """

    pattern: str
    lines: bool = True
    family: str = ""


class _Group(msgspec.Struct, eq=False):
    """Patterns for which the same is to be done where a literal stands.

    Attributes:
        written: how it is written, where its case counts.
        begin: whether a match begins there; else it contains the literal.
        before: by the byte before it, where a match begins.
        after: by the byte behind it, whether a match may go on.
        lines: whether the patterns look at one line at a time.
        indices: of the patterns.
    """

    written: bytes | None
    begin: bool
    before: bytes
    after: bytes
    lines: bool
    indices: list[int]


# By all that its patterns have in common.
_Groups = dict[tuple[bytes | None, bool, bytes, bytes, bool], _Group]


class _Literal(msgspec.Struct, frozen=True):
    """What is to be done where a literal stands; ``before`` and ``after`` are of any group."""

    groups: list[_Group]
    before: bytes
    after: bytes

    def without(self, group: _Group) -> "_Literal":
        """Leave a group out."""
        return _Literal([one for one in self.groups if one is not group], self.before, self.after)


class _Literals:
    """Finds where literals stand."""

    def __init__(self, literals: dict[str, _Groups], implementation: Implementation) -> None:
        self._literals = [
            _Literal(
                list(groups.values()),
                _any(frozenset(group.before for group in groups.values())),
                _any(frozenset(group.after for group in groups.values())),
            )
            for groups in literals.values()
        ]
        self._find = BytesAhoCorasick(
            [text.encode() for text in literals], implementation=implementation
        ).find_matches_as_indexes

    def spots(self, lower: bytes, data: bytes) -> list[tuple[_Group, list[Span]]]:
        """Return where the patterns of groups are to be tried or searched for.

        Args:
            lower: a text in lower case.
            data: the text, as long.
        """
        literals, last, most = self._literals, len(data) - 1, _most(data)
        spots: dict[_Group, list[Span]] = {}
        for which, start, end in self._find(lower, overlapping=True):
            literal = literals[which]
            before = data[start - 1] if start else _LINE_END
            behind = data[end] if end <= last else _LINE_END
            if not (literal.before[before] and literal.after[behind]):
                continue
            for group in literal.groups:
                begins = group.before[before]
                if not (begins and group.after[behind]):
                    continue
                if group.written is not None and data[start:end] != group.written:
                    continue
                spans = spots.get(group)
                if spans is None:
                    spans = spots[group] = []
                elif len(spans) >= most:
                    # It will be searched for everywhere.
                    if literals is self._literals:
                        literals = literals.copy()
                    literals[which] = literals[which].without(group)
                    continue
                if begins != _BEFORE_IT or not start:
                    spans.append((start, end))
                if begins != _AT_LITERAL and start:
                    spans.append((_previous(data, start), end))
        return list(spots.items())


class FirstLook:
    """Finds the places at which patterns, given in a fixed order, may match.

    Raises:
        re2.error: a pattern is not RE2 or needs too much memory.
    """

    def __init__(self, sought: list[Sought]) -> None:
        families: dict[str, list[int]] = {}
        self._any_case: set[int] = set()
        literals: dict[str, _Groups] = {}
        for index, one in enumerate(sought):
            found = leads(one.pattern) if one.lines else ()
            contained = () if found else marks(one.pattern)
            beginnings: tuple[Lead | Mark, ...] = found or contained
            for literal in beginnings:
                written = None if literal.any_case else literal.literal.encode()
                if literal.any_case:
                    self._any_case.add(index)
                alike = (written, bool(found), *_tables(literal), one.lines)
                groups = literals.setdefault(literal.literal.lower(), {})
                groups.setdefault(alike, _Group(*alike, [])).indices.append(index)
            if not found and not contained:
                families.setdefault(one.family if one.lines else "", []).append(index)
        self._always = families.pop("", [])
        self._families = [
            (any_of(sought[index].pattern for index in indices), indices)
            for indices in families.values()
        ]
        # Apart, so that the table of the one for most text has columns for few bytes.
        self._ascii = _Literals(
            {text: groups for text, groups in literals.items() if text.isascii()},
            Implementation.DFA,
        )
        self._others = _Literals(
            {text: groups for text, groups in literals.items() if not text.isascii()},
            Implementation.ContiguousNFA,
        )

    def __call__(self, text: str, data: bytes) -> tuple[Places, Places, set[int]]:
        """Look at a text.

        Args:
            text: any.
            data: the same in UTF-8.

        Returns:
            Pattern index → where it is to be tried: (start of the match, end of its literal), in
            bytes; pattern index → places in the lines that are to be searched for it; and the
            indices of the patterns that are to be searched for everywhere.
        """
        everywhere = set(self._always)
        places: Places = {}
        lines: Places = {}
        for search, indices in self._families:
            if (at := search(data, 0)[0][0]) >= 0:
                _place_family(search, indices, at, data, places, everywhere)
        lower = data.lower()
        if len(data) > len(text):
            if _CASE_CHANGES_LENGTH(data, 0)[0] != NOTHING:
                everywhere |= self._any_case
            elif _UPPER(lower, 0)[0] != NOTHING:
                lower = text.lower().encode()
        spots = self._ascii.spots(lower, data)
        if len(data) > len(text):
            spots += self._others.spots(lower, data)
        most = _most(data)
        for group, spans in spots:
            # What looks at whole values may match more lines than that of its literal.
            if len(spans) >= most or not group.lines:
                everywhere.update(group.indices)
                continue
            kind = places if group.begin else lines
            for index in group.indices:
                kind[index] = kind[index] + spans if index in kind else spans
        everywhere.update(index for index, spans in places.items() if len(spans) >= most)
        for index in everywhere.intersection(places):
            del places[index]
        for index in everywhere.intersection(lines):
            del lines[index]
        return places, lines, everywhere


def _place_family(
    search: Search,
    indices: list[int],
    at: int,
    data: bytes,
    places: Places,
    everywhere: set[int],
) -> None:
    """Add where any of a family matches, of which the first place is known."""
    found: list[Span] = []
    most = _most(data)
    while at >= 0:
        if len(found) == most:
            everywhere.update(indices)
            return
        found.append((at, at))
        at = search(data, at + 1)[0][0]
    for index in indices:
        places[index] = found


def _most(data: bytes) -> int:
    return max(_MOST_PLACES, len(data) // _BYTES_FOR_A_PLACE)


def _previous(data: bytes, at: int) -> int:
    """Return where the character before a place begins."""
    at -= 1
    while at and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _tables(lead: Lead | Mark) -> tuple[bytes, bytes]:
    if isinstance(lead, Mark):
        return _ANYWHERE, _ANYWHERE
    return (
        _before_table(lead.before, _alike(lead.literal[0], lead.before)),
        _after_table(_alike(lead.literal[-1], lead.after), lead.after),
    )


def _alike(character: str, beside: str) -> str:
    """Return the one that stands for all characters beside which a pattern matches the same."""
    if r"\b" not in beside.lower():
        return _NO_WORD
    return _WORD if re.fullmatch(r"(?a:\w)", character) else _NO_WORD


@lru_cache(maxsize=4096)
def _any(tables: frozenset[bytes]) -> bytes:
    return bytes(map(any, zip(*tables, strict=True)))


@lru_cache(maxsize=4096)
def _before_table(before: str, first: str) -> bytes:
    """Return by the byte before a literal where the match begins.

    Of a byte that is part of a longer character nothing is known.
    """
    if not before:
        return _ANYWHERE
    match = matching(compile_pattern(f"(?:{before}){first}"))
    table = bytearray([_EITHER] * 256)
    for byte in range(128):
        text = bytes([byte]) + first.encode()
        at_literal = match(text, 1)[0] != NOTHING
        before_it = match(text, 0)[0] != NOTHING
        table[byte] = _AT_LITERAL * at_literal + _BEFORE_IT * before_it
    return bytes(table)


@lru_cache(maxsize=4096)
def _after_table(last: str, after: str) -> bytes:
    """Return by the byte behind a literal whether a match may go on."""
    table = bytearray([1] * 256)
    if after:
        match = matching(compile_pattern(f"{last}(?:{after})"))
        for byte in range(128):
            table[byte] = match(last.encode() + bytes([byte]), 0)[0] != NOTHING
    return bytes(table)
