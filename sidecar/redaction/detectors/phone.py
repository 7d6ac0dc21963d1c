"""Phone numbers.

International ones tell themselves by ``+`` or ``00`` and a calling code; what they lack is length,
which the code decides. Those of North America have a form of their own. All other national forms
are digits in groups, as much else is, so a word must say what they are: anywhere near for forms
that begin with a trunk 0 or an area code in brackets, right beside them for the rest. Whether such
a number is in use is not asked, since what country it belongs to is not known.
"""

import re
from functools import lru_cache

import phonenumbers

from sidecar.redaction.detectors.base import LETTERS, Detector, Shape, Span
from sidecar.redaction.detectors.digits import SEPARATOR, alternatives

# How many digits follow the calling code (ITU-T E.164), as numbering plans have it, and no more
# than 15 with the code. Fewer than 7 are in use in some countries, but not between countries.
_NATIONAL_DIGITS = {
    code: (fewest, most)
    for (fewest, most), codes in {
        (7, 7): "238 239 246 248 269 291 297 592 673 674 680 691 692 290 500 682 676 677 678 688 "
        "298 299 672 687 597",
        (7, 8): "241 599 670 675 853 961 965 975 386 686",
        (7, 9): "220 231 245 265 354 385 423 967 968 40 252 355 376 421 508 681 689",
        (7, 11): "501 503 507 679 886 974 352 31 852 375 595",
        (7, 12): "86 882 972 61 358 971 39 46 359 381",
        (7, 13): "43 598 90 63 49 82 62",
        (7, 10): "27 44 48 53 64 84 95 98 230 243 254 263 267 353 372 685 880 960",
        (8, 8): "45 216 222 223 226 227 228 232 235 236 253 257 266 350 356 357 370 371 373 374 "
        "389 505 509 800 808 973 993",
        (8, 9): "32 36 51 213 224 233 237 250 258 264 268 377 382 387 591 962 963 47",
        (8, 10): "20 60 229 378 506 850 855 856 964 970 976",
        (8, 11): "55 57 65 502 504 593 977",
        (8, 12): "92 383 883 81",
        (8, 13): "66 91",
        (9, 9): "33 34 93 94 211 212 218 221 240 242 244 249 251 255 256 260 261 262 351 590 594 "
        "596 979 992 994 995 998",
        (9, 10): "380 881 966 996",
        (9, 12): "41 420 870",
        (10, 10): "1 52 58 225 7",
        (9, 11): "54 56",
        (10, 12): "30 234",
        (11, 11): "888",
        (12, 12): "878",
    }.items()
    for code in codes.split()
}
_UNLISTED = (7, 10)
_MOST_DIGITS = 15

_EXTENSION = r"(?:[ ,;]{0,2}(?i:x|ext\.?|extension)[ .:]?[0-9]{1,6})?"
_BEHIND = r"(?:$|[^0-9A-Za-z-]|-(?:$|[^0-9]))"
# Between digits of an international number, `+44 (0)20-7183 8750`; `+` alone, where it stands for a
# blank: behind a blank it begins the next number.
_BETWEEN = r"(?:\+|[ \t._()/\x{a0}\x{202f}\x{2010}-\x{2015}-]{0,3})"


def _international() -> str:
    """Return a pattern for enough digits behind each calling code; more may belong or follow."""
    by_fewest: dict[int, list[str]] = {}
    for code, (fewest, _) in _NATIONAL_DIGITS.items():
        if code != "1":
            by_fewest.setdefault(fewest, []).append(code)
    # What all have in common stands there once, since it is long: as many digits as the shortest
    # have, and what may follow. So some have more digits than there are, which `narrow` sees.
    codes = "|".join(
        f"(?:{'|'.join(codes)})(?:{_BETWEEN}[0-9]){{{fewest - 7}}}"
        for fewest, codes in sorted(by_fewest.items(), reverse=True)
    )
    return rf"(?:{codes}|[2-9][0-9]{{2}})(?:{_BETWEEN}[0-9]){{7,14}}"


def _bracketed() -> str:
    """Return a pattern for calling codes in brackets, `(+49)` or `+(49)`, and digits behind."""
    codes = "|".join(code for code in _NATIONAL_DIGITS if code != "1")
    return rf"(?:\(\+(?:{codes})\)|\+\((?:{codes})\))(?:{_BETWEEN}[0-9]){{7,12}}"


