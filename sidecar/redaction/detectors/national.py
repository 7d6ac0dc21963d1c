"""Numbers that a state gives to a person, and those of passports.

What python-stdnum checks is what each country publishes: lengths, dates within, check digits. A
number whose form is like nothing else, with check digits, counts wherever it stands; one of plain
digits only behind a word for it, or at a key that holds one.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache

import msgspec
from stdnum.ar import dni as ar_dni
from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import nif
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.il import idnr as teudat_zehut
from stdnum.in_ import aadhaar, pan
from stdnum.is_ import kennitala
from stdnum.it import codicefiscale
from stdnum.jp import in_ as my_number
from stdnum.lv import pvn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import cc
from stdnum.pt import nif as pt_nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.si import emso
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.ua import rntrc
from stdnum.us import itin
from stdnum.za import idnr as za_id

from sidecar.redaction.detectors.base import Detector, Shape, Span, whole
from sidecar.redaction.detectors.digits import behind_word
from sidecar.redaction.validators import never_raising

_BEFORE, _BEHIND = r"(?:^|[^0-9A-Za-z.-])", r"(?:$|[^0-9A-Za-z-]|-(?:$|[^0-9A-Za-z]))"
_S = "[ ./-]?"
_MONTH, _DAY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
# Of the day of birth, the forms that most numbers have.
_YYMMDD, _DDMMYY = f"[0-9]{{2}}{_MONTH}{_DAY}", f"{_DAY}{_MONTH}[0-9]{{2}}"


class _Id(msgspec.Struct, frozen=True, eq=False):
    """A number of one country: its form, its check, and the words that stand before it."""

    pattern: str
    check: Callable[[str], bool] | None
    words: tuple[str, ...]


def _is_ric(text: str) -> bool:
    # All of `ric.is_valid` but the place of birth, which is not known of every code.
    return ric.calc_check_digit(text) == text[-1].upper()


# Of an unmistakable form: letters and digits in places of their own, or groups of their own.
_ALONE = (
    # Italy, codice fiscale; letters stand for digits where two people would have the same.
    _Id(
        "[A-Za-z]{6}[0-9]{2}[A-EHLMPR-Ta-ehlmpr-t][0-9]{2}[A-Za-z][0-9]{3}[A-Za-z]",
        codicefiscale.is_valid,
        (),
    ),
    # Mexico, CURP
    _Id(f"[A-Z]{{4}}{_YYMMDD}[HMX][A-Z]{{5}}[0-9A-Z][0-9]", curp.is_valid, ()),
    # China, resident identity card
    _Id(f"[1-9][0-9]{{5}}(?:19|20)[0-9]{{2}}{_MONTH}{_DAY}[0-9]{{3}}[0-9Xx]", _is_ric, ()),
    # Brazil, CPF
    _Id(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", cpf.is_valid, ()),
    # Belgium, national number
    _Id(rf"[0-9]{{2}}\.{_MONTH}\.{_DAY}-[0-9]{{3}}\.[0-9]{{2}}", nn.is_valid, ()),
    # France, numéro de sécurité sociale
    _Id(
        f"[12] [0-9]{{2}} {_MONTH} [0-9][0-9AB] [0-9]{{3}} [0-9]{{3}} [0-9]{{2}}", nir.is_valid, ()
    ),
    # Switzerland, AHV number
    _Id(r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", ahv.is_valid, ()),
)

_NAMED = (
    _Id(r"[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}", ar_dni.is_valid, ("documento nacional de identidad",)),
    _Id(f"[0-9]{{4}} ?{_DDMMYY}", vnr.is_valid, ("sozialversicherungsnummer", "svnr", "sv nummer")),
    _Id("[0-9]{3} ?[0-9]{3} ?[0-9]{2,3}", tfn.is_valid, ("tfn", "tax file number")),
    _Id(
        rf"[0-9]{{2}}{_S}[0-9]{{2}}{_S}[0-9]{{2}}{_S}[0-9]{{3}}{_S}[0-9]{{2}}",
        nn.is_valid,
        ("rijksregisternummer", "numéro national", "numéro de registre national", "nrn", "insz"),
    ),
    _Id("[0-9]{10}", egn.is_valid, ("егн", "egn")),
    _Id("[0-9]{11}", cpf.is_valid, ("cpf",)),
    _Id(
        "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}",
        sin.is_valid,
        (
            "social insurance number",
            "social insurance",
            "sin number",
            "sin no",
            "numéro d'assurance sociale",
        ),
    ),
    _Id("756[0-9]{10}", ahv.is_valid, ("ahv", "avs", "ahv nummer", "numéro avs")),
    _Id(
        r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}-?[0-9Kk]",
        rut.is_valid,
        ("rut", "rol único nacional", "rol unico nacional"),
    ),
    _Id("[0-9]{6}/?[0-9]{3,4}", rc.is_valid, ("rodné číslo", "rodne cislo")),
    _Id(
        "[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
        idnr.is_valid,
        ("steuer id", "steueridentifikationsnummer", "steuerliche identifikationsnummer", "idnr"),
    ),
    _Id(f"{_DDMMYY}[ -]?[0-9]{{4}}", cpr.is_valid, ("cpr", "cpr nummer", "cpr nr", "personnummer")),
    _Id("[1-6][0-9]{10}", ik.is_valid, ("isikukood", "asmens kodas")),
    _Id(
        "[0-9]{8}[ -]?[A-Za-z]|[XYZxyz][ -]?[0-9]{7}[ -]?[A-Za-z]",
        nif.is_valid,
        ("dni", "nie", "nif", "documento nacional de identidad"),
    ),
    _Id(
        f"{_DDMMYY}[-+A-FU-Ya-fu-y][0-9]{{3}}[0-9A-Za-z]",
        hetu.is_valid,
        ("hetu", "henkilötunnus", "personbeteckning"),
    ),
    _Id(
        f"[12] ?[0-9]{{2}} ?{_MONTH} ?[0-9][0-9ABab] ?[0-9]{{3}} ?[0-9]{{3}} ?[0-9]{{2}}",
        nir.is_valid,
        ("numéro de sécurité sociale", "sécurité sociale", "securite sociale", "nir", "insee"),
    ),
    _Id("[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", nhs.is_valid, ("nhs", "nhs number", "nhs no")),
    # Without check digits: the letters that HMRC gives.
    _Id(
        "[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z][A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z]"
        "(?: ?[0-9]{2}){3} ?[A-Da-d]",
        None,
        ("nino", "national insurance", "national insurance number", "ni number"),
    ),
    _Id(f"{_DDMMYY}[0-9]{{5}}", amka.is_valid, ("αμκα", "amka")),
    _Id("[0-9]{11}", oib.is_valid, ("oib",)),
    _Id("[0-9]{7}[A-Wa-w][A-IWa-iw]?", pps.is_valid, ("pps", "ppsn", "pps number")),
    _Id("[0-9]{9}", teudat_zehut.is_valid, ("תעודת זהות", "teudat zehut", "israeli id")),
    _Id("[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}", aadhaar.is_valid, ("aadhaar", "aadhar", "आधार")),
    _Id(
        "[A-Za-z]{3}[ABCFGHLJPTKabcfghljptk][A-Za-z][0-9]{4}[A-Za-z]",
        pan.is_valid,
        ("pan", "pan card", "pan number", "permanent account number"),
    ),
    _Id(f"{_DDMMYY}-?[0-9]{{4}}", kennitala.is_valid, ("kennitala",)),
    _Id(
        "[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}",
        my_number.is_valid,
        ("my number", "マイナンバー", "個人番号", "individual number"),
    ),
    _Id(
        # Without check digits since October 2020.
        f"{_YYMMDD}-?[1-8][0-9]{{6}}",
        None,
        ("주민등록번호", "rrn", "resident registration number"),
    ),
    _Id("[0-9]{6}-?[0-9]{5}", pvn.is_valid, ("personas kods",)),
    _Id(f"{_DAY}{_MONTH}[09][0-9]{{8}}", emso.is_valid, ("emšo", "emso", "jmbg", "јмбг")),
    _Id("[0-9]{10}", rntrc.is_valid, ("рнокпп", "rntrc", "іпн")),
    _Id("[0-9]{9}", bsn.is_valid, ("bsn", "burgerservicenummer", "sofinummer")),
    _Id(
        f"{_DDMMYY} ?[0-9]{{5}}", fodselsnummer.is_valid, ("fødselsnummer", "fodselsnummer", "fnr")
    ),
    _Id("[0-9]{11}", pesel.is_valid, ("pesel",)),
    _Id("[0-9]{8} ?[0-9] ?[0-9A-Za-z]{2}[0-9]", cc.is_valid, ("cartão de cidadão",)),
    _Id("[1-9][0-9]{2} ?[0-9]{3} ?[0-9]{3}", pt_nif.is_valid, ("nif", "contribuinte")),
    _Id("[1-9][0-9]{12}", cnp.is_valid, ("cnp", "cod numeric personal")),
    _Id(
        f"(?:19|20)?{_YYMMDD}[-+]?[0-9]{{4}}",
        personnummer.is_valid,
        ("personnummer", "personnr", "samordningsnummer"),
    ),
    # Without a check digit that is published.
    _Id("[STFGMstfgm][0-9]{7}[A-Za-z]", None, ("nric", "fin", "nric number")),
    _Id(
        "[1-8]-?[0-9]{4}-?[0-9]{5}-?[0-9]{2}-?[0-9]",
        pin.is_valid,
        ("เลขประจำตัวประชาชน", "thai id", "national id"),
    ),
    _Id("[1-9][0-9]{10}", tckimlik.is_valid, ("kimlik", "tc kimlik", "kimlik no", "tckn")),
    _Id("9[0-9]{2}-?[0-9]{2}-?[0-9]{4}", itin.is_valid, ("itin", "taxpayer identification")),
    _Id(f"{_YYMMDD}[0-9]{{7}}", za_id.is_valid, ("south african id", "id number")),
)

_WORDS = tuple(dict.fromkeys(word for number in _NAMED for word in number.words))
_PASSPORT_WORDS = (
    *("passport", "passport no", "passport number", "passeport", "reisepass", "reisepassnummer"),
    *("pasaporte", "passaporto", "passaporte", "paspoort", "paszport", "паспорт"),
)
# ICAO Doc 9303: nine characters, and fewer in some countries.
_PASSPORT = (
    "[A-Za-z]{1,2}[0-9]{6,8}[A-Za-z]?|[0-9]{2}[A-Za-z]{2}[0-9]{5}|[0-9]{8,9}"
    "|[0-9]{2} [0-9]{2} [0-9]{6}"
    "|[CFGHJKLMNPRTVWXYZ][0-9][0-9CFGHJKLMNPRTVWXYZ]{7}"
)


def _cached(check: Callable[[str], bool]) -> Callable[[str], bool]:
    # A check takes 5 to 15 µs, and what only looks like a number comes again and again.
    return lru_cache(maxsize=256)(never_raising(check))


_ANY_FORM = "|".join(
    sorted(dict.fromkeys(number.pattern for number in _NAMED), key=len, reverse=True)
)
# In the names of fields these say too little, as a number of any country counts there.
_KEY_WORDS = tuple(
    word
    for word in _WORDS
    if word not in {"fin", "id number", "individual number", "my number", "nir", "pan", "pps"}
)
_CHECKED = {number: _cached(number.check) for number in _NAMED if number.check}
_WORD = re.compile(
    "|".join(re.sub("[ .]", r"[ _.\-]?", word) for word in sorted(_WORDS, key=len, reverse=True)),
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[ _.\-]")


def _folded(word: str) -> str:
    return _SEPARATORS.sub("", word).lower()


# Behind each word, the numbers that it may be.
_BY_WORD = {_folded(word): [number for number in _NAMED if word in number.words] for word in _WORDS}


@cache
def _behind_a_word(number: _Id) -> re.Pattern[str]:
    return re.compile(rf"[^0-9\n]*?\b({number.pattern})(?={_BEHIND})", re.ASCII)


def _is(number: _Id, text: str) -> bool:
    return number.check is None or _CHECKED[number](text)


def _is_any(text: str) -> bool:
    return any(_is(number, text) for number in _NAMED)


@lru_cache(maxsize=256)
def _narrow_behind_its_name(text: str) -> Span | None:
    """Find which of the numbers it is that go by the word which the text begins with."""
    word = _WORD.match(text, int(not text[0].isalpha()))
    if word is None:
        return None
    for number in _BY_WORD[_folded(word[0])]:
        found = _behind_a_word(number).match(text, word.end())
        if found and _is(number, found[1]):
            return found.span(1)
    return None


def _shapes() -> tuple[Shape, ...]:
    alone = tuple(
        Shape(
            pattern=f"{_BEFORE}(?P<value>{number.pattern}){_BEHIND}",
            narrow=whole(_cached(number.check)) if number.check else None,
        )
        for number in _ALONE
    )
    # One shape for all, since each costs a pass over the text. It has no group, so that the word is
    # seen that says which number it may be.
    named = Shape(
        pattern=behind_word(_WORDS, _ANY_FORM).replace("(?P<value>", "(?:") + _BEHIND,
        narrow=_narrow_behind_its_name,
    )
    at_a_key = Shape(
        pattern=rf"^\s*(?P<value>{_ANY_FORM})\s*$", narrow=whole(_is_any), near=_KEY_WORDS
    )
    return (*alone, named, at_a_key)


DETECTORS = (
    Detector(name="national-id", shapes=_shapes(), spares_uuids=True),
    Detector(
        name="passport",
        shapes=(
            Shape(pattern=behind_word(_PASSPORT_WORDS, _PASSPORT) + _BEHIND),
            Shape(pattern=rf"^\s*(?P<value>{_PASSPORT})\s*$", near=_PASSPORT_WORDS),
        ),
    ),
)
