"""IBAN account numbers (ISO 13616)."""

import re
import string

from stdnum import numdb

from sidecar.redaction.detectors.base import Detector, Shape, Span
from sidecar.redaction.detectors.digits import SEPARATOR

_CLASSES = {"n": "[0-9]", "a": "[A-Za-z]", "c": "[0-9A-Za-z]"}
# 98 minus a remainder of the division by 97.
_CHECK_DIGITS = "(?:0[2-9]|[1-8][0-9]|9[0-8])"
_BEFORE = "(?:^|[^0-9A-Za-z])"
_BEHIND = "(?:$|[^0-9A-Za-z])"


def _structures() -> dict[str, str]:
    """Return the structure of account numbers by country, from SWIFT's IBAN registry.

    For example ``GB`` → ``aaaannnnnnnnnnnnnn``: one letter for each character behind the two check
    digits, ``n`` a digit, ``a`` a letter, ``c`` either.
    """
    return {
        country: "".join(
            kind * int(count) for count, kind in re.findall("([0-9]+)!([nac])", fields["bban"])
        )
        for _, country, _, fields, _ in numdb.get("iban").prefixes
    }


_STRUCTURES = _structures()
_LENGTHS = {country: 4 + len(structure) for country, structure in _STRUCTURES.items()}


def _any_country() -> str:
    # Countries with alike numbers together; in alphabetical order, so that RE2 reads each first
    # letter once for all of them.
    alike: dict[tuple[str, str, str], list[str]] = {}
    for country, structure in sorted(_STRUCTURES.items()):
        rest = "n" if set(structure[8:]) <= {"n"} else "c"
        alike.setdefault((structure[:4], structure[4:8], rest), []).append(country)
    return "|".join(_form(*form, countries) for form, countries in alike.items())


def _form(first: str, second: str, rest: str, countries: list[str]) -> str:
    names = "|".join("".join(f"[{c}{c.lower()}]" for c in country) for country in countries)
    groups = [(_LENGTHS[country] - 12) // 4 for country in countries]
    return (
        f"(?:{names}){_CHECK_DIGITS}{SEPARATOR}?{_in_classes(first)}{SEPARATOR}?"
        f"{_in_classes(second)}(?:{SEPARATOR}?{_CLASSES[rest]}{{4}}){{{min(groups)},{max(groups)}}}"
        f"(?:{SEPARATOR}?{_CLASSES[rest]}{{1,3}})?"
    )


def _in_classes(structure: str) -> str:
    runs = re.finditer("n+|a+|c+", structure)
    return "".join(f"{_CLASSES[run[0][0]]}{{{len(run[0])}}}" for run in runs)


# In one piece or in groups of four. How long it is, and what stands behind the second group, is not
# said here for each country, where it would be the largest of all patterns. What stands around it
# is part of the match, since a group would cost half the time again.
_IBAN = f"{_BEFORE}(?:{_any_country()}){_BEHIND}"
# Where the word says so, its parts may be set apart in any way: `DE89 37040044 0532013000`.
_IBAN_NEAR_ITS_NAME = (
    rf"(?i:\biban)[^0-9A-Za-z\n]{{1,4}}(?:(?i:is|no|nr|number)[^0-9A-Za-z\n]{{1,3}})?"
    rf"(?P<value>[A-Za-z]{{2}}{_CHECK_DIGITS}(?:[0-9A-Za-z]|{SEPARATOR}){{11,60}})"
)

# Letters count as 10 to 35; separators as nothing.
_AS_DIGITS = {
    **{ord(letter): str(10 + place) for place, letter in enumerate(string.ascii_uppercase)},
    **{ord(letter): str(10 + place) for place, letter in enumerate(string.ascii_lowercase)},
}
_PART, _NO_PART = re.compile("[0-9A-Za-z]"), re.compile("[^0-9A-Za-z]+")


def _is_iban(compact: str) -> bool:
    return int((compact[4:] + compact[:4]).translate(_AS_DIGITS)) % 97 == 1


def _narrow(text: str) -> Span | None:
    """Take as much as numbers of the country have, when it is as they are."""
    compact = _NO_PART.sub("", text)
    structure = _STRUCTURES[compact[:2].upper()]
    length = 4 + len(structure)
    number = compact[:length]
    if len(number) < length or not _has(structure, number[4:]) or not _is_iban(number):
        return None
    places = [match.start() for match in _PART.finditer(text)]
    end = places[length - 1] + 1
    return (places[0], end) if _PART.match(text, end) is None else None


def _has(structure: str, characters: str) -> bool:
    return all(
        kind == "c" or (kind == "n") == character.isdigit()
        for kind, character in zip(structure, characters, strict=True)
    )


def _narrow_near_its_name(text: str) -> Span | None:
    """Take as much as numbers of the country have; what follows is of the sentence."""
    places = [match.end() for match in _PART.finditer(text)]
    length = _LENGTHS.get(text[:2].upper())
    if length is None or len(places) < length:
        return None
    end = places[length - 1]
    whole = not text[end : end + 1].isalnum()
    return (0, end) if whole and _is_iban(_NO_PART.sub("", text[:end])) else None


DETECTORS = (
    Detector(
        name="iban",
        shapes=(
            Shape(pattern=_IBAN, narrow=_narrow),
            Shape(pattern=_IBAN_NEAR_ITS_NAME, narrow=_narrow_near_its_name),
        ),
    ),
)
