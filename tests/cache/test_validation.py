"""Validation, a row for each rule; the section is that of RFC 9111 unless it says more."""

import pytest

from sidecar.cache.rfc9111 import Fresh, answer_headers, current_age, judge, storable
from sidecar.cache.stored import Stored
from sidecar.cache.validation import (
    conditional_headers,
    freshens,
    head_agrees,
    not_modified,
    not_modified_headers,
    updated,
)
from sidecar.http.headers import HeaderList
from tests.cache.http import DAY, NO_OPTIONS, NOW, at, h, stored

TAGGED = stored(h(etag='"v1"'))
WEAK = stored(h(etag='W/"v1"'))
DATED = stored(h(last_modified=at(-100)))
BOTH = stored(h(etag='"v1"', last_modified=at(-100)))
PLAIN = stored(h())

ASKING: list[tuple[str, HeaderList, Stored, HeaderList]] = [
    ("4.3.1", h(), TAGGED, h(if_none_match='"v1"')),
    ("4.3.1", h(), WEAK, h(if_none_match='W/"v1"')),
    ("4.3.1", h(), DATED, h(if_modified_since=at(-100))),
    ("4.3.1", h(), BOTH, h(if_none_match='"v1"', if_modified_since=at(-100))),
    ("4.3.1", h(), PLAIN, []),
    ("4.3.1", h(), stored(h(etag="v1", last_modified="then")), []),
    ("4.3.1", h(if_none_match='"v0"'), BOTH, []),
    ("4.3.1", h(if_modified_since=at(-5)), BOTH, []),
    ("RFC 9110 13.1.2", h(), stored(h(etag='"v1"'), method="POST"), []),
]


@pytest.mark.parametrize(("section", "request_", "found", "added"), ASKING)
def test_asking(section: str, request_: HeaderList, found: Stored, added: HeaderList) -> None:
    assert conditional_headers(request_, found) == added, section


# section, what is stored, the headers of the 304, whether we asked, whether it is about it
FRESHENING: list[tuple[str, Stored, HeaderList, bool, bool]] = [
    ("4.3.4", TAGGED, h(etag='"v1"'), True, True),
    ("4.3.4", TAGGED, h(etag='"v2"'), True, False),
    ("4.3.4", BOTH, h(etag='"v2"', last_modified=at(-100)), True, False),
    ("4.3.4", WEAK, h(etag='"v1"'), True, False),
    ("4.3.4", WEAK, h(etag='W/"v1"'), True, True),
    ("4.3.4", TAGGED, h(etag='W/"v1"'), True, True),
    ("4.3.4", WEAK, h(etag='W/"v2"'), True, False),
    ("4.3.4", DATED, h(etag='W/"v1"'), True, False),
    ("4.3.4", DATED, h(etag='W/"v1"', last_modified=at(-100)), True, True),
    ("4.3.4", DATED, h(last_modified=at(-100)), True, True),
    ("4.3.4", DATED, h(last_modified=at(-50)), True, False),
    ("4.3.4", BOTH, h(last_modified=at(-100)), False, True),
    ("4.3.4", PLAIN, h(), False, True),
    ("4.3.4", TAGGED, h(), False, False),
    ("4.3.4", DATED, h(), False, False),
    ("4.3.4", PLAIN, h(etag='"v1"'), False, False),
    # Of an upstream that leaves out what RFC 9110 section 15.4.5 wants in a 304
    ("4.3.3", TAGGED, h(), True, True),
]


@pytest.mark.parametrize(("section", "found", "response", "ours", "about"), FRESHENING)
def test_freshening(
    section: str, found: Stored, response: HeaderList, ours: bool, about: bool
) -> None:
    assert freshens(found, response, ours=ours) == about, section


SIZED = stored(h(etag='"v1"', content_length="4"), pieces=[b"body"])


@pytest.mark.parametrize(
    ("response", "agrees"),
    [
        (h(), True),
        (h(etag='"v1"', content_length="4"), True),
        (h(etag='"v2"'), False),
        (h(content_length="5"), False),
        (h(last_modified=at(0)), False),
    ],
)
def test_a_head_response_is_about_what_is_stored(response: HeaderList, agrees: bool) -> None:
    assert head_agrees(SIZED, response) == agrees, "4.3.5"


def test_a_304_replaces_what_it_names_and_nothing_else() -> None:
    # Section 3.2
    found = stored(
        h("max-age=5", etag='W/"1"', link=["<a>", "<b>"], x_kept="1", date=at(-5)), pieces=[b"body"]
    )
    response = h("max-age=60", link="<c>", date=at(90), x_new="2")
    after = updated(found, [], response, NOW + 90, NOW + 91)
    assert sorted(after.headers) == sorted(
        h("max-age=60", etag='W/"1"', link="<c>", x_kept="1", date=at(90), x_new="2")
    )
    assert (after.status, after.pieces) == (200, [b"body"])
    assert (after.request_time, after.response_time) == (NOW + 90, NOW + 91)


