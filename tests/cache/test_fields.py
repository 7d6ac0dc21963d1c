import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.fields import (
    MAX_SECONDS,
    date_field,
    delta_seconds,
    directives,
    entity_tag,
    entity_tags,
    http_date,
    http_date_of,
    members,
)
from tests.cache.http import h

ANY_TEXT = st.text(st.characters(max_codepoint=255))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", {}),
        ("no-store", {"no-store": 0}),
        ("No-Store , MAX-AGE=5", {"no-store": 0, "max-age": 5}),
        (" ,,max-age=5,, ", {"max-age": 5}),
        ('max-age="5"', {"max-age": 5}),
        ("max-age=5, max-age=3, max-age=9", {"max-age": 3}),
        ("min-fresh=5, min-fresh=3, min-fresh=9", {"min-fresh": 9}),
        ("max-stale", {"max-stale": MAX_SECONDS}),
        ("max-stale, max-stale=7", {"max-stale": 7}),
        ("max-stale=", {"max-stale": 0}),
        ("min-fresh=x", {"min-fresh": MAX_SECONDS}),
        ("max-age=4294967296", {"max-age": MAX_SECONDS}),
        ("max-age=" + "0" * 50 + "7", {"max-age": 7}),
        ("max-age=" + "9" * 10_000, {"max-age": MAX_SECONDS}),
        ("max-age=5.0", {"max-age": 0}),
        ("max-age=+5", {"max-age": 0}),
        ("max-age=\u00b2", {"max-age": 0}),
        ("max-age='5'", {"max-age": 0}),
        ('no-cache="a, max-age=7", private', {"no-cache": 0, "private": 0}),
        (r'x="a\", no-store", private', {"x": 0, "private": 0}),
        ('x="a, no-store', {"x": 0, "a": 0, "no-store": 0}),
        ("no-store max-age=5; private", {"no-store": 0, "max-age": 5, "private": 0}),
    ],
)
def test_cache_control(value: str, found: dict[str, int]) -> None:
    assert directives(h(value)) == found


def test_all_lines_of_cache_control_count() -> None:
    lines = h(cache_control=["max-age=9", "max-age=5, private"])
    assert directives(lines) == {"max-age": 5, "private": 0}
    assert directives(h(etag="max-age=5")) == {}


@given(ANY_TEXT)
def test_no_cache_control_raises(value: str) -> None:
    assert all(0 <= seconds <= MAX_SECONDS for seconds in directives(h(value)).values())


@given(ANY_TEXT, st.sampled_from([", ", ",", ";", " "]))
def test_nothing_in_front_hides_a_directive(before: str, separator: str) -> None:
    closed = before.replace('"', "").rstrip("=")
    assert "no-store" in directives(h(f"{closed}{separator}no-store"))


@pytest.mark.parametrize("piece", ['"', '"\\', '\\"', "a=", ",", '"",', 'a="', "W/"])
def test_time_grows_with_the_length_of_a_field_alone(piece: str) -> None:
    def seconds(count: int) -> float:
        field = h(piece * count)
        text = piece * count
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            directives(field)
            members(text)
            entity_tags(text)
            best = min(best, time.perf_counter() - start)
        return best

    # 16 times the length takes 256 times as long if it grows with the square.
    assert seconds(32_000) < 80 * max(seconds(2000), 1e-5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("007", 7), ("2147483649", MAX_SECONDS), ("", None), ("-1", None), (" 1", None)],
)
def test_delta_seconds(text: str, seconds: int | None) -> None:
    assert delta_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sun, 06 nov 1994 08:49:37 gmt",
    ],
)
def test_a_date_has_three_forms(text: str) -> None:
    assert http_date(text) == 784_111_777


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37 PST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 19944 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_nothing_else_is_a_date(text: str) -> None:
    assert http_date(text) is None


def test_a_leap_second_is_a_date() -> None:
    assert http_date("Sat, 31 Dec 2016 23:59:60 GMT") == http_date("Sat, 31 Dec 2016 23:59:59 GMT")


@given(st.integers(0, 253_402_300_799))
def test_a_date_that_is_written_is_read(seconds: int) -> None:
    assert http_date(http_date_of(seconds).decode()) == seconds


@given(ANY_TEXT)
def test_no_date_raises(text: str) -> None:
    http_date(text)


def test_a_date_that_is_given_twice_is_none() -> None:
    assert date_field(h(date=[http_date_of(5).decode()] * 2), b"date") is None


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ('"a"', '"a"'),
        ('W/"a"', 'W/"a"'),
        ('""', '""'),
        (r'"a\"', r'"a\"'),
        ("a", None),
        ('w/"a"', None),
        ('"a" ', '"a"'),
        ('"a", "b"', None),
    ],
)
def test_entity_tag(value: str, tag: str | None) -> None:
    assert entity_tag(h(etag=value)) == tag


def test_a_backslash_in_an_entity_tag_escapes_nothing() -> None:
    assert entity_tags(r'"a\", W/"b,c" ,"d"') == [r'"a\"', 'W/"b,c"', '"d"']


def test_a_comma_in_quotes_ends_no_member() -> None:
    assert members('a, "b, c" , ,d') == ["a", '"b, c"', "d"]
    assert members('a, "b, c') == ['a, "b, c']
