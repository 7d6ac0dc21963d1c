"""Where and when: coordinates of a place, and dates of birth.

Both look like much else (embeddings, boxes, any date), so but for forms that nothing else has a
word must stand before them, or be the key.
"""

from sidecar.redaction.detectors.base import Detector, Shape
from sidecar.redaction.detectors.digits import behind_word

# Four decimals tell places 11 m apart; fewer are a town.
_LATITUDE = r"[+-]?(?:90\.0{4,}|[1-8]?[0-9]\.[0-9]{4,})"
_LONGITUDE = r"[+-]?(?:180\.0{4,}|(?:1[0-7][0-9]|[1-9]?[0-9])\.[0-9]{4,})"
# A pair, not the beginning of a row of numbers.
_PAIR = rf"{_LATITUDE}°?(?: ?[NS])?(?:[ ,;/]|, |; ){_LONGITUDE}°?(?: ?[EW])?"
_PAIR_BEHIND = r"(?:$|[^0-9A-Za-z., ;]|[.,; ]+(?:$|[^0-9., ;+-]))"
_PLACE_WORDS = (
    *("location", "coordinates", "coordinate", "coords", "coord", "gps", "geo", "geolocation"),
    *("lat lon", "lat lng", "lat long", "latlng", "latitude longitude", "latitude and longitude"),
    *("lat", "latitude", "standort", "koordinaten", "ubicación", "coordonnées"),
    *("posizione", "coordinate gps", "geopoint"),
)
# One of the two, by its name.
_LATITUDE_NAMED = (
    r"(?i:(?:^|[^a-z])(?:lat|latitude))[\"']?\s{0,2}[:=]\s{0,2}[\"']?"
    rf"(?P<value>{_LATITUDE})(?:$|[^0-9A-Za-z.])"
)
_LONGITUDE_NAMED = (
    r"(?i:(?:^|[^a-z])(?:lng|lon|long|longitude))[\"']?\s{0,2}[:=]\s{0,2}[\"']?"
    rf"(?P<value>{_LONGITUDE})(?:$|[^0-9A-Za-z.])"
)
# RFC 5870; its coordinates may have any number of decimals.
_GEO_URI = (
    r"(?i:\bgeo:)(?P<value>-?[0-9]{1,2}(?:\.[0-9]+)?,-?[0-9]{1,3}(?:\.[0-9]+)?(?:,-?[0-9.]+)?)"
)
# OGC simple features, well-known text: longitude first.
_POINT = rf"(?i:\bpoint) ?(?:Z ?)?\((?P<value>{_LONGITUDE} {_LATITUDE})"
_MAP_URL = rf"/maps/(?:[^\s\"'<>@]*/)?@(?P<value>{_LATITUDE},{_LONGITUDE}),[0-9.]+[zm]"
# Degrees, minutes, seconds: 52° 31' 12.0" N 13° 24' 18" E; primes or what keyboards have.
_ANGLE = (
    r"[0-9]{1,3} ?[°º] ?[0-9]{1,2}(?:\.[0-9]+)? ?['\x{2032}\x{2019}]"
    r"(?: ?[0-9]{1,2}(?:\.[0-9]+)? ?(?:[\"\x{2033}\x{201d}]|''))? ?"
)
_DEGREES = rf"(?:^|[^0-9.])(?P<value>{_ANGLE}[NS][ ,;/]{{0,3}}{_ANGLE}[EWO])(?:$|[^0-9A-Za-z])"
_AT_A_KEY = rf"^\s*(?P<value>{_PAIR}|{_LONGITUDE})\s*$"

_YEAR = "(?:1[89]|20)[0-9]{2}"
_MONTHS = (
    "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    "|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
    "|januar|februar|märz|mai|juni|juli|oktober|dezember"
    "|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre"
    "|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre)"
)
_DAY = "(?:0?[1-9]|[12][0-9]|3[01])"
_DATE = "|".join(
    (
        rf"{_YEAR}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}(?:T[0-9:.]+(?:Z|[+-][0-9:]+)?)?",
        rf"[0-9]{{1,2}}[-/.] ?[0-9]{{1,2}}[-/.] ?(?:{_YEAR}|[0-9]{{2}})",
        rf"{_DAY} [0-9]{{1,2}} {_YEAR}",
        rf"{_DAY}(?:st|nd|rd|th|\.|er)?(?: of| de)?[ -]{_MONTHS}\.?,?(?: de)?[ -]"
        rf"(?:{_YEAR}|[0-9]{{2}})",
        rf"{_MONTHS}\.? {_DAY}(?:st|nd|rd|th)?,? {_YEAR}",
        rf"{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])",
        rf"{_YEAR}年[0-9]{{1,2}}月[0-9]{{1,2}}日",
    )
)
# A process is born, too, but then with the time of day.
_DATE_BEHIND = r"(?:$|[^0-9A-Za-z:-]|-(?:$|[^0-9]))"
_BIRTH_WORDS = (
    *("born", "date of birth", "birth date", "birthdate", "birthday", "dob", "d.o.b.", "born on"),
    *("birth", "bday", "geboren", "geburtsdatum", "geburtstag", "geb.", "né le", "née le"),
    *("date de naissance", "fecha de nacimiento", "nacido", "nacida", "data di nascita", "nato il"),
    *("nata il", "data de nascimento", "nascimento", "geboortedatum", "födelsedatum"),
    *("data urodzenia", "дата рождения", "生年月日", "出生日期"),
)

DETECTORS = (
    Detector(
        name="coordinates",
        shapes=(
            Shape(pattern=behind_word(_PLACE_WORDS, _PAIR, r"[^0-9\n.]{0,24}?") + _PAIR_BEHIND),
            Shape(pattern=_LATITUDE_NAMED),
            Shape(pattern=_LONGITUDE_NAMED),
            Shape(pattern=_GEO_URI),
            Shape(pattern=_POINT),
            Shape(pattern=_MAP_URL),
            Shape(pattern=_DEGREES),
            Shape(
                pattern=_AT_A_KEY,
                near=(*_PLACE_WORDS, "lon", "lng", "longitude"),
            ),
        ),
    ),
    Detector(
        name="date-of-birth",
        shapes=(
            Shape(pattern=behind_word(_BIRTH_WORDS, _DATE, r"[^0-9\n]{0,24}?\b") + _DATE_BEHIND),
            Shape(pattern=rf"^\s*(?P<value>{_DATE})\s*$", near=_BIRTH_WORDS),
        ),
    ),
)
