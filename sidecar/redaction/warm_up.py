"""Text that has automata built before there is any other, so that the first is not slower.

RE2 builds the states of an automaton as it meets them (Cox, "Regular Expression Matching in the
Wild", 2010); text of many kinds of characters, and words of all lengths, meet most.
"""

import random
import string
from collections.abc import Iterator

# How much there is of each kind, in characters, and how long a word is on average.
LENGTH = 60_000
_WORD = 16
# By these, automata grow most.
_KINDS = (
    string.ascii_letters + string.digits + string.punctuation + " \u00e9\ufffd",
    string.ascii_letters + string.digits + "+/",
    string.digits * 3 + " -.:+()/",
)
_WORDS = (
    string.ascii_letters,
    string.digits,
    string.hexdigits,
    string.ascii_letters + string.digits + "-_+/",
)
_BETWEEN = (" ", " ", "\n", ": ", "=", "-", ".", ",", "/", "+", "(", ")", '"', "@", "://")
# What may follow the beginning of a token.
END = "0aZ9bY8-c_7.d/e+f=" * 4


def texts() -> Iterator[str]:
    """Yield a text of each kind, the same in every process."""
    draw = random.Random(1)
    for kind in _KINDS:
        yield "".join(draw.choices(kind, k=LENGTH))
    pieces: list[str] = []
    for _ in range(LENGTH // _WORD):
        pieces += draw.choices(draw.choice(_WORDS), k=draw.randrange(2 * _WORD))
        pieces.append(draw.choice(_BETWEEN))
    yield "".join(pieces)
