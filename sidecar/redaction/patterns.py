"""Patterns: how they are compiled and searched for.

A pattern looks at one line at a time: ``^`` and ``$`` are the ends of the line, and what it
matches holds no line end. One that names the ends of lines or text itself (``(?s)``, ``\\n``,
``\\A``, ``\\z``, ``[\\s\\S]``) looks at the whole value instead. So a text of any length can be
redacted line by line.
"""

import re
from collections.abc import Iterable
from typing import Protocol

import re2

# The parts of a pattern.
TOKEN = re.compile(
    r"""
      (?P<escape>\\Q.*?(?:\\E|\Z)|\\[pP]\{\^?\w+\}|\\x\{[0-9a-fA-F]+\}|\\x[0-9a-fA-F]{2}|\\[pP].|\\.)
    | (?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])
    | (?P<flags>\(\?[imsU-]+\))
    | (?P<open>\((?:\?(?:P?<\w+>|[imsU-]*:))?)
    | (?P<close>\))
    | (?P<either>\|)
    | (?P<many>(?:[*+]|\{[0-9]+(?:,[0-9]*)?\})\??)
    | (?P<maybe>\?\??)
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WHOLE_VALUE = re.compile(r"\(\?[imU]*s|\\[nAzC]|\\x0[aA]|\\x\{0*[aA]\}|\n")


def options(*, lines: bool = False, memory: int = 8 << 20) -> "re2.Options":
    """Return the RE2 options of every pattern.

    Args:
        lines: for patterns whose matches end at a line end.
        memory: in bytes, what the pattern and its automata may take. Where that is too little for
            an automaton, searching is many times slower.
    """
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = memory
    chosen.never_nl = lines
    return chosen


def compile_pattern(pattern: str, *, lines: bool = True, memory: int = 8 << 20) -> "re2._Regexp":
    """Compile a pattern that looks at one line at a time, or at a whole value; see `options`.

    Raises:
        re2.error: it is not RE2 or needs too much memory.
    """
    chosen = options(lines=lines, memory=memory)
    return re2.compile(f"(?m){pattern}" if lines else pattern, chosen)


# re2's own methods take twice the time of what they call; on the hot path that is called itself.
Spans = list[tuple[int, int]]
NOTHING = (-1, -1)


class Search(Protocol):
    """Searches UTF-8 text; see `searching`."""

    def __call__(self, data: bytes, begin: int, end: int = -1) -> Spans:
        """Return the spans of the first match."""


def searching(regexp: "re2._Regexp") -> Search:
    """Return ``regexp.search`` as a function of bytes, begin and end, to the spans of all groups.

    The first is that of the whole match, and `NOTHING` when there is none. What stands before the
    begin and behind the end is seen, but is no part of a match.
    """
    return _calling(regexp, re2._Anchor.UNANCHORED)


def matching(regexp: "re2._Regexp") -> Search:
    """Return ``regexp.match`` in the same way."""
    return _calling(regexp, re2._Anchor.ANCHOR_START)


def _calling(regexp: "re2._Regexp", anchor: "re2._Anchor") -> Search:
    match = regexp._regexp.Match

    def call(data: bytes, begin: int, end: int = -1) -> Spans:
        return match(  # type: ignore[no-any-return]
            anchor, data, begin, len(data) if end < 0 else end
        )

    return call


def any_of(patterns: Iterable[str]) -> Search:
    """Compile patterns that look at lines together; return a search for any of them.

    Raises:
        re2.error: one is not RE2, or they need too much memory.
    """
    together = "|".join(f"(?:{TOKEN.sub(_without_group, pattern)})" for pattern in patterns)
    return searching(compile_pattern(together))


def _without_group(token: re.Match[str]) -> str:
    """Nobody asks for groups, and they take time."""
    opening = token["open"]
    return "(?:" if opening and not opening.endswith(":") else token.group()


def looks_at_lines(pattern: str) -> bool:
    """Tell whether a pattern looks at one line at a time: unless it names line ends itself."""
    # A class that takes all but line ends says the opposite.
    rest = "".join(
        token.group() for token in TOKEN.finditer(pattern) if not token.group().startswith("[^")
    )
    both = any(
        low in token and low.upper() in token
        for token in (t["set"] for t in TOKEN.finditer(pattern) if t["set"])
        for low in (r"\s", r"\d", r"\w")
    )
    return not both and _WHOLE_VALUE.search(rest) is None