# What stands around these is part of the match, since a group would cost half the time again.
_INTERNATIONAL = (
    rf"(?:^|[^0-9A-Za-z+])(?:\+{_international()}|{_bracketed()}){_EXTENSION}(?:$|[^0-9A-Za-z])"
)
_INTERNATIONAL_00 = (
    rf"(?:^|[^0-9A-Za-z+.-])00[ .-]?{_international()}{_EXTENSION}(?:$|[^0-9A-Za-z])"
)
_INTERNATIONAL_PLAIN = r"(?:^|[^0-9A-Za-z+])(?P<value>\+[1-9][0-9]{8,14})(?:$|[^0-9A-Za-z])"
_AREA_IN_BRACKETS = rf"\([0-9]{{3}}\){SEPARATOR}?"
# With a country code, North American numbers say what they are by that and their groups.
_NORTH_AMERICA_INTERNATIONAL = (
    rf"(?:^|[^0-9A-Za-z+.-])(?P<value>(?:\+|00)1{_BETWEEN}"
    rf"(?:{_AREA_IN_BRACKETS}|[0-9]{{3}}{SEPARATOR})[0-9]{{3}}{SEPARATOR}[0-9]{{4}}{_EXTENSION})"
    + _BEHIND
)
_NORTH_AMERICA_PLAIN = r"(?:^|[^0-9A-Za-z+])(?P<value>\+1[2-9][0-9]{9})(?:$|[^0-9A-Za-z])"
# Numbers with nothing but blanks between them are as often three numbers.
_NORTH_AMERICA = (
    rf"(?:^|[^0-9A-Za-z+.-])(?P<value>(?:1{SEPARATOR})?"
    rf"(?:\([2-9][0-9]{{2}}\){SEPARATOR}?|[2-9][0-9]{{2}}[.\x{{2010}}-\x{{2015}}-])"
    rf"[2-9][0-9]{{2}}{SEPARATOR}[0-9]{{4}}{_EXTENSION}){_BEHIND}"
)

_PHONE_WORDS = (
    *("phone", "phones", "telephone", "tel", "telefon", "telefono", "telefone", "telefoon"),
    *("téléphone", "teléfono", "telefonnummer", "telefonnr", "tlf", "puhelin", "тел", "телефон"),
    *("τηλ", "τηλέφωνο", "電話", "电话", "mobile", "mobil", "móvil", "cell", "cellphone"),
    *("cellular", "cellulare", "celular", "handy", "handynummer", "portable", "gsm", "landline"),
    *("hotline", "fax", "telefax", "whatsapp", "phone number", "contact number", "rufnummer"),
)
_PEOPLE = ("me", "us", "him", "her", "them")
_OWNERS = ("my", "our", "your", "his", "her", "their")
# What is said of people alone: as good as naming a phone.
_CALL_PEOPLE_WORDS = (
    *(f"{verb} {whom}" for verb in ("call", "reach", "text", "ring") for whom in _PEOPLE),
    *(f"{whose}{new} number" for whose in _OWNERS for new in ("", " new")),
    *("answering at", "answering on", "can call", "please call", "dial"),
)
_CALL_WORDS = (
    *("call", "calling", "calls from", "called from", "sms", "call back", "contact:"),
    *(f"contact {whom}" for whom in _PEOPLE),
    *("message from", "messages from", "texts from", "registered"),
    *("office:", "home:", "work:", "llamar al", "llámame", "appeler le", "anrufen", "chiamare"),
)
# Enough for digits that already look like a phone number.
_NEAR_WORDS = (
    *("call", "calling", "called", "caller", "dial", "sms", "text", "texted", "reach", "answering"),
    *("contact", "number", "registered", "office", "home", "work"),
)
# Between such a word and a number: `My number is`, `call us back at`, `phone (mobile):`.
_LINKS = (
    *("is", "are", "was", "no", "nr", "num", "number", "numbers", "me", "us", "him", "her"),
    *("them", "back", "at", "on", "under", "to", "my", "our", "the", "your", "his", "new"),
    *("direct", "line", "mobile", "cell", "office", "home", "work", "has", "been", "changed"),
    *("es", "est", "ist", "lautet", "unter", "al", "au"),
)
_CAPITALS = r"A-Z\x{c0}-\x{de}\x{100}-\x{24f}\x{386}-\x{3ab}\x{400}-\x{42f}"
_NO_WORD = rf"[^0-9+\n{LETTERS}]"
_LINK = rf"{_NO_WORD}{{1,4}}(?:(?i:{alternatives(_LINKS)}){_NO_WORD}{{1,3}}){{0,4}}"
_BEHIND_PHONE = (
    rf"(?:^|[^{LETTERS}])(?i:{alternatives((*_PHONE_WORDS, *_CALL_PEOPLE_WORDS))}){_LINK}"
)
# Or the name of whom to call: `Text Ada Lovelace at`.
_NAME_LINK = rf"(?: [{_CAPITALS}][.'{LETTERS}-]{{0,24}}){{1,4}} (?i:at|on|under|auf|al) "
_BEHIND_CALL = (
    rf"(?:^|[^{LETTERS}])(?:(?i:{alternatives(_CALL_WORDS)}){_LINK}"
    rf"|(?i:{alternatives(('call', 'text', 'contact', 'reach', 'phone', 'ring'))}){_NAME_LINK})"
)
_BEFORE_PHONE = (
    rf"[ \t]{{0,2}}[,/|:(\[\x{{2013}}-]?[ \t]{{0,2}}"
    rf"(?i:{alternatives((*_PHONE_WORDS, 'office', 'home', 'work'))})"
)

