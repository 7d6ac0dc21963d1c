"""How digits are set apart within a number, and what may stand around it.

Only text for patterns. Repetitions are bounded and the classes small: patterns for digits hold no
literal, so they all share one automaton (`sidecar.redaction.first_look`).
"""

from sidecar.redaction.detectors.base import LETTERS, LOWER

# No-break blanks, and hyphens and dashes as word processors put them.
_BLANK = r"\x{a0}\x{202f}"
_HYPHEN = r"\x{2010}-\x{2015}"

# One separator; `+` stands for a blank in form-encoded text. Tables have tabs or two blanks.
DASH = rf"[{_HYPHEN}-]"
BLANK = rf"(?: ?[ \t]|[+{_BLANK}])"
SEPARATOR = rf"(?: ?[ \t]|[._+{_BLANK}{_HYPHEN}-])"
SEPARATOR_NOT_DOT = rf"(?: ?[ \t]|[_+{_BLANK}{_HYPHEN}-])"

# Around a number that is a word of its own; a dot between digits makes a fraction.
BEFORE = r"(?:^|[^0-9A-Za-z.]|(?:^|[^0-9])\.)"
BEHIND = r"(?:$|[^0-9A-Za-z.]|\.(?:$|[^0-9]))"


def behind_word(words: tuple[str, ...], value: str, gap: str = r"[^0-9\n]{0,32}?\b") -> str:
    """Return a pattern for a value that follows one of some words in the same line.

    The words are in the pattern, so RE2 alone refuses numbers that follow none of them.
    """
    behind = rf"[^{LOWER}0-9\n]"
    return rf"(?:^|[^{LETTERS}])(?i:{alternatives(words)}){behind}{gap}(?P<value>{value})"


def alternatives(words: tuple[str, ...]) -> str:
    """Return a pattern for some words; a blank in one stands for any or no separator.

    Words have three letters at least, and nothing is in common between them: RE2's filter takes no
    shorter literal, and would read `ssn|social` as `s(?:sn|ocial)`, which has none.
    """
    return "|".join("(?:)" + word.replace(".", r"\.").replace(" ", r"[ _.\-]?") for word in words)
