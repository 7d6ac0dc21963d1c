r"""Looser patterns: found in a text wherever a pattern is, whatever stands around the text.

A pattern asks what stands around a value, lets parts of it repeat, and may be a large automaton.
Its *window* is a short piece of it, from anywhere within: what the pattern matches contains what
the window matches. No window asks for the end of a text, so it may be searched for in bytes in
which texts lie between others (`sidecar.redaction.raw_look`).

Windows are patterns for bytes: RE2's Latin-1. A character that is not ASCII is spelt as the bytes
of its UTF-8. In any case two letters stand for others than their own, see `OTHER_CASES`.
"""

import math
import re
import string
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from sidecar.redaction.leads import Item, parse
from sidecar.redaction.patterns import compile_pattern, searching

# The long s is an s to RE2 in any case, and the sign of Kelvin a k.
OTHER_CASES = r"\xc5\xbf|\xe2\x84\xaa"
# What a window is made to reach, as the logarithm of how likely it is at any place, and how many
# characters it may have to get there.
_RARE, _WIDTHS = -16.0, (4, 6, 8, 14, 28)
# Ways to write the same are taken as a whole, where none of them is longer.
_MOST_OF_WAYS, _ENDLESS = 40, 1 << 20
# A tag of what has a length, in one byte; the last two bytes or three before a text.
TAGS = "".join(f"\\x{number << 3 | 2:02x}" for number in range(16))
BEGIN = rf"(?:[{TAGS}][\x00-\x7f]|[\x80-\xff][\x00-\x7f]{{1,2}})"
_ASCII = bytes(range(128))
_ALL = (1 << 128) - 1
# One character that is not ASCII, in UTF-8.
_WIDE = r"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
_QUANTIFIER = re.compile(r"(?:([*+])|(\?)|\{([0-9]+)(?:(,)([0-9]*))?\})\??")
_CODE = re.compile(r"\\x\{([0-9a-fA-F]+)\}|\\x([0-9a-fA-F]{2})")
_NOT_ASCII = re.compile(r"^\[\^|\\[pPDWS]|\\x\{|\\x[89a-fA-F]|\[:|[^\x00-\x7f]")
# Letters with more than two cases, or whose cases Unicode does not tell of in both directions.
_ODD_LETTERS = "\u0130\u0131\u00b5\u0345\u1e9e\u03c2\u03d0\u03d1\u03d5\u03d6\u03f0\u03f1\u03f4" + (
    "\u03f5\u1c80\u1c81\u1c82\u1c83\u1c84\u1c85\u1c86\u1c87\u1c88\u1e9b\u1fbe\u2126\u212b\ua64b"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class Char(msgspec.Struct, frozen=True):
    """One character: the bits of ``ascii`` say which of ASCII, ``wide`` whether any other.

    ``chance`` is the logarithm of how likely a node is to match at a place, by guess.
    """

    ascii: int
    wide: bool
    chance: float


class Bytes(msgspec.Struct, frozen=True):
    """One of some sequences of bytes that are no ASCII."""

    ways: tuple[bytes, ...]
    chance: float


class Seq(msgspec.Struct, frozen=True):
    """One after the other."""

    items: "tuple[Node, ...]" = ()
    chance: float = 0.0


class Either(msgspec.Struct, frozen=True):
    """One of them."""

    ways: "tuple[Node, ...]"
    chance: float


class Repeat(msgspec.Struct, frozen=True):
    """From ``least`` to ``most`` times, None for any number."""

    item: "Node"
    least: int
    most: int | None
    chance: float


class Begin(msgspec.Struct, frozen=True):
    """The beginning of a text or line: its length and tag stand there, or a line end."""

    chance: float = -2.0


Node = Char | Bytes | Seq | Either | Repeat | Begin
EMPTY = Seq()


def seq(items: "Iterable[Node]") -> "Node":
    """Return some nodes one after the other."""
    kept = tuple(items)
    return kept[0] if len(kept) == 1 else Seq(kept, sum(item.chance for item in kept))


def either(ways: "Iterable[Node]") -> "Node":
    """Return a node that is one of some."""
    kept = tuple(ways)
    if len(kept) == 1:
        return kept[0]
    top = max(way.chance for way in kept)
    return Either(kept, top + math.log(sum(math.exp(max(way.chance - top, -50)) for way in kept)))


def repeat(item: "Node", least: int, most: int | None) -> "Node":
    """Return a node several times."""
    return Repeat(item, least, most, least * item.chance)


@lru_cache(maxsize=4096)
def char(ascii_: int, wide: bool = False) -> Char:
    """Return a node for one character."""
    odds = sum(_OFTEN.get(chr(code), _SELDOM) for code in range(128) if ascii_ >> code & 1)
    for likely, odds_in_a_row in _RUNS:
        if ascii_ & likely == likely:
            odds = max(odds, odds_in_a_row)
    most = 0.7 if ascii_ & ~_LETTERS_AND_MARKS == 0 else 1.0
    return Char(ascii_, wide, math.log(min(most, odds) + 0.02 * wide or 1e-9))


class Window(msgspec.Struct, frozen=True):
    """A pattern for bytes.

    ``chance`` is the logarithm of how likely it is to match at a place, by guess; ``is_text`` says
    that it begins with what is few characters, so that words have an automaton of their own: beside
    one that counts digits, it would have its states times as many.
    """

    pattern: str
    chance: float
    is_text: bool


@lru_cache(maxsize=1024)
def window(pattern: str) -> Window:
    """Return the window of a pattern.

    Raises:
        ValueError: what the pattern matches cannot be told.
    """
    node = _rarest(read(pattern))
    return Window(write(node), node.chance, _is_text(node))


def _is_text(node: Node) -> bool:
    if isinstance(node, Either):
        return all(map(_is_text, node.ways))
    if isinstance(node, Seq):
        return bool(node.items) and _is_text(node.items[0])
    if isinstance(node, Repeat):
        return node.least > 0 and _is_text(node.item)
    return isinstance(node, Bytes) or (
        isinstance(node, Char)
        and not node.wide
        and node.ascii & _DIGITS == 0
        and node.ascii.bit_count() <= _FEW
    )


def read(pattern: str) -> Node:
    """Return what a pattern matches, as its characters; what it asks of the places between is lost.

    Raises:
        ValueError: it cannot be told.
    """
    alternatives = parse(pattern)
    if "(?P<value>" in pattern:
        # What has no value is there to be passed over.
        alternatives = [one for one in alternatives if any("<value>" in i.text for i in one)]
    return _alternatives(alternatives, any_case=False)


def literal(text: str, *, any_case: bool) -> Node:
    """Return a node for a text."""
    return seq(_character(character, any_case) for character in text)


def _alternatives(alternatives: list[list[Item]], *, any_case: bool) -> Node:
    return either(_sequence(items, any_case) for items in alternatives)


def _sequence(items: list[Item], any_case: bool) -> Node:
    nodes: list[Node] = []
    for item in items:
        once = item.once or item.text
        if item.inner is None and once.startswith("(?"):
            any_case = _case(once, any_case)
            continue
        if item.inner is not None:
            node = _alternatives(item.inner, any_case=_case(item.opening, any_case))
        else:
            node = _one(once, any_case)
        nodes.append(_repeated(node, item.text[len(once) :]))
    return seq(nodes)


def _case(flags: str, any_case: bool) -> bool:
    if "<" in flags or not flags.startswith("(?"):
        return any_case
    on, _, off = flags.partition("-")
    return "i" in on or (any_case and "i" not in off)


def _repeated(node: Node, how_often: str) -> Node:
    if not how_often:
        return node
    match = _QUANTIFIER.fullmatch(how_often)
    if match is None:
        raise ValueError("repeats what is repeated")
    many, maybe, least, comma, most = match.groups()
    if many:
        return repeat(node, int(many == "+"), None)
    if maybe:
        return repeat(node, 0, 1)
    return repeat(node, int(least), int(most) if most else None if comma else int(least))


def _one(text: str, any_case: bool) -> Node:
    """Return a node for one token that is no group."""
    if text in {"^", r"\A"}:
        return Begin()
    if text in {"$", r"\b", r"\B", r"\z"}:
        return EMPTY
    if text == ".":
        return char(_ALL, True)
    if text.startswith(r"\Q"):
        plain = text[2:].removesuffix(r"\E")
        return literal(plain, any_case=any_case)
    if code := _CODE.fullmatch(text):
        return _character(chr(int(code[1] or code[2], 16)), any_case)
    if text[0] == "[" or (text[0] == "\\" and len(text) > 2) or text[1:] in set("dDwWsSC"):
        return _of_class(text, any_case)
    if text[0] == "\\":
        if text[1].isalnum() and text[1] not in _ESCAPES:
            raise ValueError("an escape that nothing is known of")
        return _character(_ESCAPES.get(text[1], text[1]), any_case)
    return _character(text, any_case)


def _character(character: str, any_case: bool) -> Node:
    if character.isascii():
        ways = {character, character.lower(), character.upper()} if any_case else {character}
        return char(bits("".join(ways)))
    cases = _cases(character) if any_case else {character}
    if any(case.isascii() for case in cases):
        return char(bits("".join(filter(str.isascii, cases))), True)
    return Bytes(tuple(sorted(case.encode() for case in cases)), -4.5 * len(character.encode()))


def _cases(character: str) -> set[str]:
    """Return all that RE2 takes for the same letter."""
    found = {character}
    while True:
        more = {
            case
            for one in found
            for case in (one.lower(), one.upper(), one.title(), one.casefold())
            if len(case) == 1
        } | {odd for odd in _ODD_LETTERS if found & {odd.lower(), odd.upper(), odd.casefold()}}
        if more <= found:
            return found
        found |= more


@lru_cache(maxsize=1024)
def _of_class(text: str, any_case: bool) -> Char:
    """Return a character of a class, with all that may be in it."""
    if text == r"\C":
        raise ValueError("a byte may be a part of a character")
    search = searching(compile_pattern(f"(?i){text}" if any_case else text, lines=False))
    found = place = 0
    while (place := search(_ASCII, place)[0][0]) >= 0:
        found |= 1 << place
        place += 1
    return char(found, _NOT_ASCII.search(text) is not None)


# How often bytes stand in telemetry, roughly; what is none of these is rare.
_OFTEN = {
    **dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 0.04),
    **dict.fromkeys("aeinorst", 0.07),
    **dict.fromkeys("jqxz", 0.004),
    **dict.fromkeys("0123456789", 0.04),
    **dict.fromkeys("-._", 0.1),
    **dict.fromkeys(" /", 0.05),
    **dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.03),
    **dict.fromkeys(":\n\x12", 0.03),
}
_SELDOM = 0.001