# How national numbers are set in groups; with a trunk 0 they are longer by it.
_TRUNK_GROUPS = (
    *("2-6", "2-7", "2-8", "2-3-3", "2-3-4", "2-4-3", "2-4-4", "2-3-2-2", "2-3-3-2", "2-2-2-2-2"),
    *("3-5", "3-6", "3-7", "3-8", "3-3-3", "3-3-4", "3-4-3", "3-4-4", "3-2-2-2", "3-3-2-2"),
    *("3-2-2-2-2", "4-5", "4-6", "4-7", "4-2-2", "4-3-2", "4-3-3", "4-3-4", "4-4-4", "4-2-2-2"),
    *("4-3-2-2", "4-5-3", "5-4", "5-5", "5-6", "5-7", "5-3-3", "5-5-3", "5-2-2-2"),
)
_AREA_GROUPS = (
    *("3-3", "3-4", "4-3", "4-4", "5-3", "2-2-2", "2-2-2-2", "3-2-2", "3-3-3"),
    *("5", "6", "7", "8", "9"),
)
_GROUPS = (
    *("3-4", "4-4", "2-6", "2-7", "2-3-3", "2-3-4", "2-4-3", "2-4-4", "2-3-3-4", "2-3-2-2"),
    *("3-2-2", "3-2-3", "3-3-3", "3-3-4", "3-7", "3-2-2-2", "3-3-2-2", "2-2-2-2", "2-2-2-2-2"),
    *("4-6", "4-3-3", "5-5", "5-2-3"),
    # With a trunk 8 or 1, or a calling code that has lost its +.
    *("1-3-3-4", "1-3-3-2-2", "2-3-3-3", "2-3-3-4", "2-3-3-2-2", "2-2-4-4", "2-5-5"),
)
# With hyphens, three groups of two are a date.
_PAIRS = "[0-9]{2} [0-9]{2} [0-9]{2}"
# Of a number in one piece a call may have millions, so it takes a trunk 0 or a better word.
_UNGROUPED, _UNGROUPED_TRUNK, _UNGROUPED_LONG = "[0-9]{7,12}", "0[1-9][0-9]{7,10}", "[0-9]{8,12}"


def _forms(all_groups: tuple[str, ...], before: str = "", first: str = "") -> str:
    """Return a pattern for digits in groups, the longest first, as the next number may follow."""
    by_length = sorted(all_groups, key=lambda groups: sum(map(int, groups.split("-"))))
    return "|".join(
        before
        + _SEPARATE.join(
            first + f"[0-9]{{{int(size) - 2 * bool(first)}}}"
            if first and not place
            else f"[0-9]{{{size}}}"
            for place, size in enumerate(groups.split("-"))
        )
        for groups in reversed(by_length)
    )


_SEPARATE = r"[ \x{a0}\x{202f}\x{2010}-\x{2015}-]"
_TOLD_APART = "|".join(
    (
        _forms(_AREA_GROUPS, before=rf"(?:[0-9]{_SEPARATE})?\(0?[0-9]{{1,4}}\){_SEPARATE}?"),
        _forms(_TRUNK_GROUPS, first="0[1-9]"),
        r"[0-9]{3}[.-][0-9]{3}[.-][0-9]{4}",
        r"0[1-9](?:\.[0-9]{2}){4}",
        r"0[1-9][0-9]{2}(?:\.[0-9]{3}){2}",
        r"(?:0[1-9]|\(0[1-9]\))\.?[0-9]{4}\.[0-9]{4}",
        r"0[1-9]-[0-9]{2} [0-9]{2} [0-9]{2}",
        r"0[1-9][0-9]{1,3}/[0-9]{5,8}",
        r"0[1-9][0-9]?/ ?[0-9]{2,3}(?:[ .][0-9]{2}){2}",
        r"(?:06-)?[0-9]{1,2}/[0-9]{3}[ -][0-9]{3,4}",
        r"\([0-9]{2}\)[0-9]{0,2}/[0-9]{3}[ -][0-9]{4}",
    )
)
_ANY_GROUPS = "|".join((_TOLD_APART, _forms(_GROUPS), _PAIRS))
_START = r"(?:^|[^0-9A-Za-z+.:/_-])"
# More numbers behind it make it a row of them.
_BEHIND_ROW = r"(?:$|[^0-9A-Za-z \t-]|[ \t-](?:$|[^0-9]))"
_NEAR_A_WORD = rf"{_START}(?P<value>(?:{_TOLD_APART}){_EXTENSION}){_BEHIND}"
_BESIDE_A_WORD = (
    rf"{_BEHIND_PHONE}(?P<value>(?:{_ANY_GROUPS}|{_UNGROUPED}){_EXTENSION}){_BEHIND}",
    rf"{_BEHIND_CALL}(?P<value>(?:{_ANY_GROUPS}|{_UNGROUPED_TRUNK}){_EXTENSION}){_BEHIND_ROW}",
    rf"{_START}(?P<value>(?:{_ANY_GROUPS}|{_UNGROUPED_LONG}){_EXTENSION}){_BEFORE_PHONE}"
    r"[)\]]?(?:$|[\r\n,;.|\\])",
)
_AT_A_KEY = rf"^\s*(?P<value>(?:{_ANY_GROUPS}|{_UNGROUPED}){_EXTENSION})\s*$"

