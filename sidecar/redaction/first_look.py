"""Which of many patterns may match a text: one look, whatever their number.

Patterns that contain a literal go into RE2's `Filter`, which looks for all literals at once; the
few that contain none (digits in groups, mostly) into one `Set`. A `Set` of many patterns is
avoided on purpose: its automaton explodes on high-entropy text such as base64.
"""

import re2


def options() -> "re2.Options":
    """Return the RE2 options that every pattern is compiled with."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = 8 << 20
    return chosen


class FirstLook:
    """Finds the candidates among patterns, given in a fixed order.

    Raises:
        re2.error: a pattern is not RE2 or needs too much memory.
    """

    def __init__(self, patterns: list[str]) -> None:
        self._filter = re2.Filter() if patterns else None
        self._set = None
        self._without_literal: list[int] = []
        if self._filter is None:
            return
        for pattern in patterns:
            self._filter.Add(pattern, options())
        self._filter.Compile()
        # What an empty text cannot rule out has no literal to look for.
        self._without_literal = sorted(self._filter.Match("", potential=True) or [])
        if self._without_literal:
            self._set = re2.Set.SearchSet(options())
            for index in self._without_literal:
                self._set.Add(patterns[index])
            self._set.Compile()
        self._always = frozenset(self._without_literal)

    def __call__(self, text: str) -> list[int]:
        """Return the indices of all patterns that may match, in order."""
        if self._filter is None:
            return []
        hits = {i for i in self._filter.Match(text, potential=True) or () if i not in self._always}
        if self._set is not None:
            hits.update(self._without_literal[i] for i in self._set.Match(text) or ())
        return sorted(hits)
