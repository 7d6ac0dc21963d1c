import json
from typing import Any

import pytest
from hypothesis import given

from sidecar.cache.http_keys import (
    CREDENTIALS,
    invalidated,
    json_value,
    key_of,
    placed,
    variant_key,
)
from sidecar.cache.stored import Stored, Varies
from sidecar.http.headers import HeaderList
from tests.cache.http import NOW, h, stored
from tests.cache.test_keys import JSON, reversed_members, same

URL = "https://model.example/v1/models"


def key(
    url: str = URL,
    request: HeaderList | None = None,
    *,
    method: str = "GET",
    route: str = "r",
    shared: bool = False,
    body: bytes = b"",
) -> str | None:
    return key_of(route, method, url, request or [], shared=shared, body=body)


def test_a_key_is_the_same_in_every_version() -> None:
    # Pods of different versions share one Redis.
    # sha256sum of
    # '["r",["https","model.example",443,"/v1/models"],[["authorization","Bearer x"]]]'
    digest = "3364746dbc8b904eec3ee96dcf6a4d6a287665d3600a55320388b6a2727745f5"
    assert key(request=h(authorization="Bearer x")) == f"http:r:GET:{digest}"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "QUERY"])
def test_other_methods_have_no_key(method: str) -> None:
    assert key(method=method) is None


def test_head_has_the_key_of_get() -> None:
    assert key(method="HEAD") == key() != key(method="POST", body=b"null")


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://Model.example/v1/models",
        "https://model.example:443/v1/models",
        "https://model.example/v1/models#part",
    ],
)
def test_a_url_has_one_form(url: str) -> None:
    assert key(url) == key()


def test_an_empty_path_is_the_root() -> None:
    assert key("http://u") == key("http://u/")
    assert key("http://u?a") == key("http://u/?a")


@pytest.mark.parametrize(
    "url",
    [
        "http://model.example/v1/models",
        "https://other.example/v1/models",
        "https://model.example:8443/v1/models",
        "https://model.example/V1/models",
        "https://model.example/v1/models/",
        "https://model.example/v1//models",
        "https://model.example/v1/models?",
        "https://model.example/v1/models?a=1",
        "https://model.example/v1/%6dodels",
    ],
)
def test_another_url_is_another_key(url: str) -> None:
    assert key(url) != key()


@pytest.mark.parametrize(
    "url",
    ["/v1/models", "", "https://", "https://[x/", "https://u:99999/", "https://u/\n", "mailto:x"],
)
def test_what_is_no_absolute_url_has_no_key(url: str) -> None:
    assert key(url) is None


def test_routes_share_nothing() -> None:
    assert key(route="a") != key(route="b")


@pytest.mark.parametrize("name", [name.decode() for name in CREDENTIALS])
def test_a_credential_makes_another_key_unless_shared(name: str) -> None:
    request = [(name.encode(), b"secret")]
    other = [(name.encode(), b"secret2")]
    assert len({key(), key(request=request), key(request=other), key(request=request * 2)}) == 4
    assert key(request=request, shared=True) == key(request=other, shared=True)
    assert key(request=request, shared=True) != key(request=request)


def test_a_credential_is_not_the_same_under_another_name() -> None:
    keys = {key(request=[(name, b"x")]) for name in CREDENTIALS}
    assert len(keys) == len(CREDENTIALS)


def test_other_headers_are_not_in_the_key() -> None:
    assert key(request=h(accept="a", user_agent="b", content_type="c")) == key()


def test_nothing_of_a_call_is_readable_in_its_key() -> None:
    found = key(
        "https://u/users/jane?key=jane",
        h(authorization="jane"),
        method="POST",
        body=b'{"input": "jane"}',
    )
    assert found is not None
    assert "jane" not in found
    assert len(found) == len("http:r:POST:") + 64


@given(JSON, JSON)
def test_bodies_have_one_key_if_they_are_the_same_json(left: Any, right: Any) -> None:
    keys = [key(method="POST", body=json.dumps(value).encode()) for value in (left, right)]
    assert None not in keys
    assert (keys[0] == keys[1]) == same(left, right)


@given(JSON)
def test_neither_order_nor_white_space_matters(value: Any) -> None:
    body = json.dumps(value).encode()
    other = json.dumps(reversed_members(value), indent=2).encode()
    assert key(method="POST", body=body) == key(method="POST", body=other)


@pytest.mark.parametrize(
    ("left", "right"), [(b"1", b"1.0"), (b"1", b'"1"'), (b"1", b"true"), (b"{}", b"[]")]
)
def test_bodies_that_look_alike_are_different(left: bytes, right: bytes) -> None:
    assert key(method="POST", body=left) != key(method="POST", body=right)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"a=b",
        b"{} {}",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b'{"a": 1, "a": 2}',
        b'[{"b": {"a": 1, "a": 1}}]',
        b'"\xff"',
        '"x"'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_a_body_that_is_not_one_json_value_has_no_key(body: bytes) -> None:
    assert key(method="POST", body=body) is None


