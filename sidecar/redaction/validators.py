"""Checks that a rule may ask for by name: ``validate: luhn``.

Check digits are those of python-stdnum: ISO/IEC 7812 (``luhn``), ISO/IEC 7064 (``mod-97-10``,
``mod-11-10``, ``mod-11-2``, ``mod-37-2``, ``mod-37-36``), ``verhoeff``, ``damm``; and any of its
numbers by module name, such as ``es.nif`` or ``isbn``.
"""

import importlib
import re
from collections.abc import Callable

_CHECKSUMS = {
    "luhn": "luhn",
    "verhoeff": "verhoeff",
    "damm": "damm",
    "mod-97-10": "iso7064.mod_97_10",
    "mod-11-10": "iso7064.mod_11_10",
    "mod-11-2": "iso7064.mod_11_2",
    "mod-37-2": "iso7064.mod_37_2",
    "mod-37-36": "iso7064.mod_37_36",
}
_NUMBER = re.compile(r"(?:[a-z]{2,8}\.)?[a-z][a-z0-9_]{1,30}")
_BETWEEN = re.compile(r"[^0-9A-Za-z]+")


def validator(name: str) -> Callable[[str], bool]:
    """Return the check of that name; what stands between digits and letters does not count.

    Raises:
        ValueError: there is no such check; the message says which there are.
    """
    module_name = _CHECKSUMS.get(name, name)
    try:
        if name not in _CHECKSUMS and not _NUMBER.fullmatch(name):
            raise ImportError
        check = importlib.import_module(f"stdnum.{module_name}").is_valid
    except (ImportError, AttributeError):
        raise ValueError(
            f"unknown check '{name}'; there are {', '.join(_CHECKSUMS)} and the numbers of "
            "python-stdnum, such as es.nif"
        ) from None
    sound = never_raising(check)
    return lambda text: sound(_BETWEEN.sub("", text).upper())


def never_raising(check: Callable[[str], object]) -> Callable[[str], bool]:
    """Return a check of python-stdnum that says no where it would raise.

    Of what is no number at all some raise other errors than they promise: `ValueError` for a letter
    that they do not know, `KeyError` for a place of birth.
    """

    def passes(text: str) -> bool:
        try:
            return bool(check(text))
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return False

    return passes