def bits(characters: str) -> int:
    """Return the bits of ASCII characters."""
    return sum(1 << ord(character) for character in characters)


_DIGITS, _HEX = bits(string.digits), bits(string.digits + "abcdef")
_LETTERS_AND_MARKS = bits(string.digits + string.ascii_letters + "+/=_-.")
_LETTERS_AND_DIGITS = bits(string.digits + string.ascii_letters)
# Behind one of these, another of them is likely.
_RUNS = (
    (_DIGITS, 0.5),
    (_HEX, 0.75),
    (bits(string.ascii_lowercase), 0.65),
    (bits("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"), 0.68),
)
# Text of these characters alone, drawn by chance, is what automata explode on.
_ALPHABETS = (_DIGITS, _HEX, _LETTERS_AND_DIGITS)
# How often two of its characters read like a tag and a length.
_LIKE_TAGS = 0.15
# In bits.
_MOST_STATES = 8.0
_LONGEST_RUN = 40
_COMMON = -1.5
# A run that is rarer needs no beginning of a text before it.
_RARE_RUN = -7.5
_FEW = 6
_KINDS = (*(kind for kind, _ in _RUNS), _LETTERS_AND_DIGITS)


def _rarest(node: Node) -> Node:
    """Return the rarest window, or the shortest of those that are rare enough."""
    best = _of_run(node)
    if best.chance < _RARE:
        return best
    if isinstance(node, Either):
        ways = {id(way): _rarest(way) for way in node.ways}
        return _rarer(best, either(dict.fromkeys(ways.values())))
    if isinstance(node, Repeat):
        return _rarer(best, _rarest(node.item)) if node.least else EMPTY
    if not isinstance(node, Seq):
        return _rarer(best, node)
    items = tuple(_flat(node.items))
    at = None
    # What begins at the beginning of a text is looked for where all else is too common.
    for borders in (False, True):
        for place in range(len(items)):
            if _begins(items[place]) != borders:
                continue
            for width in reversed(_WIDTHS):
                candidate = _from(items, place, width)
                if candidate.chance < best.chance and _is_small(candidate):
                    best, at = candidate, place
                    break
        if best.chance < (_RARE if at is not None else _RARE_RUN):
            break
    if at is not None:
        short = (_from(items, at, width) for width in _WIDTHS)
        return _without_common(
            next((one for one in short if one.chance < _RARE and _is_small(one)), best)
        )
    for item in items:
        # A group is a window by itself, where it has to be.
        if isinstance(item, Either) or (isinstance(item, Repeat) and item.least):
            best = _rarer(best, _rarest(item))
    return best


