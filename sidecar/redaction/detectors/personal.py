"""Detectors of personal data: addresses of people, their cards, accounts and numbers."""

import re
from functools import lru_cache

import phonenumbers
from stdnum import iban, luhn

from sidecar.redaction.detectors.base import Detector, Span, whole

# RFC 5322 allows more in a local part than people use; `/ = ? & % : {}` are left out because in
# telemetry they stand between an address and its surroundings far more often than inside it.
_EMAIL = (
    r"(?:[\p{L}\p{N}_](?:[\p{L}\p{N}_.+'~!#$*^-]*[\p{L}\p{N}_+~-])?)"
    r"@(?:[\p{L}\p{N}-]+\.)+(?:xn--[a-zA-Z0-9-]+|\p{L}{2,})"
)

_DIGIT = re.compile(r"[0-9]")

# Separators between groups; `+` stands for a blank in form-encoded text.
_CARD = r"(?:^|[^0-9A-Za-z])(?P<value>[1-6][0-9](?:[ .+-]?[0-9]){10,17})(?:$|[^0-9A-Za-z])"
_IBAN = r"(?i)(?:^|[^0-9a-z])(?P<value>[a-z]{2}[0-9]{2}(?:[ .+-]?[0-9a-z]){11,30})"
_SSN = r"(?:^|[^0-9-])(?P<value>[0-9]{3}[ .+-][0-9]{2}[ .+-][0-9]{4})(?:$|[^0-9-]|-(?:$|[^0-9]))"

_EXTENSION = r"(?:[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]?[0-9]{1,6})?"
_PHONE_INTERNATIONAL = (
    r"(?:^|[^0-9A-Za-z+])(?P<value>(?:\+|00[ .-]?)[1-9](?:[ .()/+-]{0,3}[0-9]){6,14}"
    + _EXTENSION
    + ")"
)
_PHONE_NATIONAL = (
    r"(?:^|[^0-9A-Za-z+.-])(?P<value>(?:(?:\+|00)?1[ .+-]{0,2})?"
    r"(?:\([2-9][0-9]{2}\)[ .+-]{0,2}|[2-9][0-9]{2}[ .+-])[2-9][0-9]{2}[ .+-][0-9]{4}"
    + _EXTENSION
    + r")(?:$|[^0-9A-Za-z-]|-(?:$|[^0-9]))"
)

# Issuer ranges, from ISO/IEC 7812 as the networks publish them: prefix from, prefix to, lengths.
_ISSUERS: tuple[tuple[str, str, frozenset[int]], ...] = (
    ("34", "34", frozenset({15})),  # American Express
    ("37", "37", frozenset({15})),
    ("300", "305", frozenset(range(14, 20))),  # Diners Club
    ("3095", "3095", frozenset(range(14, 20))),
    ("36", "36", frozenset(range(14, 20))),
    ("38", "39", frozenset(range(14, 20))),
    ("3528", "3589", frozenset(range(16, 20))),  # JCB
    ("1800", "1800", frozenset({15})),
    ("2131", "2131", frozenset({15})),
    ("2200", "2204", frozenset(range(16, 20))),  # Mir
    ("2221", "2720", frozenset({16})),  # Mastercard
    ("51", "55", frozenset({16})),
    ("4", "4", frozenset({13, 16, 18, 19})),  # Visa
    ("50", "50", frozenset(range(12, 20))),  # Maestro
    ("56", "59", frozenset(range(12, 20))),
    ("60", "69", frozenset(range(12, 20))),  # Discover, UnionPay, Maestro, RuPay
)


def is_card_number(digits: str) -> bool:
    """Tell whether digits are a payment card number: length, issuer range, Luhn (ISO/IEC 7812)."""
    return any(
        low <= digits[: len(low)] <= high and len(digits) in lengths
        for low, high, lengths in _ISSUERS
    ) and luhn.is_valid(digits)


def _narrow_card(text: str) -> Span | None:
    places = [match.start() for match in _DIGIT.finditer(text)]
    starts = [i for i, place in enumerate(places) if not i or places[i - 1] + 1 < place]
    ends = [
        i
        for i, place in enumerate(places)
        if place + 1 >= len(text) or not text[place + 1].isdigit()
    ]
    digits = "".join(text[place] for place in places)
    for start in starts:
        for end in reversed(ends):
            if 12 <= end + 1 - start <= 19 and is_card_number(digits[start : end + 1]):
                return places[start], places[end] + 1
    return None


def _narrow_iban(text: str) -> Span | None:
    compact = ""
    for place, character in enumerate(text):
        if not character.isalnum():
            continue
        compact += character
        behind = text[place + 1 : place + 2]
        if (
            len(compact) >= 15
            and not behind.isalnum()
            and iban.is_valid(compact, check_country=False)
        ):
            return 0, place + 1
    return None


def _is_ssn(text: str) -> bool:
    """Tell whether the SSA can have given the number: no area 000, 666 or 9xx, no zeros."""
    area, group, serial = text[:3], text[4:6], text[7:]
    return (
        text[3] == text[6]
        and area not in {"000", "666"}
        and area[0] != "9"
        and group != "00"
        and serial != "0000"
    )


@lru_cache(maxsize=1024)
def _is_phone(text: str) -> bool:
    number = (
        text.replace("+", " ") if not text.startswith("+") else "+" + text[1:].replace("+", " ")
    )
    if number.startswith("00"):
        number = "+" + number[2:]
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number, "US"))
    except phonenumbers.NumberParseException:
        return False


DETECTORS = (
    Detector(name="email", patterns=(_EMAIL,)),
    Detector(name="card", patterns=(_CARD,), narrow=_narrow_card, integers=True),
    Detector(name="iban", patterns=(_IBAN,), narrow=_narrow_iban),
    Detector(name="us-ssn", patterns=(_SSN,), narrow=whole(_is_ssn)),
    Detector(
        name="phone", patterns=(_PHONE_INTERNATIONAL, _PHONE_NATIONAL), narrow=whole(_is_phone)
    ),
)