@pytest.mark.parametrize("body", [b"NaN", b"-Infinity", b'{"a": 1, "a": 1}', b"{", b"\xff"])
def test_what_is_no_json_is_not_read(body: bytes) -> None:
    with pytest.raises(ValueError):
        json_value(body)


def test_a_lone_surrogate_has_a_key() -> None:
    assert key(method="POST", body=rb'"\ud800"') is not None


# Variants


PRIMARY = "http:r:GET:x"
GERMAN, ENGLISH = h(accept_language="de"), h(accept_language="en")


def response(vary: str, request: HeaderList, when: float = NOW) -> Stored:
    return stored(h("max-age=60", vary=vary), request=request, response_time=when)


def test_a_response_that_does_not_vary_is_under_the_primary_key() -> None:
    plain = stored(h("max-age=60"))
    assert placed(PRIMARY, GERMAN, plain, 60, None, 0) == [(PRIMARY, plain, 60)]


def test_a_response_that_varies_is_found_by_the_same_request_only() -> None:
    german = response("Accept-Language", GERMAN)
    (place, entry, _), (marked, varies, seconds) = placed(PRIMARY, GERMAN, german, 60, None, 0)
    assert (entry, marked, seconds) == (german, PRIMARY, 60)
    assert isinstance(varies, Varies)
    assert variant_key(PRIMARY, varies, GERMAN) == place
    assert variant_key(PRIMARY, varies, [*GERMAN, *h(accept="x")]) == place
    assert variant_key(PRIMARY, varies, ENGLISH) != place != PRIMARY


def test_variants_stand_beside_each_other() -> None:
    first = placed(PRIMARY, GERMAN, response("Accept-Language", GERMAN), 60, None, 0)
    later = response("accept-language", ENGLISH, NOW + 9)
    second = placed(PRIMARY, ENGLISH, later, 90, first[1][1], 51)
    assert second[1] == (PRIMARY, first[1][1], 90)
    assert second[0][0] != first[0][0]


def test_what_tells_of_variants_is_kept_as_long_as_the_longest() -> None:
    varies = Varies(["accept-language"], NOW)
    places = placed(PRIMARY, GERMAN, response("Accept-Language", GERMAN), 60, varies, 500)
    assert len(places) == 1
    assert places[0][2] == 60


@pytest.mark.parametrize("found", [None, Varies(["accept"], NOW), stored(h())])
def test_variants_of_before_are_not_found_when_what_tells_of_them_is_new(
    found: Stored | Varies | None,
) -> None:
    before = placed(PRIMARY, GERMAN, response("Accept-Language", GERMAN), 60, None, 0)
    english = response("Accept-Language", ENGLISH, NOW + 5)
    _, (_, varies, _) = placed(PRIMARY, ENGLISH, english, 60, found, 500)
    assert isinstance(varies, Varies)
    assert variant_key(PRIMARY, varies, GERMAN) != before[0][0]


# Invalidation (RFC 9111 section 4.4)


CALLER = h(authorization="Bearer x")


def lost(
    method: str = "POST",
    status: int = 200,
    response: HeaderList | None = None,
    *,
    shared: bool = False,
) -> list[str]:
    return invalidated("r", method, URL, CALLER, status, response or [], shared=shared)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MKCOL"])
@pytest.mark.parametrize("status", [200, 201, 204, 303])
def test_an_unsafe_call_invalidates_its_target(method: str, status: int) -> None:
    assert lost(method, status) == [key(request=CALLER)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_a_safe_call_invalidates_nothing(method: str) -> None:
    assert lost(method, 200, h(location="/v1/other")) == []


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
def test_an_error_invalidates_nothing(status: int) -> None:
    assert lost("PUT", status, h(location="/v1/other")) == []


@pytest.mark.parametrize("name", ["location", "content_location"])
@pytest.mark.parametrize(
    "reference", ["https://model.example/v1/x", "/v1/x", "x", "//MODEL.example:443/v1/x", "x#y"]
)
def test_what_is_named_is_invalidated_too(name: str, reference: str) -> None:
    other = key("https://model.example/v1/x", CALLER)
    assert lost(response=h(**{name: reference})) == [key(request=CALLER), other]


@pytest.mark.parametrize(
    "reference",
    [
        "https://other.example/v1/x",
        "http://model.example/v1/x",
        "https://model.example:8443/v1/x",
        "https://[x/",
        "mailto:x@example.org",
        "https://u:99999/",
        "\xe4",
        URL,
        "",
    ],
)
def test_other_origins_are_not_invalidated(reference: str) -> None:
    assert lost(response=h(location=reference)) == [key(request=CALLER)]


def test_what_all_share_is_invalidated_for_all() -> None:
    assert lost(shared=True) == [key(request=[], shared=True)]
