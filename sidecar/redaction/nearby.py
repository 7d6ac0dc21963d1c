"""Words that must stand near a value for it to count: ``keywords`` of rules, ``near`` of detectors.

*Near* is in the same line, at most `REACH` bytes of UTF-8 before or behind; or in the name of the
attribute or field that holds the value. A word stands whole and in any case: ``employee`` is found
in ``Employee no.``, ``employee_id`` and ``newEmployeeId``, not in ``employees``. A blank in a word
stands for any of blank, ``_``, ``-``, ``.`` or nothing.
"""

from collections.abc import Iterator
from functools import lru_cache

import re2

from sidecar.redaction.detectors.base import LETTERS, LOWER
from sidecar.redaction.patterns import NOTHING, options, searching

REACH = 64


@lru_cache(maxsize=256)
def nearby(words: tuple[str, ...]) -> "Nearby":
    """Return `Nearby` for some words; the same for the same words, since it takes room."""
    return Nearby(words)


class Nearby:
    """Some words, one of which must stand near.

    Attributes:
        pattern: RE2 that matches a text which holds one of them.
    """

    def __init__(self, words: list[str] | tuple[str, ...]) -> None:
        self.pattern = _pattern(words)
        self._search = searching(re2.compile(self.pattern, options()))

    def in_key(self, key: str) -> bool:
        """Tell whether the name of an attribute or field holds one of the words."""
        return self._search(key.encode(), 0)[0] != NOTHING

    def places(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the words stand in UTF-8 text."""
        start, end = self._search(data, 0)[0]
        while start >= 0:
            yield start, end
            # The character behind a word may be the one before the next.
            start, end = self._search(data, max(start + 1, end - 1))[0]

    def __call__(self, data: bytes, start: int, end: int) -> bool:
        """Tell whether one of the words stands near a place in UTF-8 text."""
        low = max(data.rfind(b"\n", 0, start) + 1, start - REACH)
        line_end = data.find(b"\n", end, end + REACH)
        high = line_end if line_end >= 0 else min(len(data), end + REACH)
        return (
            self._search(data[low:start], 0)[0] != NOTHING
            or self._search(data[end:high], 0)[0] != NOTHING
        )


def _pattern(words: list[str] | tuple[str, ...]) -> str:
    # With nothing in common between them: RE2's filter would read `rut|run` as `ru(?:t|n)`, which
    # has no literal that is long enough.
    any_case = "|".join("(?:)" + _spelt(word) for word in words)
    # Behind a small letter, a capital begins a word: `newEmployee`.
    inner = "|".join("(?:)" + _spelt(word[:1].upper() + word[1:]) for word in words)
    return rf"(?:(?:^|[^{LETTERS}])(?i:{any_case})|[{LOWER}](?:{inner}))(?:$|[^{LOWER}])"


def _spelt(word: str) -> str:
    return r"[ _.\-]?".join(re2.escape(part) for part in word.split())
