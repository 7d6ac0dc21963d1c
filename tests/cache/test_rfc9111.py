"""Storing and reuse, a row for each rule; the section is that of RFC 9111 unless it says more."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.http_keys import CREDENTIALS, key_of, placed, variant_key
from sidecar.cache.rfc9111 import (
    Forward,
    Fresh,
    NotCached,
    Stale,
    Verdict,
    answer_headers,
    current_age,
    judge,
    storable,
)
from sidecar.cache.stored import Stored, Varies, pack, unpack
from sidecar.http.headers import HeaderList
from sidecar.proxy.route import RouteCache
from tests.cache.http import DAY, NO_OPTIONS, NOW, at, h, stored

TTL = RouteCache(ttl=300)
SHARED = RouteCache(shared=True)
WINDOWS = RouteCache(stale_while_revalidate=20, stale_if_error=50)
ETAG = '"v1"'


def kept(
    response: HeaderList,
    *,
    request: HeaderList | None = None,
    options: RouteCache = NO_OPTIONS,
    **changed: Any,
) -> float | None:
    head = stored(response, request=request, **changed)
    return storable(request or [], head, options)


# section, what is sent and comes, for how many seconds it is kept
STORING: list[tuple[str, dict[str, Any], float | None]] = [
    # Methods that are understood
    ("3", {"response": h("max-age=60")}, 60),
    ("3", {"response": h("max-age=60"), "method": "HEAD"}, None),
    ("3", {"response": h("max-age=60"), "method": "PUT"}, None),
    ("3", {"response": h("max-age=60"), "method": "DELETE"}, None),
    ("3", {"response": h("max-age=60"), "method": "OPTIONS"}, None),
    ("3", {"response": h("max-age=60"), "method": "QUERY"}, None),
    # Statuses
    ("3", {"response": h("max-age=60"), "status": 204}, 60),
    ("3", {"response": h("max-age=60"), "status": 302}, 60),
    ("3", {"response": h("max-age=60"), "status": 404}, 60),
    ("3", {"response": h("max-age=60"), "status": 500}, None),
    ("3", {"response": h("max-age=60, public"), "status": 503}, None),
    ("3", {"response": h("max-age=60"), "status": 501}, None),
    ("3", {"response": h("max-age=60"), "status": 206}, None),
    ("3", {"response": h("max-age=60"), "status": 304}, None),
    ("RFC 9110 15.5.13", {"response": h("max-age=60"), "status": 412}, None),
    ("RFC 9110 15.5.17", {"response": h("max-age=60"), "status": 416}, None),
    ("RFC 6585 3", {"response": h("max-age=60"), "status": 428}, None),
    ("RFC 6585 4", {"response": h("max-age=60"), "status": 429}, None),
    ("RFC 6585 5", {"response": h("max-age=60"), "status": 431}, None),
    # Without freshness: by status, and only with the route's word or a validator
    ("4.2.2", {"response": h()}, None),
    ("4.2.2", {"response": h(last_modified=at(-1000))}, DAY),
    ("4.2.2", {"response": h(), "options": TTL}, 300),
    ("4.2.2", {"response": h(), "options": RouteCache(ttl=0)}, None),
    ("4.2.2", {"response": h(), "options": TTL, "status": 301}, 300),
    ("4.2.2", {"response": h(), "options": TTL, "status": 410}, 300),
    ("4.2.2", {"response": h(), "options": TTL, "status": 302}, None),
    ("4.2.2", {"response": h(), "options": TTL, "status": 403}, None),
    ("3", {"response": h("public"), "options": TTL, "status": 403}, 300),
    ("3", {"response": h(etag=ETAG)}, DAY),
    ("3", {"response": h(etag=ETAG), "status": 403}, None),
    ("4.2.1", {"response": h("max-age=60"), "options": TTL}, 60),
    # Directives of the request and of the response
    ("5.2.1.5", {"response": h("max-age=60"), "request": h("no-store")}, None),
    ("5.2.1.4", {"response": h("max-age=60"), "request": h("no-cache")}, 60),
    ("5.2.2.5", {"response": h("no-store")}, None),
    ("5.2.2.5", {"response": h("max-age=60, no-store")}, None),
    ("5.2.2.5", {"response": h('no-store="x", max-age=60')}, None),
    ("5.2.2.5", {"response": h("no-store; max-age=60")}, None),
    ("5.2.2.5", {"response": h('foo="a, max-age=60, no-store')}, None),
    ("5.2.2.5", {"response": h('foo="a, no-store", max-age=60')}, 60),
    ("5.2.2.5", {"response": [*h("max-age=60"), *h("NO-STORE")]}, None),
    ("5.2.2.5", {"response": h("no-store"), "options": TTL}, None),
    ("5.2.2.7", {"response": h("private, max-age=60")}, None),
    ("5.2.2.7", {"response": h('private="x-user", max-age=60')}, None),
    ("5.2.2.3", {"response": h("must-understand, no-store, max-age=60")}, 60),
    ("5.2.2.3", {"response": h("must-understand, no-store, max-age=60"), "status": 299}, None),
    ("5.2.2.3", {"response": h("must-understand, max-age=60"), "status": 499}, None),
    ("5.2.2.3", {"response": h("must-understand, max-age=60"), "status": 404}, 60),
    ("5.2.2.4", {"response": h("no-cache, max-age=60")}, None),
    ("5.2.2.4", {"response": h("no-cache, max-age=60", etag=ETAG)}, 60 + DAY),
    ("5.2.2.6", {"response": h("no-transform, max-age=60")}, 60),
    # Parts
    ("3.3", {"response": h("max-age=60", content_range="bytes 0-1/2")}, None),
    ("3.4", {"response": h("max-age=60"), "request": h(range="bytes=0-1")}, None),
    ("RFC 9110 13.1.1", {"response": h("max-age=60"), "request": h(if_match=ETAG)}, None),
    ("RFC 9110 13.1.4", {"response": h("max-age=60"), "request": h(if_unmodified_since="x")}, None),
    ("RFC 9110 13.1.2", {"response": h("max-age=60"), "request": h(if_none_match=ETAG)}, 60),
    # Credentials
    ("3.5", {"response": h("max-age=60"), "request": h(authorization="Bearer x")}, 60),
    (
        "3.5",
        {"response": h("max-age=60"), "request": h(authorization="x"), "options": SHARED},
        None,
    ),
    ("3.5", {"response": h("max-age=60"), "request": h(x_api_key="x"), "options": SHARED}, None),
    ("3.5", {"response": h("max-age=60"), "request": h(cookie="x"), "options": SHARED}, None),
    ("3.5", {"response": h("max-age=60"), "options": SHARED}, 60),
    *(
        ("3.5", {"response": h(said), "request": h(authorization="x"), "options": SHARED}, 60)
        for said in ("public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60")
    ),
    ("7.3", {"response": h("max-age=60", set_cookie="session=1")}, None),
    ("4.1", {"response": h("max-age=60", vary="*")}, None),
    ("4.1", {"response": h("max-age=60", vary="accept, *")}, None),
    ("4.1", {"response": h("max-age=60", vary='"accept')}, None),
    ("4.1", {"response": h("max-age=60", vary="Accept")}, 60),
    # Freshness
    ("5.2.2.10", {"response": h("max-age=60, s-maxage=90")}, 90),
    ("5.2.2.10", {"response": h("max-age=60, s-maxage=0")}, None),
    ("5.2.2.1", {"response": h("max-age=60", expires=at(500))}, 60),
    ("5.3", {"response": h(expires=at(500))}, 500),
    ("5.3", {"response": h(expires=at(500), date=at(100))}, 400),
    ("5.3", {"response": h(expires=at(-1))}, None),
    ("5.3", {"response": h(expires="0"), "options": TTL}, None),
    ("5.3", {"response": h(expires=[at(500), at(50)])}, 50),
    ("5.3", {"response": h(expires=[at(500), "x"])}, None),
    ("5.3", {"response": h(expires="Thu, 01 Jan 1970 00:00:00 GMT", etag=ETAG)}, DAY),
    ("4.2.1", {"response": h("max-age=60, max-age=30")}, 30),
    ("4.2.1", {"response": h("max-age=60, max-age=x")}, None),
    ("4.2.1", {"response": h("max-age=1.5")}, None),
    ("4.2.1", {"response": h("max-age=-1")}, None),
    ("4.2.1", {"response": h("max-age")}, None),
    ("4.2.1", {"response": h("max-age=x", expires=at(500))}, None),
    ("5.2", {"response": h('max-age="60"')}, 60),
    ("1.2.2", {"response": h("max-age=" + "9" * 5000)}, 365 * DAY),
    ("4.2.3", {"response": h("max-age=60", age="40")}, 20),
    ("4.2.3", {"response": h("max-age=60", age="60")}, None),
    ("4.2.3", {"response": h("max-age=60", date=at(-45))}, 15),
    ("4.2.3", {"response": h("max-age=60"), "request_time": NOW - 8}, 52),
    # Stale windows
    ("RFC 5861 3", {"response": h("max-age=60, stale-while-revalidate=30")}, 90),
    ("RFC 5861 4", {"response": h("max-age=60, stale-if-error=90")}, 150),
    ("RFC 5861 4", {"response": h("max-age=60, stale-if-error=9, stale-while-revalidate=7")}, 69),
    ("RFC 5861 3", {"response": h("max-age=0, stale-while-revalidate=30")}, 30),
    ("RFC 5861 3", {"response": h("max-age=10, stale-while-revalidate=30", age="15")}, 25),
    ("RFC 5861 3", {"response": h("max-age=60"), "options": WINDOWS}, 110),
    ("RFC 5861 3", {"response": h("max-age=60, stale-if-error=5"), "options": WINDOWS}, 80),
    ("RFC 5861 3", {"response": h("max-age=0"), "options": WINDOWS}, None),
    ("4.2.4", {"response": h("max-age=60, must-revalidate"), "options": WINDOWS}, 60),
    ("4.2.4", {"response": h("max-age=60, proxy-revalidate"), "options": WINDOWS}, 60),
    ("4.2.4", {"response": h("s-maxage=60, stale-while-revalidate=9"), "options": WINDOWS}, 60),
    # POST
    ("RFC 9110 9.3.3", {"response": h(), "method": "POST"}, 3600),
    ("RFC 9110 9.3.3", {"response": h(), "method": "POST", "options": TTL}, 300),
    ("RFC 9110 9.3.3", {"response": h("max-age=5"), "method": "POST", "options": TTL}, 5),
    ("RFC 9110 9.3.3", {"response": h("no-store"), "method": "POST"}, None),
    ("RFC 9110 9.3.3", {"response": h("no-cache", etag=ETAG), "method": "POST"}, 3600),
    ("RFC 9110 9.3.3", {"response": h(set_cookie="a=b"), "method": "POST"}, 3600),
    ("RFC 9110 9.3.3", {"response": h("private"), "method": "POST"}, None),
    ("RFC 9110 9.3.3", {"response": h(), "method": "POST", "status": 404}, None),
    ("3", {"response": h("stale-if-error=9"), "method": "POST", "status": 404}, None),
    ("RFC 9110 9.3.3", {"response": h(), "method": "POST", "status": 400, "options": TTL}, None),
    ("RFC 9110 9.3.3", {"response": h(etag=ETAG), "method": "POST"}, 3600),
    (
        "3.5",
        {
            "response": h(),
            "method": "POST",
            "options": SHARED,
            "request": h(authorization="Bearer x"),
        },
        3600,
    ),
    (
        "RFC 9110 13.1.2",
        {"response": h(), "method": "POST", "request": h(if_none_match=ETAG)},
        None,
    ),
]


@pytest.mark.parametrize(("section", "call", "seconds"), STORING)
def test_storing(section: str, call: dict[str, Any], seconds: float | None) -> None:
    assert kept(**call) == seconds, section


MINUTE = h("max-age=60")
VALID = h("max-age=60", etag=ETAG)

# section, headers of the request, the stored response, its age, what becomes of it
REUSE: list[tuple[str, HeaderList, HeaderList, float, Verdict]] = [
    # Freshness
    ("4.2", h(), MINUTE, 0, Fresh(0, 60)),
    ("4.2", h(), MINUTE, 59, Fresh(59, 1)),
    ("4.2", h(), MINUTE, 60, Forward("stale")),
    ("4.2", h(), VALID, 61, Forward("stale", validate=True)),
    ("4.2", h(), h(etag=ETAG), 0, Forward("stale", validate=True)),
    ("4.2.1", h(), h("max-age=9, s-maxage=60"), 10, Fresh(10, 50)),
    ("4.2.1", h(), h("s-maxage=9, max-age=60"), 10, Forward("stale")),
    ("4.2.1", h(), h("max-age=60", expires=at(-5)), 10, Fresh(10, 50)),
    ("5.3", h(), h(expires=at(60)), 10, Fresh(10, 50)),
    ("5.3", h(), h(expires="0"), 0, Forward("stale")),
    ("4.2.3", h(), h("max-age=60", age="30"), 20, Fresh(50, 10)),
    ("4.2.3", h(), h("max-age=60", age="30"), 31, Forward("stale")),
    ("4.2.3", h(), h("max-age=60", date=at(-50)), 5, Fresh(55, 5)),
    ("4.2.3", h(), h("max-age=60", date=at(1000)), 5, Fresh(5, 55)),
    ("5.2.2.8", h(), h("max-age=60, immutable"), 5, Fresh(5, 55)),
    # Directives of the response
    ("5.2.2.4", h(), h("no-cache, max-age=60", etag=ETAG), 0, Forward("stale", validate=True)),
    ("5.2.2.4", h(), h('no-cache="x", max-age=60'), 0, Forward("stale")),
    ("5.2.2.2", h(), h("max-age=60, must-revalidate"), 59, Fresh(59, 1)),
    # Directives of the request
    ("5.2.1.1", h("max-age=30"), MINUTE, 30, Fresh(30, 30)),
    ("5.2.1.1", h("max-age=30"), VALID, 31, Forward("request", validate=True)),
    ("5.2.1.1", h("max-age=0"), MINUTE, 1, Forward("request")),
    ("5.2.1.1", h("max-age=x"), MINUTE, 1, Forward("request")),
    ("5.2.1.1", h("max-age=500"), MINUTE, 61, Forward("stale")),
    ("5.2.1.1", h("max-age=500, max-age=1"), MINUTE, 2, Forward("request")),
    ("5.2.1.2", h("max-stale"), MINUTE, 5000, Fresh(5000, -4940)),
    ("5.2.1.2", h("max-stale=10"), MINUTE, 70, Fresh(70, -10)),
    ("5.2.1.2", h("max-stale=10"), VALID, 71, Forward("stale", validate=True)),
    ("5.2.1.2", h("max-stale=x"), MINUTE, 61, Forward("stale")),
    ("5.2.1.2", h("max-stale, max-stale=5"), MINUTE, 66, Forward("stale")),
    ("5.2.1.2", h("max-stale"), h("max-age=60, must-revalidate"), 61, Forward("stale")),
    ("5.2.1.2", h("max-stale"), h("max-age=60, proxy-revalidate"), 61, Forward("stale")),
    ("5.2.1.2", h("max-stale"), h("s-maxage=60"), 61, Forward("stale")),
    ("5.2.1.2", h("max-stale"), h("max-age=60, no-cache"), 1, Forward("stale")),
    ("5.2.1.2", h("max-stale, max-age=30"), MINUTE, 61, Forward("stale")),
    ("5.2.1.3", h("min-fresh=10"), MINUTE, 50, Fresh(50, 10)),
    ("5.2.1.3", h("min-fresh=10"), MINUTE, 51, Forward("request")),
    ("5.2.1.3", h("min-fresh=x"), MINUTE, 0, Forward("request")),
    ("5.2.1.3", h("min-fresh=1, min-fresh=59"), MINUTE, 2, Forward("request")),
    ("5.2.1.3", h("min-fresh=1"), h("max-age=60, stale-while-revalidate=9"), 61, Forward("stale")),
    ("5.2.1.4", h("no-cache"), VALID, 1, Forward("request", validate=True)),
    ("5.2.1.4", h("no-cache"), MINUTE, 61, Forward("stale")),
    ("5.2.1.5", h("no-store"), MINUTE, 1, Fresh(1, 59)),
    ("5.2.1.6", h("no-transform"), MINUTE, 1, Fresh(1, 59)),
    ("5.2.1.7", h("only-if-cached"), MINUTE, 1, Fresh(1, 59)),
    ("5.2.1.7", h("only-if-cached"), VALID, 61, NotCached()),
    ("5.2.1.7", h("only-if-cached, no-cache"), VALID, 1, NotCached()),
    ("5.2.1.7", h("only-if-cached, max-stale"), MINUTE, 61, Fresh(61, -1)),
    ("5.2.1.7", h("only-if-cached"), h("max-age=60, stale-if-error=9"), 61, NotCached()),
    ("5.4", h(pragma="no-cache"), MINUTE, 1, Forward("request")),
    ("5.4", h(pragma="x, No-Cache"), MINUTE, 1, Forward("request")),
    ("5.4", h("max-age=60", pragma="no-cache"), MINUTE, 1, Fresh(1, 59)),
    ("5.2", h("MAX-AGE=0"), MINUTE, 1, Forward("request")),
    ("5.2.3", h("community=UCI"), MINUTE, 1, Fresh(1, 59)),
    # Requests that the cache has no part in
    ("RFC 9110 14.2", h(range="bytes=0-1"), MINUTE, 1, Forward("bypass")),
    ("RFC 9110 13.1.1", h(if_match=ETAG), MINUTE, 1, Forward("bypass")),
    ("RFC 9110 13.1.4", h(if_unmodified_since=at(0)), MINUTE, 1, Forward("bypass")),
    ("RFC 9110 13.1.2", h(if_none_match=ETAG), MINUTE, 1, Fresh(1, 59)),
    # Stale answers
    (
        "RFC 5861 3",
        h(),
        h("max-age=60, stale-while-revalidate=9"),
        68,
        Stale(68, -8, while_revalidate=True, if_error=False),
    ),
    ("RFC 5861 3", h(), h("max-age=60, stale-while-revalidate=9"), 69, Forward("stale")),
    (
        "RFC 5861 4",
        h(),
        h("max-age=60, stale-if-error=9"),
        68,
        Stale(68, -8, while_revalidate=False, if_error=True),
    ),
    (
        "RFC 5861 4",
        h("stale-if-error=9"),
        MINUTE,
        68,
        Stale(68, -8, while_revalidate=False, if_error=True),
    ),
    (
        "RFC 5861 4",
        h("stale-if-error=900"),
        h("max-age=60, stale-if-error=5"),
        68,
        Forward("stale"),
    ),
    ("RFC 5861 4", h("no-cache"), h("max-age=60, stale-if-error=9"), 61, Forward("stale")),
    ("4.2.4", h(), h("max-age=60, stale-if-error=9, must-revalidate"), 61, Forward("stale")),
    ("4.2.4", h(), h("s-maxage=60, stale-while-revalidate=9"), 61, Forward("stale")),
    (
        "5.2.1.7",
        h("only-if-cached"),
        h("max-age=60, stale-while-revalidate=9"),
        61,
        Stale(61, -1, while_revalidate=True, if_error=False),
    ),
]


@pytest.mark.parametrize(("section", "request_", "response", "age", "verdict"), REUSE)
def test_reuse(
    section: str, request_: HeaderList, response: HeaderList, age: float, verdict: Verdict
) -> None:
    assert judge("GET", request_, stored(response), NO_OPTIONS, NOW + age) == verdict, section


# section, options of the route, the stored response, its age, what becomes of it
BY_ROUTE: list[tuple[str, RouteCache, Stored, float, Verdict]] = [
    ("4.2.2", TTL, stored(h()), 299, Fresh(299, 1)),
    ("4.2.2", TTL, stored(h()), 300, Forward("stale")),
    ("4.2.2", TTL, stored(MINUTE), 61, Forward("stale")),
    ("4.2.2", TTL, stored(h(expires="0")), 1, Forward("stale")),
    ("4.2.2", NO_OPTIONS, stored(h(last_modified=at(-1e6))), 1, Forward("stale", validate=True)),
    ("RFC 5861 3", WINDOWS, stored(MINUTE), 79, Stale(79, -19, True, True)),
    ("RFC 5861 4", WINDOWS, stored(MINUTE), 80, Stale(80, -20, False, True)),
    ("RFC 5861 4", WINDOWS, stored(MINUTE), 110, Forward("stale")),
    (
        "RFC 5861 3",
        WINDOWS,
        stored(h("max-age=60, stale-while-revalidate=0, stale-if-error=0")),
        61,
        Forward("stale"),
    ),
    ("4.2.4", WINDOWS, stored(h("max-age=60, must-revalidate")), 61, Forward("stale")),
    ("4.2.4", WINDOWS, stored(h("max-age=0")), 1, Forward("stale")),
]


@pytest.mark.parametrize(("section", "options", "found", "age", "verdict"), BY_ROUTE)
def test_reuse_as_the_route_says(
    section: str, options: RouteCache, found: Stored, age: float, verdict: Verdict
) -> None:
    assert judge("GET", [], found, options, NOW + age) == verdict, section


POSTED = stored(h(), method="POST")
FOR_JSON = stored(h("max-age=60", vary="Accept"), request=h(accept="application/json"))

# section, method, headers of the request, what is found, what becomes of it
SELECTING: list[tuple[str, str, HeaderList, Stored | Varies | None, Verdict]] = [
    ("4", "GET", h(), None, Forward("uri-miss")),
    ("4", "HEAD", h(), stored(MINUTE), Fresh(1, 59)),
    ("4", "POST", h(), POSTED, Fresh(1, 3599)),
    ("4", "GET", h(), POSTED, Forward("uri-miss")),
    ("4", "POST", h(), stored(MINUTE), Forward("uri-miss")),
    ("4", "PUT", h(), stored(MINUTE), Forward("method")),
    ("4", "DELETE", h(), None, Forward("method")),
    ("4", "OPTIONS", h(), stored(MINUTE), Forward("method")),
    ("4", "POST", h(if_none_match=ETAG), POSTED, Forward("bypass")),
    ("5.2.1.7", "GET", h("only-if-cached"), None, NotCached()),
    ("4.1", "GET", h(), Varies(["accept"], NOW), Forward("vary-miss")),
    ("4.1", "GET", h(accept="application/json"), FOR_JSON, Fresh(1, 59)),
    ("4.1", "GET", h(accept="text/html"), FOR_JSON, Forward("vary-miss")),
    ("4.1", "GET", h(), FOR_JSON, Forward("vary-miss")),
    ("4.1", "GET", h(accept=""), FOR_JSON, Forward("vary-miss")),
    ("4.1", "GET", h(accept_language="de"), stored(MINUTE), Fresh(1, 59)),
    ("4.1", "GET", h(), stored(h("max-age=60", vary="*")), Forward("vary-miss")),
    ("4.1", "GET", h(), stored(h("max-age=60", vary="accept accept")), Forward("vary-miss")),
]


@pytest.mark.parametrize(("section", "method", "request_", "found", "verdict"), SELECTING)
def test_selecting(
    section: str,
    method: str,
    request_: HeaderList,
    found: Stored | Varies | None,
    verdict: Verdict,
) -> None:
    assert judge(method, request_, found, NO_OPTIONS, NOW + 1) == verdict, section


# section, the response, what else is known, its age 10 seconds later
AGES: list[tuple[str, HeaderList, dict[str, Any], float]] = [
    ("4.2.3", h(), {}, 10),
    ("4.2.3", h(date=at(-7)), {}, 17),
    ("4.2.3", h(date=at(7)), {}, 10),
    ("4.2.3", h(date="yesterday"), {}, 10),
    ("4.2.3", h(age="5"), {}, 15),
    ("4.2.3", h(age="5"), {"request_time": NOW - 2}, 17),
    ("4.2.3", h(age="5", date=at(-20)), {"request_time": NOW - 2}, 30),
    ("4.2.3", h(age="50", date=at(-20)), {"request_time": NOW - 2}, 62),
    ("5.1", h(age="5, 90"), {}, 15),
    ("5.1", h(age=["5", "90"]), {}, 15),
    ("5.1", h(age="-5"), {}, 10),
    ("5.1", h(age="x"), {}, 10),
    ("1.2.2", h(age="9" * 5000), {}, 10 + 2**31),
]


@pytest.mark.parametrize(("section", "response", "times", "age"), AGES)
def test_age(section: str, response: HeaderList, times: dict[str, Any], age: float) -> None:
    assert current_age(stored(response, **times), NOW + 10) == age, section


def test_a_clock_that_goes_back_makes_no_answer_younger_than_it_came() -> None:
    assert current_age(stored(h(age="5")), NOW - 1000) == 5


@pytest.mark.parametrize(("age", "sent"), [(7.9, b"7"), (0, b"0"), (1e12, b"2147483648")])
def test_an_answer_has_its_age_and_no_other(age: float, sent: bytes) -> None:
    response = h("max-age=60", age="3", content_type="text/plain", date=at(0))
    expected = h("max-age=60", content_type="text/plain", date=at(0))
    assert answer_headers(stored(response), age) == [*expected, (b"age", sent)]


CONTROL = st.lists(
    st.sampled_from(
        [
            "no-store",
            "no-cache",
            "private",
            "public",
            "must-revalidate",
            "must-understand",
            "max-age=60",
            "s-maxage=60",
            "max-age=0",
            "stale-if-error=60",
            "immutable",
            "only-if-cached",
            "max-stale",
            "min-fresh=5",
            'private="x"',
            'x="',
            "=",
            ";",
            '"',
        ]
    )
    | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=12),
    max_size=6,
).map(", ".join)
NAMES = st.sampled_from(
    [
        *("age", "date", "expires", "etag", "last-modified", "vary", "set-cookie", "content-range"),
        *("range", "pragma", "cookie", "accept", "connection", "authorization", "if-none-match"),
    ]
)
VALUES = st.sampled_from(["0", "60", at(0), at(90), '"v"', 'W/"v"', "accept", "*", "x"]) | st.text(
    st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=12
)
HEADERS = st.builds(
    lambda control, lines: h(control) + [(n.encode(), v.encode("latin-1")) for n, v in lines],
    CONTROL,
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
)
OPTIONS = st.builds(
    RouteCache,
    ttl=st.none() | st.sampled_from([0.0, 60.0]),
    shared=st.booleans(),
    stale_while_revalidate=st.sampled_from([0.0, 60.0]),
    stale_if_error=st.sampled_from([0.0, 60.0]),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT"])


@given(METHODS, HEADERS, st.integers(200, 599), HEADERS, OPTIONS)
def test_what_must_never_be_stored_is_not(
    method: str, request: HeaderList, status: int, response: HeaderList, options: RouteCache
) -> None:
    head = stored(response, request=request, method=method, status=status)
    seconds = storable(request, head, options)
    assert seconds is None or 0 < seconds <= 365 * DAY
    said = [value.lower() for name, value in response if name == b"cache-control"]
    asked = [value.lower() for name, value in request if name == b"cache-control"]
    names = {name for name, _ in response}
    if (
        status >= 500
        or status == 206
        or method not in ("GET", "POST")
        or any(v.split(b", ")[0] == b"no-store" for v in asked)
        or any(v.split(b", ")[0] == b"no-store" and b"must-understand" not in v for v in said)
        or any(v.split(b", ")[0] == b"private" for v in said)
        or b"content-range" in names
        or (b"set-cookie" in names and method == "GET")
        or (b"range" in {name for name, _ in request})
    ):
        assert seconds is None


@given(METHODS, HEADERS, HEADERS, OPTIONS, st.integers(0, 10**6))
def test_nothing_is_given_that_its_freshness_and_windows_do_not_allow(
    method: str, request: HeaderList, response: HeaderList, options: RouteCache, age: float
) -> None:
    head = stored(response, request=request)
    verdict = judge(method, request, head, options, NOW + age)
    assert judge(method, request, None, options, NOW) in (
        Forward("uri-miss"),
        Forward("bypass"),
        Forward("method"),
        NotCached(),
    )
    if isinstance(verdict, Fresh):
        assert verdict.ttl > 0 or b"max-stale" in dict(request)[b"cache-control"].lower()
        assert verdict.age >= age
    if isinstance(verdict, Stale):
        assert verdict.ttl <= 0
        assert verdict.while_revalidate or verdict.if_error
        assert b"must-revalidate" not in dict(response)[b"cache-control"].split(b", ")


@given(HEADERS, st.integers(200, 599), HEADERS, OPTIONS, st.floats(0, 1e6))
def test_what_is_fresh_is_still_kept(
    request: HeaderList, status: int, response: HeaderList, options: RouteCache, age: float
) -> None:
    head = stored(response, request=request, status=status)
    seconds = storable(request, head, options)
    verdict = judge("GET", [], head, options, NOW + age)
    if seconds is not None and isinstance(verdict, Fresh | Stale):
        assert age < seconds


class Cached:
    """A cache over a dict, the way the proxy puts the rules together."""

    def __init__(self, options: RouteCache) -> None:
        self._options = options
        self._entries: dict[str, tuple[bytes, float]] = {}

    def look(self, request: HeaderList, now: float) -> tuple[Verdict, Stored | None]:
        key = self._key(request)
        found, _ = self._get(key, now)
        if isinstance(found, Varies):
            found = self._get(variant_key(key, found, request), now)[0] or found
        verdict = judge("GET", request, found, self._options, now)
        return verdict, found if isinstance(found, Stored) else None

    def keep(self, request: HeaderList, head: Stored, now: float) -> None:
        seconds = storable(request, head, self._options)
        if seconds is None:
            return
        key = self._key(request)
        for place, entry, ttl in placed(key, request, head, seconds, *self._get(key, now)):
            self._entries[place] = (pack(entry), now + ttl)

    def _key(self, request: HeaderList) -> str:
        key = key_of("r", "GET", "http://u/x", request, shared=self._options.shared)
        assert key is not None
        return key

    def _get(self, key: str, now: float) -> tuple[Stored | Varies | None, float]:
        data, end = self._entries.get(key, (b"", 0.0))
        return (unpack(data), end - now) if end > now else (None, 0.0)


CALLERS = st.lists(
    st.tuples(
        st.sampled_from([*CREDENTIALS, b"accept", b"accept-language"]),
        st.sampled_from([b"", b"a", b"b", b"a,b", b'"a,b"', b"a, b"]),
    ),
    max_size=3,
)
VARY = st.sampled_from(
    [[], h(vary="Accept"), h(vary="accept-language, accept"), h(vary="cookie"), h(vary="*")]
)


@given(
    st.lists(st.tuples(CALLERS, VARY, st.sampled_from(["max-age=5", "public, max-age=5"]))),
    st.booleans(),
)
def test_no_answer_goes_to_who_differs_in_credentials_or_in_what_it_varies_by(
    calls: list[tuple[HeaderList, HeaderList, str]], shared: bool
) -> None:
    cache = Cached(RouteCache(shared=shared, stale_while_revalidate=3))
    made: dict[bytes, tuple[HeaderList, HeaderList, str]] = {}
    for second, (request, vary, control) in enumerate(calls):
        now = NOW + second
        verdict, found = cache.look(request, now)
        if isinstance(verdict, Fresh | Stale):
            assert found is not None
            first, varied, said = made[found.pieces[0]]
            names = {name for _, value in varied for name in value.lower().split(b", ")}
            for name in names if shared else names | set(CREDENTIALS):
                assert given_in(request, name) == given_in(first, name)
            if shared and any(name in CREDENTIALS for name, _ in first):
                assert "public" in said
            continue
        body = b"%d" % second
        made[body] = (request, vary, control)
        head = stored(
            h(control) + vary,
            request=request,
            request_time=now,
            response_time=now,
            pieces=[body],
        )
        cache.keep(request, head, now)


def given_in(request: HeaderList, name: bytes) -> list[bytes]:
    """Return what has to be the same: the members, whatever the white space between them."""
    given = b",".join(value for n, value in request if n == name)
    members = given.replace(b'"a,b"', b"quoted").split(b",")
    return [member.strip() for member in members if member.strip()]
