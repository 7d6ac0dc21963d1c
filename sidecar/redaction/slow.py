"""Whether a pattern is one that RE2 is slow at, found out by trying."""

import random
import string
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

import re2

from sidecar.redaction.leads import leads
from sidecar.redaction.patterns import (
    NOTHING,
    TOKEN,
    Search,
    compile_pattern,
    looks_at_lines,
    matching,
    searching,
)

# A search takes 2 ns a byte, and some 20 on its first text.
_SLOW_SECONDS_A_BYTE = 500e-9
_TRIED_BYTES, _FAR_BYTES, _TRIES = 16_000, 4_000, 3
_MOST_LEFT_OUT, _MOST_SEARCHES = 8, 200


@lru_cache(maxsize=1024)
def is_slow(pattern: str) -> bool:
    """Tell whether searching for a pattern takes far more time than for most.

    RE2 takes time by the length of the text, but where a pattern may begin anywhere and goes on in
    many ways, each character can take as long as the pattern is large. That shows only when it is
    searched for in text of its own characters. A pattern with leads is searched for nowhere.
    """
    if leads(pattern):
        return False
    search = searching(compile_pattern(pattern, lines=looks_at_lines(pattern)))
    return any(
        all(_seconds_a_byte(search, text) > _SLOW_SECONDS_A_BYTE for _ in range(_TRIES))
        for text in _texts_of_its_own(pattern)
    )


def _seconds_a_byte(search: Search, text: bytes) -> float:
    """Return the most time that a search took for each byte, of those that went far."""
    worst, begin = 0.0, 0
    for _ in range(_MOST_SEARCHES):
        if begin >= len(text):
            break
        # Of this thread alone, so that a busy machine makes little slow.
        started = time.thread_time()
        match = search(text, begin)[0]
        taken = time.thread_time() - started
        end = len(text) if match == NOTHING else max(match[1], begin + 1)
        if end - begin >= _FAR_BYTES:
            worst = max(worst, taken / (end - begin))
        begin = end
    return worst


def _texts_of_its_own(pattern: str) -> Iterator[bytes]:
    """Yield texts of the characters that a pattern names, in no order: of all, and of all but one.

    One of them may be what a match ends with; without it, what is under way goes on and on.
    """
    named: list[str] = []
    characters: set[str] = set()
    for token in TOKEN.finditer(pattern):
        if token["plain"] and token.group().isascii():
            named.append(token.group())
        elif token["set"] or token["escape"]:
            with suppress(re2.error):  # of an escape that is no class
                one = matching(compile_pattern(f"(?:{token.group()})"))
                characters |= {c for c in string.printable if one(c.encode(), 0)[0] != NOTHING}
    # Lines would end what is under way.
    characters = characters.union(named) - set("\n\r\x0b\x0c")
    for without in ("", *dict.fromkeys(named[-_MOST_LEFT_OUT:])):
        if choice := sorted(characters - {without}):
            yield "".join(random.Random(1).choices(choice, k=_TRIED_BYTES)).encode()
