"""Many short texts, looked at together.

A look over a text costs some microseconds for each kind of thing it looks for, and then a few
nanoseconds a byte. Patterns look at one line at a time, so texts that stand in a text line by line
are looked at as each for itself.
"""

from bisect import bisect_right
from itertools import accumulate

from sidecar.redaction.patterns import looks_at_lines
from sidecar.redaction.scanner import Finder, Scanner


class Together:
    """Looks for the values of a scanner in many texts at once."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        # What these find is not told by a line.
        self._whole = frozenset(
            index for index, finder in enumerate(scanner.finders) if _looks_at_whole_values(finder)
        )

    def holding(self, texts: list[str]) -> set[int] | None:
        """Return which of some texts hold a value; None when that cannot be told of them together.

        Args:
            texts: any.

        Returns:
            Indices into ``texts``.
        """
        found = self._scanner.unless("\n".join(texts), self._whole)
        if found is None:
            return None
        ends = list(accumulate(len(text) + 1 for text in texts))
        return {bisect_right(ends, start) for start, _, _ in found}


def _looks_at_whole_values(finder: Finder) -> bool:
    pattern = finder.rule.pattern
    return not (finder.sought.lines if pattern is None else looks_at_lines(pattern))