_DIGITS = re.compile(r"[0-9]+")
_EXTENDED = re.compile(_EXTENSION.removesuffix("?") + r"(?=[^0-9A-Za-z]?\Z)")
# The next number: `+5775 -2913 lines`.
_SIGNED = re.compile(r"[0-9](?=\s-[0-9])")
_IN_BRACKETS = re.compile(r"\(\+[0-9]+\)")
# The trunk prefix that is not dialled from abroad.
_TRUNK = re.compile(r"\(0\)")


@lru_cache(maxsize=1024)
def _narrow_international(text: str) -> Span | None:
    """Find how much of the digits is one number: what follows may be the next, or a status."""
    start = int(text[0] not in "+0" and _IN_BRACKETS.match(text) is None)
    extended = _EXTENDED.search(text, start)
    if extended and _is_international(text[start : extended.start()]):
        return start, extended.end()
    signed = _SIGNED.search(text, start)
    for match in reversed(
        list(_DIGITS.finditer(text, start, signed.end() if signed else len(text)))
    ):
        if _is_international(text[start : match.end()]):
            return start, match.end()
    return None


def _has_length(digits: str) -> bool:
    """Tell whether a calling code and what follows are as long as that country's numbers."""
    code = next((digits[:n] for n in (1, 2, 3) if digits[:n] in _NATIONAL_DIGITS), digits[:3])
    fewest, most = _NATIONAL_DIGITS.get(code, _UNLISTED)
    return fewest <= len(digits) - len(code) <= min(most, _MOST_DIGITS - len(code))


def _is_international(text: str) -> bool:
    digits = "".join(_DIGITS.findall(_TRUNK.sub("", text)))
    digits = digits.removeprefix("00") if text.startswith("00") else digits
    if not _has_length(digits):
        return False
    # Without anything between its digits it may be a signed number or an id, and behind `00` the
    # bytes of a dump, so it has to be one that is in use.
    return not (text.startswith("00") or text[1:].isdecimal()) or _is_in_use(f"+{digits}")


@lru_cache(maxsize=1024)
def _is_in_use(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _narrow_north_america(text: str) -> Span | None:
    return (0, len(text)) if _is_in_use(text) else None


def _narrow_near_a_word(text: str) -> Span | None:
    return (0, len(text)) if _has_length(text[1:]) else None


DETECTORS = (
    Detector(
        name="phone",
        shapes=(
            Shape(pattern=_INTERNATIONAL, narrow=_narrow_international),
            Shape(pattern=_INTERNATIONAL_00, narrow=_narrow_international),
            Shape(pattern=_NORTH_AMERICA_INTERNATIONAL),
            Shape(pattern=_NORTH_AMERICA_PLAIN, narrow=_narrow_north_america),
            Shape(pattern=_NORTH_AMERICA),
            Shape(pattern=_NEAR_A_WORD, near=(*_PHONE_WORDS, *_NEAR_WORDS)),
            # Not in use, or not yet; the word says that it is a phone number all the same.
            Shape(
                pattern=_INTERNATIONAL_PLAIN,
                narrow=_narrow_near_a_word,
                near=(*_PHONE_WORDS, *_NEAR_WORDS),
            ),
            *(Shape(pattern=p) for p in _BESIDE_A_WORD),
            Shape(pattern=_AT_A_KEY, near=_PHONE_WORDS),
        ),
        spares_uuids=True,
    ),
)
