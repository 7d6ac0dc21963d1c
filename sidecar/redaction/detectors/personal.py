"""Detectors of personal data that has a form of its own: e-mail addresses, US social security."""

from sidecar.redaction.detectors.base import LETTERS, Detector, Shape, Span
from sidecar.redaction.detectors.digits import BLANK, DASH, behind_word

_ALNUM = f"0-9{LETTERS}"
# RFC 5322 allows more in a local part than people use; `/ = ? & % : {}` are left out because in
# telemetry they stand between an address and its surroundings far more often than inside it.
_LOCAL_PART = rf"(?:[{_ALNUM}_](?:[{_ALNUM}_.+'~!#$*^-]*[{_ALNUM}_.+~-])?)"
_LABEL = f"[{_ALNUM}-]"
# `package@4.17.21.tgz`, `action@v1.2.x`: a name begins with one number at most.
_NAMED = rf"{_LABEL}*[A-UW-Za-uw-z\x{{c0}}-\x{{1fff}}\x{{3040}}-\x{{d7ff}}]{_LABEL}*"
_NUMBERED = rf"[Vv]?[0-9]+(?:\.[{LETTERS}]{_LABEL}*)*"
_EMAIL = (
    rf"{_LOCAL_PART}@(?:{_NAMED}(?:\.{_LABEL}+)*|{_NUMBERED})"
    rf"\.(?:xn--[a-zA-Z0-9-]+|[{LETTERS}]{{2,}})"
)

# The SSA gives no area 000, 666 or 9xx, and no group or serial of zeros only.
_AREA = "(?:00[1-9]|0[1-9][0-9]|[1-57-8][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])"
_GROUP = "(?:0[1-9]|[1-9][0-9])"
_SERIAL = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_BEHIND = r"(?:$|[^0-9A-Za-z-]|-(?:$|[^0-9]))"
_SSN = (
    rf"(?:^|[^0-9-])(?P<value>{_AREA}(?:"
    + "|".join(s + _GROUP + s + _SERIAL for s in (DASH, r"\.", "_"))
    + f")){_BEHIND}"
)
# With blanks only it may be a row of numbers, or a status, a time and a size behind a request.
_SSN_BLANKS = (
    rf"(?:^|[^0-9\s-]|[^0-9\s\"]\s)(?P<value>{_AREA}{BLANK}{_GROUP}{BLANK}{_SERIAL}){_BEHIND}"
)
_SSN_WORDS = ("ssn", "social security", "social security number", "social security no")
# Of HTTP: behind a path without quotes, `GET /x 200 51 1234`.
_STATUSES = frozenset(
    str(status)
    for status in (
        *(200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408),
        *(409, 410, 413, 415, 422, 429, 499, 500, 501, 502, 503, 504),
    )
)
_SSN_PLAIN = behind_word(_SSN_WORDS, _AREA + _GROUP + _SERIAL) + r"(?:$|[^0-9A-Za-z])"


def _narrow_blanks(text: str) -> Span | None:
    return (0, len(text)) if text[:3] not in _STATUSES else None


DETECTORS = (
    Detector(name="email", shapes=(Shape(pattern=_EMAIL),)),
    Detector(
        name="us-ssn",
        shapes=(
            Shape(pattern=_SSN),
            Shape(pattern=_SSN_BLANKS, narrow=_narrow_blanks),
            Shape(pattern=_SSN_BLANKS, near=(*_SSN_WORDS, "social")),
            Shape(pattern=_SSN_PLAIN),
        ),
        spares_uuids=True,
    ),
)
