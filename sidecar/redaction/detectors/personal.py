"""Detectors of personal data: addresses of people, their cards, accounts and numbers."""

import re
from functools import lru_cache

import phonenumbers
from stdnum import iban, luhn

from sidecar.redaction.detectors.base import Detector, Shape, Span, whole

# RFC 5322 allows more in a local part than people use; `/ = ? & % : {}` are left out because in
# telemetry they stand between an address and its surroundings far more often than inside it.
_EMAIL = (
    r"(?:[\p{L}\p{N}_](?:[\p{L}\p{N}_.+'~!#$*^-]*[\p{L}\p{N}_+~-])?)"
    r"@(?:[\p{L}\p{N}-]+\.)+(?:xn--[a-zA-Z0-9-]+|\p{L}{2,})"
)

_DIGITS = re.compile(r"[0-9]+")
_CARD_DIGITS_MIN, _CARD_DIGITS = 12, 19
# How long an IBAN is, by country: the registry of SWIFT, release 99.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

# Between groups: also what word processors put there (no-break blank, typographic hyphens); `+`
# stands for a blank in form-encoded text.
_SEP = r"[ .+\x{a0}\x{202f}\x{2010}-\x{2015}-]"
_DASH = r"[ +\x{a0}\x{202f}\x{2010}-\x{2015}-]"
# What may stand around a number that is a word of its own; a dot between digits makes a fraction.
_BEFORE = r"(?:^|[^0-9A-Za-z.]|(?:^|[^0-9])\.)"
_BEHIND = r"(?:$|[^0-9A-Za-z.]|\.(?:$|[^0-9]))"

_CARD = _BEFORE + rf"(?P<value>[1-6][0-9](?:{_DASH}?[0-9]){{10,17}}){_BEHIND}"
_CARD_DOTTED = _BEFORE + rf"(?P<value>[1-6][0-9]{{3}}(?:\.[0-9]{{4}}){{3}}){_BEHIND}"
_IBAN = rf"(?i)(?:^|[^0-9a-z])(?P<value>[a-z]{{2}}[0-9]{{2}}(?:{_SEP}?[0-9a-z]){{11,30}})"
_SSN = (
    rf"(?:^|[^0-9-])(?P<value>[0-9]{{3}}{_SEP}[0-9]{{2}}{_SEP}[0-9]{{4}})"
    r"(?:$|[^0-9-]|-(?:$|[^0-9]))"
)

_EXTENSION = r"(?:[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]?[0-9]{1,6})?"
_PHONE_INTERNATIONAL = (
    r"(?:^|[^0-9A-Za-z+])"
    r"(?P<value>(?:\+|00[ .-]?)[1-9](?:[ .()/+\x{a0}\x{2010}-\x{2015}-]{0,3}[0-9]){6,14}"
    rf"{_EXTENSION})(?:$|[^0-9A-Za-z])"
)
_NANP_END = rf"[2-9][0-9]{{2}}{_SEP}[0-9]{{4}}{_EXTENSION})(?:$|[^0-9A-Za-z-]|-(?:$|[^0-9]))"
# Numbers with nothing but blanks between them are as often three numbers.
_PHONE_NATIONAL = (
    rf"(?:^|[^0-9A-Za-z+.-])(?P<value>(?:(?:\+|00)?1{_SEP}{{0,2}})?"
    rf"(?:\([2-9][0-9]{{2}}\){_SEP}{{0,2}}|[2-9][0-9]{{2}}[.\x{{2010}}-\x{{2015}}-])" + _NANP_END
)
_PHONE_NEAR_A_WORD = (
    r"(?i)\b(?:phone|telephone|tel|call|cell|mobile|fax|dial|sms|text|whatsapp|contact|number)\b"
    rf"[^0-9A-Za-z+]{{1,3}}(?:[a-z]+[^0-9A-Za-z+]{{1,3}}){{0,3}}"
    rf"(?P<value>[2-9][0-9]{{2}}{_SEP}" + _NANP_END
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
    # Maestro may have 12 digits, too; but so have account numbers, clocks and counters.
    ("50", "50", frozenset(range(15, 20))),
    ("56", "59", frozenset(range(15, 20))),
    ("60", "69", frozenset(range(15, 20))),  # Discover, UnionPay, Maestro, RuPay
)


def is_card_number(digits: str) -> bool:
    """Tell whether digits are a payment card number: length, issuer range, Luhn (ISO/IEC 7812)."""
    return any(
        low <= digits[: len(low)] <= high and len(digits) in lengths
        for low, high, lengths in _ISSUERS
    ) and luhn.is_valid(digits)


def _narrow_card(text: str) -> Span | None:
    groups = [match.span() for match in _DIGITS.finditer(text)]
    for first, (start, _) in enumerate(groups):
        digits = ""
        best = None
        for last, (low, high) in enumerate(groups[first:], first):
            if last > first and text[groups[last - 1][1]] != text[groups[first][1]]:
                break  # separators differ
            digits += text[low:high]
            grouped = last == first or all(3 <= e - s <= 7 for s, e in groups[first : last + 1])
            if len(digits) > _CARD_DIGITS:
                break
            if grouped and len(digits) >= _CARD_DIGITS_MIN and is_card_number(digits):
                best = start, high
        if best is not None:
            return best
    return None


def _narrow_iban(text: str) -> Span | None:
    length = _IBAN_LENGTHS.get(text[:2].upper())
    compact = ""
    for place, character in enumerate(text):
        if character.isalnum():
            compact += character
            if len(compact) == length:
                behind = text[place + 1 : place + 2]
                valid = not behind.isalnum() and iban.is_valid(compact, check_country=False)
                return (0, place + 1) if valid else None
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


def _narrow_phone(text: str) -> Span | None:
    ends = [match.end() for match in _DIGITS.finditer(text)]
    if text[-1].isdigit() is False:
        ends.append(len(text))
    # The longest that is a number: what follows it may be the next one, or a status code.
    for end in reversed(ends):
        if _is_phone(text[:end]):
            return 0, end
    return None


@lru_cache(maxsize=1024)
def _is_phone(text: str) -> bool:
    international = text.startswith(("+", "00"))
    number = text.removeprefix("+").replace("+", " ")
    if international:
        number = "+" + (number.removeprefix("00") if text.startswith("00") else number)
    try:
        parsed = phonenumbers.parse(number, "US")
    except phonenumbers.NumberParseException:
        return False
    # Without anything between its digits it may be a signed number or an id, so it has to be one
    # that is in use.
    if text.startswith("00") or text.removeprefix("+").isdecimal():
        return phonenumbers.is_valid_number(parsed)
    return phonenumbers.is_possible_number(parsed)


DETECTORS = (
    Detector(name="email", shapes=(Shape(pattern=_EMAIL),)),
    Detector(
        name="card",
        shapes=tuple(Shape(pattern=p, narrow=_narrow_card) for p in (_CARD, _CARD_DOTTED)),
        integers=True,
        spares_uuids=True,
    ),
    Detector(name="iban", shapes=(Shape(pattern=_IBAN, narrow=_narrow_iban),)),
    Detector(
        name="us-ssn", shapes=(Shape(pattern=_SSN, narrow=whole(_is_ssn)),), spares_uuids=True
    ),
    Detector(
        name="phone",
        shapes=tuple(
            Shape(pattern=p, narrow=_narrow_phone)
            for p in (_PHONE_INTERNATIONAL, _PHONE_NATIONAL, _PHONE_NEAR_A_WORD)
        ),
        spares_uuids=True,
    ),
)
