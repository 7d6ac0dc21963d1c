"""The first look on texts and sets of patterns that are hard for it."""

import time

import pytest

from sidecar.redaction.first_look import FirstLook, Places, Sought

Looked = tuple[Places, Places, set[int]]


def look(text: str, *patterns: str, family: str = "") -> Looked:
    return FirstLook([Sought(pattern, True, family) for pattern in patterns])(text, text.encode())


def begins(looked: Looked, index: int = 0) -> set[int]:
    return {start for start, _ in looked[0].get(index, ())}


def test_without_patterns_nothing_is_named() -> None:
    assert look("any text") == ({}, {}, set())
    assert look("") == ({}, {}, set())


def test_a_pattern_is_named_where_its_literal_stands() -> None:
    assert look("a secret, no Secret", "secret")[0] == {0: [(2, 8)]}
    assert begins(look("a secret, no Secret", "(?i)secret")) == {2, 13}
    assert look("nothing", "secret", r"\w+@\w+") == ({}, {}, set())


def test_a_pattern_that_contains_a_literal_is_named_for_its_line() -> None:
    places, lines, everywhere = look("one\ntwo@three", r"\w+@\w+")
    assert (places, lines, everywhere) == ({}, {0: [(7, 8)]}, set())


def test_patterns_without_a_literal_are_searched_for_everywhere() -> None:
    assert look("nothing", r"\d{3}", "[a-z]+") == ({}, {}, {0, 1})


def test_a_family_is_named_where_any_of_it_matches() -> None:
    looked = look("at 123 and 4567", r"\d{3}", "[A-Z]{3}", family="some")
    assert looked[2] == set()
    assert {3, 11} <= begins(looked, 0) == begins(looked, 1)
    assert look("nothing", r"\d{3}", "[A-Z]{3}", family="some") == ({}, {}, set())


def test_patterns_that_look_at_whole_values_are_searched_for_everywhere() -> None:
    text = "begin\nend"
    found = FirstLook([Sought("(?s)begin.end", False), Sought(r"(?s)\d.\d", False, "some")])(
        text, text.encode()
    )
    assert found[2] >= {0, 1}


def test_literals_that_begin_alike_or_hold_each_other_are_all_named() -> None:
    looked = look("the secrets", "secret", "secrets", "sec", "ret", "secretly", "(?i)SECRET")
    assert [begins(looked, index) for index in range(6)] == [{4}, {4}, {4}, {7}, set(), {4}]


def test_a_character_before_the_literal_may_take_more_than_a_byte() -> None:
    for character in ("-", "é", "中", "\U0001f600"):
        assert 1 in begins(look(f"x{character}secret", ".secret")), character


def test_what_stands_around_a_literal_counts() -> None:
    assert begins(look("secret secrets asecret", r"\bsecret\b")) == {0}
    assert begins(look("secret=1 secret-2", "secret=")) == {0}
    assert begins(look("é secret", "^secret")) == set()
    assert begins(look("é\nsecret", "^secret")) == {3}


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("\u212aelvin", 0),
        ("KELVIN", 0),
        ("\u0130\u0130 kelvin", 5),
        ("\u023a kelvin", 3),
        ("É kelvin", 3),
    ],
)
def test_case_may_change_the_length_of_what_stands_before(text: str, begin: int) -> None:
    looked = look(text, "(?i)kelvin")
    assert begin in begins(looked) or 0 in looked[2]


def test_in_a_dense_text_a_pattern_is_searched_for_everywhere() -> None:
    for pattern in ("secret", r"\w+@secret"):
        assert look("@secret " * 5000, pattern) == ({}, {}, {0})
    assert look("123 " * 5000, r"\d{3}", family="some") == ({}, {}, {0})


def test_a_dense_literal_leaves_other_patterns_their_places() -> None:
    text = "secret " * 5000 + "token"
    places, _, everywhere = look(text, "secret", "token")
    assert everywhere == {0}
    assert places == {1: [(35000, 35005)]}


@pytest.mark.parametrize(
    "unit",
    ["secret ", "a@b ", "123-", "s", "sec", "é", "\u212aelvin ", "secret\n", "secretsecrets"],
)
def test_time_grows_with_the_text_not_with_its_square(unit: str) -> None:
    found = FirstLook(
        [
            Sought("secret"),
            Sought("(?i)secret"),
            Sought("secrets"),
            Sought(r"\w+@\w+"),
            Sought(r"\d{3}-", True, "some"),
            Sought("(?i)kelvin"),
            Sought(".secret"),
        ]
    )

    def seconds(text: str) -> float:
        data = text.encode()
        started = time.process_time()
        found(text, data)
        return time.process_time() - started

    # Sixteen times the text may take sixteen times as long, and with noise five times that.
    shorter = min(seconds(unit * 4_000) for _ in range(5))
    longer = min(seconds(unit * 64_000) for _ in range(3))
    assert longer < 80 * max(shorter, 0.001)
