"""How what a pattern matches begins, or what it contains.

The *leads* of a pattern say how what it matches begins: with one of some literals, behind one
character at most. So one look over a text for the literals of all patterns tells where any of them
may match, and none is tried anywhere else. The *marks* of one without leads are literals, one of
which stands somewhere in what it matches.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from sidecar.redaction.patterns import TOKEN

# The shortest run of plain characters that is worth looking for.
_SHORTEST_LITERAL = 2
# Longer ones are rare enough; to get there, the few ways to go on are told apart.
_LONG_LITERAL = 6
_MOST_LITERALS = 64
_CHARACTER = re.compile(r"\\[^\w]|[^\\\]^-]")
_ONE_OF_FEW = re.compile(r"\[((?:\\[^\w]|[^\\\]^-]){1,8})\]\??")
# Unicode classes by name, and what of ASCII is in some of them.
_CLASS = re.compile(r"\\[pP](?:\{\^?\w+\}|.)")
_ASCII_OF = {r"\p{L}": "A-Za-z", r"\pL": "A-Za-z", r"\p{Ll}": "a-z", r"\p{N}": "0-9"}
# A character that alone is worth looking for.
_RARE = "@"


class _Item(msgspec.Struct):
    """One piece of a pattern, with what says how often it stands.

    Attributes:
        text: as it is written.
        once: the same without what says how often.
        plain: one character that stands for itself.
        wide: it may be repeated, or something in it.
        optional: it may be absent.
        opening: of a group, what it begins with.
        inner: of a group, its alternatives.
    """

    text: str
    once: str = ""
    plain: bool = False
    wide: bool = False
    optional: bool = False
    opening: str = ""
    inner: "list[list[_Item]] | None" = None


class Lead(msgspec.Struct, frozen=True):
    """How what a pattern matches may begin.

    Attributes:
        before: a pattern for what stands before the literal: one character at most.
        literal: one or more characters that stand for themselves.
        any_case: whether the literal is meant in any case.
        after: a pattern for the character that follows or for its absence; empty when anything may.
    """

    before: str
    literal: str
    any_case: bool
    after: str


# Each is asked for by who looks for them and by who warms that up.
@lru_cache(maxsize=4096)
def leads(pattern: str) -> tuple[Lead, ...]:
    """Return all beginnings of what a pattern matches; none if they cannot be told.

    Wherever the pattern matches, one of them matches at the same place.
    """
    try:
        alternatives = _parse(TOKEN.finditer(pattern))
        found = _leads(alternatives, any_case=False, before="", rest=[])
    except ValueError:
        return ()
    return tuple(dict.fromkeys(found))


class Mark(msgspec.Struct, frozen=True):
    """A literal that stands somewhere in what a pattern matches."""

    literal: str
    any_case: bool


@lru_cache(maxsize=4096)
def marks(pattern: str) -> tuple[Mark, ...]:
    """Return literals, one of which stands in whatever a pattern matches; none if unknown."""
    try:
        found = _marks(_parse(TOKEN.finditer(pattern)), any_case=False)
    except ValueError:
        return ()
    return tuple(dict.fromkeys(found))


def _marks(alternatives: list[list[_Item]], *, any_case: bool) -> list[Mark]:
    found: list[Mark] = []
    for items in alternatives:
        # The rarest by guess: that with the longest of literals.
        best = max(_marks_of(items, any_case), key=_worth, default=[])
        if not best or any(mark.literal.isdigit() for mark in best):
            return []
        found += best
    return found


def _worth(found: list[Mark]) -> int:
    return min((len(mark.literal) for mark in found), default=0)


def _marks_of(items: list[_Item], any_case: bool) -> Iterator[list[Mark]]:
    """Yield for each place of a sequence the literals, one of which stands there."""
    run = ""
    for item in items:
        if item.plain:
            run += item.text[-1]
            continue
        if len(run) > 1 or run in _RARE:
            yield [Mark(run, any_case)] if run else []
        run = ""
        if item.inner is None:
            any_case = any_case or _ignores_case(item.text)
        elif not item.optional:
            yield _marks(item.inner, any_case=any_case or _ignores_case(item.opening))
    if len(run) > 1 or run in _RARE:
        yield [Mark(run, any_case)] if run else []


def _parse(tokens: Iterator[re.Match[str]], depth: int = 0) -> list[list[_Item]]:
    """Read a pattern, or a group of it to its end, into alternatives of items."""
    if depth > 50:
        raise ValueError("nested too deep")
    alternatives: list[list[_Item]] = [[]]
    flags = ""
    for token in tokens:
        kind, text = token.lastgroup, token.group()
        items = alternatives[-1]
        if kind == "close":
            break
        if kind == "either":
            # Flags hold to the end of the group, for the alternatives behind them too.
            alternatives.append([_Item(flags)] if flags else [])
        elif kind == "flags":
            flags += text
            items.append(_Item(text))
        elif kind == "open":
            inner = _parse(tokens, depth + 1)
            body = "|".join("".join(item.text for item in one) for one in inner)
            wide = any(item.wide for one in inner for item in one)
            items.append(_Item(f"{text}{body})", wide=wide, opening=text, inner=inner))
        elif kind in {"many", "maybe"}:
            if not items:
                raise ValueError("nothing to repeat")
            last = items[-1]
            last.once = last.once or last.text
            last.text += text
            last.plain = False
            last.wide = last.wide or kind == "many"
            last.optional = last.optional or kind == "maybe" or text[0] == "*" or "{0" in text
        else:
            plain = (kind == "plain" and text not in "^$.") or (
                kind == "escape" and _is_literal(text)
            )
            items.append(_Item(text, plain=plain))
    return alternatives


def _is_literal(escape: str) -> bool:
    return len(escape) == 2 and not escape[1].isalnum()


_ANYTHING: list[_Item] = [_Item("(?s:.)?", inner=[[]], optional=True)]


def _leads(
    alternatives: list[list[_Item]], *, any_case: bool, before: str, rest: list[_Item]
) -> list[Lead]:
    """Return the leads of all alternatives, behind ``before`` and followed by ``rest``."""
    found = []
    for items in alternatives:
        of_one = _lead([*items, *rest], len(items), any_case, before)
        if not of_one:
            return []
        found += of_one
    return found


def _lead(items: list[_Item], own: int, any_case: bool, before: str) -> list[Lead]:
    """Return the leads of a sequence, the literal of which is to be among the first ``own`` items.

    There are none when what stands before the literal may be more than one character.
    """
    for index, item in enumerate(items[:own]):
        if item.inner is None and item.text.startswith("(?"):
            any_case = any_case or _ignores_case(item.text)
        elif item.plain or (
            item.inner and not item.optional and all(_ways(item, any_case) or [""])
        ):
            return _from_literal(items, index, own, any_case, before)
        elif item.inner == [[]]:
            continue
        elif item.inner is not None and not item.optional and (before or _width(item) > 1):
            once = item.text.endswith(")")
            return _leads(
                item.inner,
                any_case=any_case or _ignores_case(item.opening),
                before=before,
                rest=items[index + 1 :] if once else _ANYTHING,
            )
        elif before or _width(item) > 1:
            return []
        else:
            before = item.text
    return []


def _from_literal(
    items: list[_Item], index: int, own: int, any_case: bool, before: str
) -> list[Lead]:
    before = _in_either_case(before) if any_case else _coarse(before)
    literals = [""]
    while index < own:
        item = items[index]
        if not item.plain and min(map(len, literals)) >= _LONG_LITERAL:
            break
        ways = [item.text[-1]] if item.plain else _ways(item, any_case)
        if not ways or len(literals) * len(ways) > _MOST_LITERALS:
            break
        literals = [literal + way for literal in literals for way in ways]
        index += 1
    if min(map(len, literals)) < _SHORTEST_LITERAL or any(map(str.isdigit, literals)):
        return []
    after = "|".join(dict.fromkeys(_firsts(items[index:])))
    after = _in_either_case(after) if any_case else _coarse(after)
    return [Lead(before, literal, any_case, after) for literal in literals]


def _firsts(items: list[_Item]) -> list[str]:
    """Return patterns for the first character that items take; none when it may be any."""
    found: list[str] = []
    for item in items:
        if item is _ANYTHING[0]:
            return []
        if item.inner is not None:
            of_group = [_firsts(one) for one in item.inner]
            if not all(of_group):
                return []
            any_case = _ignores_case(item.opening)
            found += [
                f"(?i:{first})" if any_case else first for firsts in of_group for first in firsts
            ]
        elif _width(item) == 0 or item.text.startswith("(?"):
            return [*found, item.text] if item.text in {"$", r"\b"} else []
        else:
            found.append(item.once or item.text)
        if not item.optional:
            return found
    return []  # they may take nothing


def _in_either_case(pattern: str) -> str:
    """Return a pattern that matches more, whether case counts in parts of it or not."""
    coarse = _coarse(pattern)
    return f"{coarse}|(?i:{coarse})" if coarse else ""


def _coarse(pattern: str) -> str:
    """Return a pattern that matches more, without Unicode classes: they are large automata."""
    return TOKEN.sub(_coarse_token, pattern)


def _coarse_token(token: re.Match[str]) -> str:
    text = token.group()
    if token["set"] and _CLASS.search(text):
        coarse = _CLASS.sub(_at_most if text.startswith("[^") else _at_least, text)
        return r"[\x00-\x{10ffff}]" if coarse == "[^]" else coarse
    return f"[{_CLASS.sub(_at_least, text)}]" if _CLASS.fullmatch(text) else text


def _at_least(name: re.Match[str]) -> str:
    """Return a range of characters that holds all of a Unicode class."""
    return r"\x00-\x{10ffff}" if set(name.group()) & set("P^") else r"0-9A-Za-z_\x{80}-\x{10ffff}"


def _at_most(name: re.Match[str]) -> str:
    """Return characters that are all in a Unicode class."""
    return _ASCII_OF.get(name.group(), "")


def _ways(item: _Item, any_case: bool) -> list[str]:
    """Return all that an item stands for, when that is little and plain; else nothing."""
    ways: list[str] = []
    if _ignores_case(item.opening) and not any_case:
        return []
    if few := _ONE_OF_FEW.fullmatch(item.text):
        ways = [character[-1] for character in _CHARACTER.findall(few[1])]
    elif item.inner is not None and not item.wide:
        for one in item.inner:
            if not all(inner.plain for inner in one):
                return []
            ways.append("".join(inner.text[-1] for inner in one))
    return [*ways, ""] if ways and item.optional else ways


def _ignores_case(flags: str) -> bool:
    return flags.startswith("(?") and "i" in flags.partition("-")[0] and "<" not in flags


def _width(item: _Item) -> int:
    """Return the most characters that an item takes; 2 stands for more, too."""
    if item.wide:
        return 2
    if item.inner is not None:
        return min(2, max(sum(map(_width, one)) for one in item.inner))
    return int(item.text.rstrip("?") not in {"^", "$", r"\b", r"\B", ""} and item.text[0:2] != "(?")
