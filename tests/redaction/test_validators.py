"""The checks that rules ask for by name."""

import pkgutil

import pytest
import stdnum
from hypothesis import given
from hypothesis import strategies as st

from sidecar.redaction.validators import validator


def _is_check(name: str) -> bool:
    try:
        validator(name)
    except ValueError:
        return False
    return True


CHECKSUMS = ["luhn", "verhoeff", "damm", "mod-97-10", "mod-11-10", "mod-11-2", "mod-37-2"]
NUMBERS = [
    name
    for name in (
        module.name.removeprefix("stdnum.")
        for module in pkgutil.walk_packages(stdnum.__path__, "stdnum.")
    )
    # Renamed, and says so in a warning.
    if name != "iso9362" and _is_check(name)
]
NEAR_NUMBERS = st.text("0123456789X", max_size=20) | st.text(
    "0123456789ABCKX", min_size=5, max_size=20
)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("luhn", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("verhoeff", "2363", "2364"),
        ("damm", "5724", "5725"),
        ("mod-97-10", "3214282912345698765432161182", "3214282912345698765432161183"),
        ("mod-37-36", "A12425GABC1234002M", "A12425GABC1234002N"),
        ("es.nif", "54362315-k", "54362315-l"),
        ("isbn", "978-90-245-3827-0", "978-90-245-3827-1"),
    ],
)
def test_a_check_tells_good_from_bad(name: str, good: str, bad: str) -> None:
    assert validator(name)(good)
    assert not validator(name)(bad)


@pytest.mark.parametrize("name", ["", "os", "..luhn", "es", "es.no", "numdb", "luhn.is_valid"])
def test_what_is_no_check_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown check"):
        validator(name)


def test_there_are_checks_of_many_countries() -> None:
    assert len(NUMBERS) > 200


CHECKS = {name: validator(name) for name in (*CHECKSUMS, *NUMBERS)}


@given(st.text() | NEAR_NUMBERS)
def test_no_check_raises(text: str) -> None:
    for check in CHECKS.values():
        assert check(text) in (True, False)
