"""What a built-in detector is: patterns, and a check where the format has one."""

from collections.abc import Callable

import msgspec

Span = tuple[int, int]


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """Finds one kind of value in text.

    Attributes:
        name: what rules call it (``find: <name>``).
        patterns: RE2. A group named ``value`` is what is found, else the whole match.
        narrow: given what a pattern found, returns the part of it that really is such a value as
            (start, end) inside it, or None; absent when the pattern says all.
        integers: also look at integers, in decimal notation.
        spares_uuids: pass over what stands within a UUID, whose digits may look like anything.
    """

    name: str
    patterns: tuple[str, ...]
    narrow: Callable[[str], Span | None] | None = None
    integers: bool = False
    spares_uuids: bool = False


def whole(check: Callable[[str], bool]) -> Callable[[str], Span | None]:
    """Return a ``narrow`` that takes all of a match or nothing of it."""
    return lambda text: (0, len(text)) if check(text) else None
