"""Where any of many patterns may match a text: one look, whatever their number.

All literals that patterns begin with or contain (`sidecar.redaction.patterns`) are looked for at
once. A pattern that begins with a literal is to be tried only where that stands; one that contains
a literal is to be searched for only in a text that holds it. The few without a literal, digits in
groups mostly, share a `Set` with others of their kind. They are not put into one: the automaton of
a `Set` has a state for each combination of what its patterns are at, and explodes on high-entropy
text when many are under way at a time. For the same reason no pattern of an operator is put there.

The look never passes over a place at which a pattern matches; it may name too many.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec
import re2

from sidecar.redaction.patterns import (
    NOTHING,
    Lead,
    Spans,
    compile_pattern,
    leads,
    marks,
    options,
    searching,
    set_of,
)

# A pattern that may begin at more places, or at more than one in so many bytes, is cheaper searched
# for in the whole text.
_MOST_PLACES, _BYTES_FOR_A_PLACE = 64, 256
# Where no match begins, where it begins with the literal, with the character before, with either.
_NOWHERE, _AT_LITERAL, _BEFORE_IT, _EITHER = range(4)
_LINE_END = ord("\n")
# Kelvin sign and long s, which are read as k and s in any case.
_ANY_CASE_BEYOND_ASCII = ("\u212a".encode(), "\u017f".encode())

# What is remembered of literals as they were written, in capitals and small letters.
_MOST_KNOWN = 4096
_MEMORY = 32 << 20

Span = tuple[int, int]
Places = dict[int, list[Span]]


class Sought(msgspec.Struct, frozen=True):
    """A pattern to look for.

    Attributes:
        pattern: RE2.
        lines: whether it looks at one line at a time.
        family: patterns without a literal and of the same family share a `Set`.
    """

    pattern: str
    lines: bool = True
    family: str = ""


class _Try(msgspec.Struct, frozen=True):
    """A pattern that may begin with a literal of so many bytes.

    ``before`` and ``after`` tell by the byte before and behind the literal whether it does.
    """

    index: int
    length: int
    before: bytes
    after: bytes


class FirstLook:
    """Finds the places at which patterns, given in a fixed order, may match.

    Attributes:
        literals: what is looked for, in no order.

    Raises:
        re2.error: a pattern is not RE2 or needs too much memory.
    """

    def __init__(self, sought: list[Sought]) -> None:
        families: dict[str, list[int]] = {}
        self._any_case: dict[str, list[_Try]] = {}
        self._exact: dict[str, list[_Try]] = {}
        self._marks: dict[tuple[bytes, bool], list[int]] = {}
        for index, one in enumerate(sought):
            found = leads(one.pattern) if one.lines else ()
            contained = () if found else marks(one.pattern)
            for lead in found:
                by_literal = self._any_case if lead.any_case else self._exact
                literal = lead.literal.lower() if lead.any_case else lead.literal
                by_literal.setdefault(literal, []).append(_Try(index, *_tables(lead)))
            for mark in contained:
                self._marks.setdefault((mark.literal.encode(), mark.any_case), []).append(index)
            if not found and not contained:
                families.setdefault(one.family, []).append(index)
        self._always = families.pop("", [])
        self._sets = [
            (set_of([_by_line(sought[index]) for index in indices], options(lines=True)), indices)
            for indices in families.values()
        ]
        self._mark_set = _literals([text for text, _ in self._marks]) if self._marks else None
        self._marked = [(*mark, indices) for mark, indices in self._marks.items()]
        self._find = _find_any(self._any_case, self._exact)
        # By what was found; the tries of all literals that it begins with.
        self._known: dict[bytes, tuple[_Try, ...]] = {}
        self.literals = [text.encode() for text in (*self._any_case, *self._exact)]

    def __call__(self, data: bytes) -> tuple[Places, set[int]]:
        """Look at UTF-8 text.

        Returns:
            Pattern index → where it is to be tried: (start of the match, end of its literal), in
            bytes; and the indices of the patterns that are to be searched for everywhere.
        """
        everywhere = set(self._always)
        for of_family, indices in self._sets:
            if hits := of_family(data):
                everywhere.update([indices[hit] for hit in hits])
        if self._mark_set is not None and (hits := self._mark_set(data)):
            for hit in hits:
                text, any_case, indices = self._marked[hit]
                if any_case or text in data:
                    everywhere.update(indices)
        places: Places = {}
        self._place(data, places, everywhere)
        return places, everywhere

    def _place(self, data: bytes, places: Places, everywhere: set[int]) -> None:
        """Add where patterns may match that begin with a literal."""
        if not data.isascii() and any(odd in data for odd in _ANY_CASE_BEYOND_ASCII):
            # A literal with one of them is longer than it is written.
            everywhere.update(one.index for tries in self._any_case.values() for one in tries)
        find, known, length = self._find, self._known, len(data)
        most = max(_MOST_PLACES, length // _BYTES_FOR_A_PLACE)
        at, end = find(data, 0)[0]
        while at >= 0:
            literal = data[at:end]
            tries = known.get(literal)
            if tries is None:
                tries = self._learn(literal)
            before = data[at - 1] if at else _LINE_END
            for one in tries:
                start = one.before[before]
                if not start or one.index in everywhere:
                    continue
                one_end = at + one.length
                if not one.after[data[one_end] if one_end < length else _LINE_END]:
                    continue
                found = places.get(one.index)
                if found is None:
                    found = places[one.index] = []
                elif len(found) >= most:
                    everywhere.add(one.index)
                    del places[one.index]
                    continue
                if start != _BEFORE_IT or not at:
                    found.append((at, one_end))
                if start != _AT_LITERAL and at:
                    found.append((_previous(data, at), one_end))
            at, end = find(data, at + 1)[0]

    def _learn(self, found: bytes) -> tuple[_Try, ...]:
        text = found.decode()
        lower = text.lower()
        tries = tuple(
            one
            for place in range(1, len(text) + 1)
            for one in (*self._exact.get(text[:place], ()), *self._any_case.get(lower[:place], ()))
        )
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[found] = tries
        return tries


def _literals(texts: list[bytes]) -> Callable[[bytes], list[int]]:
    chosen = options()
    chosen.literal = True
    chosen.case_sensitive = False
    return set_of(texts, chosen)


def _find_any(any_case: Iterable[str], exact: Iterable[str]) -> Callable[[bytes, int], Spans]:
    """Return a search for the first and longest of some literals."""
    alternatives = [
        f"(?{flag}:{'|'.join(map(re2.escape, sorted(texts)))})"
        for flag, texts in (("i", any_case), ("", exact))
        if texts
    ]
    if not alternatives:
        return lambda _data, _begin: [NOTHING]
    chosen = options()
    chosen.longest_match = True
    chosen.max_mem = _MEMORY
    return searching(re2.compile("|".join(alternatives), chosen))


def _previous(data: bytes, at: int) -> int:
    """Return where the character before a place begins."""
    at -= 1
    while at and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _by_line(sought: Sought) -> str:
    return f"(?m){sought.pattern}" if sought.lines else sought.pattern


def _tables(lead: Lead) -> tuple[int, bytes, bytes]:
    return (
        len(lead.literal.encode()),
        _before_table(lead.before, lead.literal[0], lead.any_case),
        _after_table(lead.literal[-1], lead.after, lead.any_case),
    )


@lru_cache(maxsize=4096)
def _before_table(before: str, first: str, any_case: bool) -> bytes:
    """Return by the byte before a literal where the match begins.

    Of a byte that is part of a longer character nothing is known.
    """
    if not before:
        return bytes([_AT_LITERAL] * 256)
    regexp = compile_pattern(f"(?:{before}){_spelt(first, any_case)}")
    table = bytearray([_EITHER] * 256)
    for byte in range(128):
        text = bytes([byte]) + first.encode()
        at_literal = regexp.match(text, 1) is not None
        before_it = regexp.match(text) is not None
        table[byte] = _AT_LITERAL * at_literal + _BEFORE_IT * before_it
    return bytes(table)


@lru_cache(maxsize=4096)
def _after_table(last: str, after: str, any_case: bool) -> bytes:
    """Return by the byte behind a literal whether a match may go on."""
    table = bytearray([1] * 256)
    if after:
        regexp = compile_pattern(f"{_spelt(last, any_case)}(?:{after})")
        for byte in range(128):
            table[byte] = regexp.match(last.encode() + bytes([byte])) is not None
    return bytes(table)


def _spelt(character: str, any_case: bool) -> str:
    return f"(?i:{re2.escape(character)})" if any_case else str(re2.escape(character))
