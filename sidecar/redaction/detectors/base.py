"""What a built-in detector is: shapes to look for, and a check where the format has one."""

from collections.abc import Callable

import msgspec

Span = tuple[int, int]

# Letters, marks and digits of all scripts, for a set of characters. By blocks, and without those of
# punctuation and symbols: Unicode's own classes have hundreds of ranges, and patterns repeat them.
LETTERS = (
    r"A-Za-z\x{aa}\x{b5}\x{ba}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1fff}\x{2c00}-\x{2dff}"
    r"\x{3005}-\x{3007}\x{3040}-\x{d7ff}\x{f900}-\x{fdff}\x{fe70}-\x{fefc}\x{ff10}-\x{ff19}"
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{ff66}-\x{ffdc}\x{10000}-\x{1cfff}\x{1e000}-\x{1efff}"
    r"\x{20000}-\x{3ffff}"
)
# Those that go on a word of a script with two cases, in the same way; `phoneNumber` has two words.
LOWER = (
    r"a-z\x{aa}\x{b5}\x{ba}\x{df}-\x{f6}\x{f8}-\x{2af}\x{370}-\x{52f}\x{561}-\x{587}"
    r"\x{1e00}-\x{1fff}"
)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a value is written.

    Attributes:
        pattern: RE2. A group named ``value`` is what is found, else the whole match.
        narrow: given what the pattern found, returns the part of it that really is such a value
            as (start, end) inside it, or None; absent when the pattern says all.
        near: words, one of which must stand near (`sidecar.redaction.nearby`), for a value that
            only what stands around it tells from any other.
        lines: whether it looks at one line at a time (`sidecar.redaction.patterns`).
    """

    pattern: str
    narrow: Callable[[str], Span | None] | None = None
    near: tuple[str, ...] = ()
    lines: bool = True


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """Finds one kind of value in text.

    Attributes:
        name: what rules call it (``find: <name>``).
        shapes: the ways in which it is written.
        integers: also look at integers, in decimal notation.
        spares_uuids: pass over what stands within a UUID, whose digits may look like anything.
    """

    name: str
    shapes: tuple[Shape, ...]
    integers: bool = False
    spares_uuids: bool = False


def whole(check: Callable[[str], bool]) -> Callable[[str], Span | None]:
    """Return a ``narrow`` that takes all of a match or nothing of it."""
    return lambda text: (0, len(text)) if check(text) else None