def _without_common(node: Node) -> Node:
    """Leave out what is common at the beginning, where the rest is rare enough."""
    while isinstance(node, Seq) and node.chance - node.items[0].chance < _RARE:
        if node.items[0].chance < _COMMON:
            break
        node = seq(_trimmed(list(node.items[1:])))
    return node


def _begins(node: Node) -> bool:
    """Tell whether the beginning of a text is asked for in a node."""
    if isinstance(node, Begin):
        return True
    if isinstance(node, Either):
        return any(map(_begins, node.ways))
    return isinstance(node, Seq) and any(map(_begins, node.items))


def _from(items: tuple[Node, ...], place: int, width: int) -> Node:
    taken, _ = _beginning(items[place:], width)
    return seq(_trimmed(taken))


def _rarer(one: Node, other: Node) -> Node:
    return other if other.chance < one.chance and _is_small(other) else one


def _of_run(node: Node) -> Node:
    """Return the rarest of windows that are some characters of a kind in a row.

    Its automaton has a state for each, whatever the text.
    """
    best: Node = EMPTY
    for kind, run in zip(_KINDS, _runs(node), strict=True):
        length = min(run[2], _LONGEST_RUN)
        if length > 1:
            of_kind = repeat(char(kind), length, length)
            best = of_kind if of_kind.chance < best.chance else best
    return best