@pytest.mark.parametrize(
    "name",
    [
        *("content-length", "content-encoding", "content-type", "content-range", "set-cookie"),
        *("connection", "te", "transfer-encoding"),
    ],
)
def test_a_304_does_not_change_what_tells_of_the_body_or_is_for_one_connection(name: str) -> None:
    # Sections 3.1 and 3.2
    found = stored(h(date=at(0), content_type="text/plain"))
    response = h(date=at(0), **{name: "other"})
    assert updated(found, [], response, NOW, NOW).headers == h(
        content_type="text/plain", date=at(0)
    )


def test_the_age_of_before_does_not_outlive_a_304() -> None:
    # Section 4.2.3
    found = stored(h("max-age=60", age="50", date=at(-50), etag='"1"'))
    after = updated(found, [], h(etag='"1"'), NOW + 100, NOW + 100)
    assert current_age(after, NOW + 101) == 1
    assert judge("GET", [], after, NO_OPTIONS, NOW + 101) == Fresh(1, 59)
    assert storable([], after, NO_OPTIONS) == 60 + DAY


def test_a_304_may_end_the_storing() -> None:
    # Section 3
    found = stored(h("max-age=60", etag='"1"'))
    after = updated(found, [], h("no-store", etag='"1"'), NOW, NOW)
    assert storable([], after, NO_OPTIONS) is None


def test_a_304_may_change_what_a_response_varies_by() -> None:
    # Sections 3.2 and 4.1
    after = updated(PLAIN, h(accept="a"), h(vary="accept"), NOW, NOW)
    assert after.matches(h(accept="a"))
    assert not after.matches(h(accept="b"))


# section, headers of the request, what is stored, whether the client has it
ASKED: list[tuple[str, HeaderList, Stored, bool]] = [
    ("RFC 9110 13.1.2", h(), BOTH, False),
    ("RFC 9110 13.1.2", h(if_none_match='"v1"'), TAGGED, True),
    ("RFC 9110 13.1.2", h(if_none_match='W/"v1"'), TAGGED, True),
    ("RFC 9110 13.1.2", h(if_none_match='"v1"'), WEAK, True),
    ("RFC 9110 13.1.2", h(if_none_match='"v0", W/"v1"'), TAGGED, True),
    ("RFC 9110 13.1.2", h(if_none_match=['"v0"', '"v1"']), TAGGED, True),
    ("RFC 9110 13.1.2", h(if_none_match='"v0,"v1"'), TAGGED, False),
    ("RFC 9110 13.1.2", h(if_none_match='"v0"'), TAGGED, False),
    ("RFC 9110 13.1.2", h(if_none_match='"V1"'), TAGGED, False),
    ("RFC 9110 13.1.2", h(if_none_match="v1"), TAGGED, False),
    ("RFC 9110 13.1.2", h(if_none_match="*"), TAGGED, True),
    ("RFC 9110 13.1.2", h(if_none_match="*"), PLAIN, True),
    ("RFC 9110 13.1.2", h(if_none_match='"*"'), TAGGED, False),
    ("RFC 9110 13.1.2", h(if_none_match='"v1"'), DATED, False),
    ("RFC 9110 13.1.3", h(if_modified_since=at(-100)), DATED, True),
    ("RFC 9110 13.1.3", h(if_modified_since=at(-99)), DATED, True),
    ("RFC 9110 13.1.3", h(if_modified_since=at(-101)), DATED, False),
    ("RFC 9110 13.1.3", h(if_modified_since="then"), DATED, False),
    ("RFC 9110 13.1.3", h(if_modified_since=[at(0), at(0)]), DATED, False),
    ("4.3.2", h(if_modified_since=at(0)), PLAIN, True),
    ("4.3.2", h(if_modified_since=at(-1)), PLAIN, False),
    ("4.3.2", h(if_modified_since=at(-1)), stored(h(date=at(-5))), True),
    ("4.3.2", h(if_modified_since=at(0)), stored(h(date="x"), response_time=NOW + 1), False),
    ("RFC 9110 13.2.2", h(if_none_match='"v0"', if_modified_since=at(0)), BOTH, False),
    ("RFC 9110 13.2.2", h(if_none_match='"v1"', if_modified_since=at(-500)), BOTH, True),
    ("4.3.2", h(if_none_match="*"), stored(h(), status=404), False),
    ("4.3.2", h(if_modified_since=at(0)), stored(h(), status=301), False),
]


@pytest.mark.parametrize(("section", "request_", "found", "has_it"), ASKED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_asked(
    section: str, method: str, request_: HeaderList, found: Stored, has_it: bool
) -> None:
    assert not_modified(method, request_, found) == has_it, section


def test_a_post_is_never_answered_with_304() -> None:
    assert not not_modified("POST", h(if_none_match="*"), stored(h(), method="POST"))


def test_a_304_has_the_headers_that_update_what_the_client_has() -> None:
    # RFC 9110 section 15.4.5
    named = h(
        "max-age=60",
        content_location="/x",
        date=at(0),
        etag='"1"',
        expires=at(60),
        vary="accept",
    )
    others = h(last_modified=at(-5), content_type="text/plain", content_length="4", x="1")
    answer = answer_headers(stored(named + others), 5)
    assert not_modified_headers(answer) == [*named, *h(age="5")]


def test_a_304_without_entity_tag_tells_when_it_was_modified() -> None:
    answer = h(last_modified=at(-5), date=at(0), content_type="text/plain")
    assert not_modified_headers(answer) == h(last_modified=at(-5), date=at(0))
