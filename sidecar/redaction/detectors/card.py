"""Payment cards."""

import re
from collections.abc import Callable

from sidecar.redaction.detectors.base import Detector, Shape, Span
from sidecar.redaction.detectors.digits import (
    BEFORE,
    BEHIND,
    SEPARATOR,
    SEPARATOR_NOT_DOT,
    behind_word,
)

# Issuer ranges as the networks publish them (ISO/IEC 7812 calls them issuer identification
# numbers): the first four digits as a pattern, and the lengths of numbers that begin so.
_ISSUERS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("4[0-9]{3}", (13, 16, 18, 19)),  # Visa
    ("5[1-5][0-9]{2}", (16,)),  # Mastercard
    ("222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720", (16,)),
    ("3[47][0-9]{2}", (15,)),  # American Express
    ("30[0-5][0-9]|3095|3[689][0-9]{2}", (14, 16, 17, 18, 19)),  # Diners Club
    # JCB is given 3528 to 3589; numbers of its 35 that are made up have the rest, too.
    ("35[0-9]{2}", (16, 17, 18, 19)),
    ("1800|2131", (15,)),
    ("220[0-4]", (16, 17, 18, 19)),  # Mir
    ("6011|64[4-9][0-9]|65[0-9]{2}", (16, 17, 18, 19)),  # Discover
    ("62[0-9]{2}|81[0-7][0-9]", (16, 17, 18, 19)),  # UnionPay
    ("60[0-9]{2}|8[12][0-9]{2}", (16,)),  # RuPay
    ("50[0-9]{2}|5[678][0-9]{2}|6304|6390|67[0-9]{2}", (15, 16, 17, 18, 19)),  # Maestro
    ("636[0-9]", (16, 17, 18, 19)),  # InterPayment
    ("63[789][0-9]|9792", (16,)),  # InstaPayment, Troy
)
# Maestro may have fewer digits; but so have account numbers, clocks and counters. And of 13 digits
# with a 4 before are the numbers of articles.
_MAESTRO = "(?:50[0-9]{2}|5[678][0-9]{2}|6304|6390|67[0-9]{2}|0604)"
_SHORT_NUMBER = (
    f"{_MAESTRO}(?:[0-9]{{8,10}}|{SEPARATOR_NOT_DOT}[0-9]{{4}}{SEPARATOR_NOT_DOT}[0-9]{{4}})"
    "|4[0-9]{12}"
)
_CARD_WORDS = (
    *("card", "card no", "card number", "credit card", "debit card", "maestro", "payment"),
    *("cc no", "cc number", "for cc", "my cc"),
)

# How a number of some length is set in groups, the first of which has four digits.
_GROUPS = {
    13: (("3", "3", "3"), ("4", "4", "1")),
    14: (("6", "4"), ("4", "4", "2")),
    15: (("6", "5"), ("4", "4", "3")),
    16: (("4", "4", "4"),),
    18: (("4", "4", "4", "2"),),
    19: (("4", "4", "4", "3"),),
}


def _by_issuer(written: Callable[[int], str]) -> str:
    """Return a pattern for numbers of all issuers; the longest first, as it may be two numbers."""
    return "|".join(
        f"(?:{prefix})(?:{'|'.join(filter(None, map(written, sorted(lengths)[::-1])))})"
        for prefix, lengths in _ISSUERS
    )


def _in_groups(length: int) -> str:
    ways = []
    for groups in _GROUPS.get(length, ()):
        # With dots only in fours: else they are numbers with a fraction.
        separator = SEPARATOR if set(groups[:3]) == {"4"} else SEPARATOR_NOT_DOT
        ways.append("".join(f"{separator}[0-9]{{{n}}}" for n in groups))
    return "|".join(ways)


# What stands around a number is part of the match, since a group would cost half the time again.
_PLAIN = f"{BEFORE}(?:{_by_issuer(lambda length: f'[0-9]{{{length - 4}}}')}){BEHIND}"
_GROUPED = f"{BEFORE}(?:{_by_issuer(_in_groups)}){BEHIND}"
_SHORT = behind_word(_CARD_WORDS, _SHORT_NUMBER) + BEHIND

_DIGITS = re.compile("[0-9]+")
# With the same separator everywhere: `4111 1111-1111 1111` is two numbers, or a date and a time.
_ALIKE = re.compile("[^0-9]*([0-9]+([^0-9]+)[0-9]+(?:\\2[0-9]+)+)[^0-9]*")
# Of each second digit from the right, the sum of the digits of its double.
_DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))


def _passes_luhn(digits: str) -> bool:
    """Tell whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    last_first = digits.encode()[::-1]
    even, odd = last_first[::2], last_first[1::2]
    return (sum(even) - ord("0") * len(even) + sum(odd.translate(_DOUBLED))) % 10 == 0


def _is_article(digits: str) -> bool:
    """Tell whether it is an article number (EAN-13); every tenth of them passes Luhn, too."""
    values = [ord(digit) - ord("0") for digit in digits]
    return len(digits) == 13 and (sum(values[::2]) + 3 * sum(values[1::2])) % 10 == 0


def _narrow_plain(text: str) -> Span | None:
    found = _DIGITS.search(text)
    assert found is not None, "the pattern has digits"
    return found.span() if _passes_luhn(found[0]) and not _is_article(found[0]) else None


def _narrow_short(text: str) -> Span | None:
    digits, alike = _DIGITS.findall(text), len(set(_DIGITS.split(text)[1:-1])) < 2
    return (0, len(text)) if alike and _passes_luhn("".join(digits)) else None


def _narrow_groups(text: str) -> Span | None:
    alike = _ALIKE.fullmatch(text)
    if alike is None:
        return None
    number, separator = alike.groups()
    if _passes_luhn(number.replace(separator, "")):
        return alike.span(1)
    # Four groups of four, and behind them another number.
    shorter, _, _ = number.rpartition(separator)
    is_card = len(shorter) - 3 * len(separator) == 16 and _passes_luhn(
        shorter.replace(separator, "")
    )
    return (alike.start(1), alike.start(1) + len(shorter)) if is_card else None


DETECTORS = (
    Detector(
        name="card",
        shapes=(
            Shape(pattern=_PLAIN, narrow=_narrow_plain),
            Shape(pattern=_GROUPED, narrow=_narrow_groups),
            Shape(pattern=_SHORT, narrow=_narrow_short),
        ),
        integers=True,
        spares_uuids=True,
    ),
)