# How many characters of a kind what a node matches begins with, ends with and has in a row at
# least, and whether it is nothing else.
_Run = tuple[int, int, int, bool]
_NO_RUN: _Run = (0, 0, 0, False)


def _runs(node: Node) -> tuple[_Run, ...]:
    """Return the runs in a node, by kind."""
    if isinstance(node, Char):
        return _runs_of(node)
    if isinstance(node, Bytes | Begin):
        return (_NO_RUN,) * len(_KINDS)
    if isinstance(node, Either):
        each = [_runs(way) for way in node.ways]
        return tuple(
            (
                min(run[0] for run in of),
                min(run[1] for run in of),
                min(run[2] for run in of),
                all(run[3] for run in of),
            )
            for of in zip(*each, strict=True)
        )
    if isinstance(node, Repeat):
        return tuple(
            (run[2] * node.least,) * 3 + (True,) if run[3] else run if node.least else _NO_RUN
            for run in _runs(node.item)
        )
    together: list[_Run] = [(0, 0, 0, True)] * len(_KINDS)
    for item in node.items:
        for index, run in enumerate(_runs(item)):
            begin, end, longest, whole = together[index]
            together[index] = (
                begin + run[0] * whole,
                end + run[1] if run[3] else run[1],
                max(longest, run[2], end + run[0]),
                whole and run[3],
            )
    return tuple(together)


@lru_cache(maxsize=1024)
def _runs_of(one: Char) -> tuple[_Run, ...]:
    return tuple(
        (1, 1, 1, True) if not one.wide and one.ascii & ~kind == 0 else _NO_RUN for kind in _KINDS
    )


def _is_small(node: Node) -> bool:
    """Tell whether an automaton for a node has few states to be in, in text drawn by chance."""
    if isinstance(node, Repeat) and isinstance(node.item, Char):
        return True
    return all(_states(node, kind, 1.0)[0] <= _MOST_STATES for kind in _ALPHABETS)


def _states(node: Node, alphabet: int, begun: float) -> tuple[float, float]:
    """Return in how many ways a node may be under way, in bits, and how likely one gets to its end.

    What is sure to be or not to be is none.
    """
    if begun < 1e-4:
        return 0.0, 0.0
    if isinstance(node, Char):
        begun = min(1.0, begun) * _share(node, alphabet)
        return _bits_of(begun), begun
    if isinstance(node, Bytes):
        return 0.0, 0.0
    if isinstance(node, Begin):
        begun *= _LIKE_TAGS
        return _bits_of(begun), begun
    if isinstance(node, Either):
        each = [_states(way, alphabet, begun) for way in node.ways]
        return max(entropy for entropy, _ in each), min(1.0, sum(end for _, end in each))
    total = 0.0
    if isinstance(node, Seq):
        for item in node.items:
            entropy, begun = _states(item, alphabet, begun)
            total += entropy
        return total, begun
    ended = 0.0 if node.least else begun
    for _ in range(node.least):
        entropy, begun = _states(node.item, alphabet, begun)
        total += entropy
    if node.most is None:
        entropy, begun = _states(node.item, alphabet, min(1.0, begun * 16))
        return total + entropy, min(1.0, ended + begun)
    ended += begun if node.least else 0.0
    for _ in range(node.most - node.least):
        entropy, begun = _states(node.item, alphabet, begun)
        total += entropy
        ended += begun
    return total, min(1.0, ended)


@lru_cache(maxsize=4096)
def _share(one: Char, alphabet: int) -> float:
    return (one.ascii & alphabet).bit_count() / alphabet.bit_count()


def _bits_of(odds: float) -> float:
    if odds < 1e-4 or odds > 0.9999:
        return 0.0
    return -odds * math.log2(odds) - (1 - odds) * math.log2(1 - odds)


def _flat(items: Iterable[Node]) -> Iterator[Node]:
    for item in items:
        if isinstance(item, Seq):
            yield from _flat(item.items)
        elif isinstance(item, Repeat) and item.least == item.most == 1:
            yield from _flat((item.item,))
        else:
            yield item


def _beginning(items: Iterable[Node], width: int) -> tuple[list[Node], int]:
    """Return what sequences begin with, in at most so many characters, and how many are left.

    None are left where not all of it is taken.
    """
    taken: list[Node] = []
    for item in items:
        if width <= 0:
            break
        node, width = _first(item, width)
        taken.append(node)
    return taken, width


def _first(node: Node, width: int) -> tuple[Node, int]:
    if isinstance(node, Char | Bytes):
        return node, width - 1
    if isinstance(node, Begin):
        return node, width
    if isinstance(node, Seq):
        taken, left = _beginning(node.items, width)
        return seq(taken), left
    if isinstance(node, Either):
        least, most = _widths(node)
        if least < width and most <= _MOST_OF_WAYS:
            return node, width - max(least, 1)
        ways = [_first(way, width) for way in node.ways]
        return either(way for way, _ in ways), min(left for _, left in ways)
    if isinstance(node.item, Char):
        if node.least >= width:
            return repeat(node.item, width, width), 0
        if node.most is not None and node.most > max(node.least, width):
            return repeat(node.item, node.least, None), width - node.least - 1
        return node, width - max(node.least, 1)
    taken = []
    for count in range(node.least if node.most is None else node.most):
        if width <= 0:
            break
        once, width = _first(node.item, width)
        taken.append(once if count < node.least else repeat(once, 0, 1))
    # How often it goes on is not looked into.
    return seq(taken), width if node.most is not None else min(width, 0)


def _widths(node: Node) -> tuple[int, int]:
    """Return the fewest and the most characters that a node takes."""
    if isinstance(node, Char | Bytes):
        return 1, 1
    if isinstance(node, Begin):
        return 0, 0
    if isinstance(node, Repeat):
        least, most = _widths(node.item)
        return least * node.least, _ENDLESS if node.most is None else most * node.most
    each = [_widths(one) for one in (node.items if isinstance(node, Seq) else node.ways)]
    if isinstance(node, Seq):
        return sum(least for least, _ in each), sum(most for _, most in each)
    return min(least for least, _ in each), max(most for _, most in each)


def _trimmed(items: list[Node]) -> list[Node]:
    """Leave out what may be absent at the beginning and at the end."""
    kept = list(items)
    while kept and _may_be_empty(kept[-1]):
        kept.pop()
    while kept and _may_be_empty(kept[0]):
        kept.pop(0)
    for place in {0, len(kept) - 1} if kept else ():
        node = kept[place]
        if isinstance(node, Repeat):
            kept[place] = repeat(node.item, node.least, node.least)
    return kept


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Seq):
        return all(map(_may_be_empty, node.items))
    if isinstance(node, Either):
        return any(map(_may_be_empty, node.ways))
    return isinstance(node, Repeat) and (not node.least or _may_be_empty(node.item))


def write(node: Node) -> str:
    """Return the pattern of a node."""
    if isinstance(node, Char):
        return _written(node)
    if isinstance(node, Bytes):
        return (
            "(?:" + "|".join("".join(f"\\x{byte:02x}" for byte in way) for way in node.ways) + ")"
        )
    if isinstance(node, Begin):
        return rf"(?:{BEGIN}|\n)"
    if isinstance(node, Seq):
        return "".join(map(write, node.items))
    if isinstance(node, Either):
        return "(?:" + "|".join(dict.fromkeys(map(write, node.ways))) + ")"
    inner = write(node.item)
    if not inner:
        return ""
    if node.least == node.most:
        return f"(?:{inner}){{{node.least}}}" if node.least != 1 else inner
    most = "" if node.most is None else node.most
    return f"(?:{inner}){{{node.least},{most}}}"


@lru_cache(maxsize=1024)
def _written(one: Char) -> str:
    codes = [code for code in range(128) if one.ascii >> code & 1]
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    text = "".join(
        f"\\x{low:02x}" if low == high else f"\\x{low:02x}-\\x{high:02x}" for low, high in ranges
    )
    if not one.wide:
        return f"[{text}]" if text else r"[^\x00-\xff]"
    return f"(?:[{text}]|{_WIDE})" if text else f"(?:{_WIDE})"
