"""What goes on of the target and the headers of a message."""

import re
from urllib.parse import quote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.headers import CREDENTIALS
from sidecar.proxy.heads import redact_headers, redact_target
from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from tests.proxy.rules import HTTP
from tests.redaction.test_engine import engine
from tests.redaction.test_properties import PLANTED, WITHIN, holds

Headers = list[tuple[bytes, bytes]]


def target(path: bytes, query: bytes = b"", redactor: Redactor = HTTP) -> tuple[bytes, bytes]:
    return redact_target(path, query, redactor, Report())


def headers(*pairs: tuple[bytes, bytes], redactor: Redactor = HTTP) -> Headers:
    return redact_headers(list(pairs), redactor, Report())


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (b"/", b""),
        (b"", b"x"),
        (b"/api/4505123456789/envelope/", b"sentry_key=0123456789abcdef0123456789abcdef"),
        (b"/a%20b/%7E;v=1/@x//%zz/%FF/", b"page=2&q=%7e+b&&a"),
        (b"/v1/chat/completions", b"api-version=2024-10-21"),
    ],
)
def test_a_target_without_a_finding_keeps_its_bytes(path: bytes, query: bytes) -> None:
    shown = target(path, query)
    assert shown[0] is path
    assert shown[1] is query


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/users/alice@example.com/x%20y", b"/users/%5BREDACTED_EMAIL%5D/x%20y"),
        (b"/users/alice%40example.com", b"/users/%5BREDACTED_EMAIL%5D"),
        (b"/a/to:alice%2540example.com;v=1", b"/a/to:%255BREDACTED_EMAIL%255D;v=1"),
        (b"/q/a%20%2F%20alice@example.com", b"/q/a%20%2F%20%5BREDACTED_EMAIL%5D"),
        (b"/cards/4111111111111111/", b"/cards/%5BREDACTED_CARD%5D/"),
        (b"/%FF@/%FF%20alice@example.com", b"/%FF@/%FF%20%5BREDACTED_EMAIL%5D"),
        (b"/x/eyJlbWFpbCI6ImFsaWNlQGV4YW1wbGUuY29tIn0=", b"/x/eyJlbWFpbCI6IltSRURBQ1RFRF0ifQ=="),
    ],
)
def test_segments_of_a_path_are_redacted_as_text(path: bytes, expected: bytes) -> None:
    assert target(path)[0] == expected
    assert target(expected)[0] == expected


def test_a_query_is_redacted_as_a_form() -> None:
    query = b"token=x&page=2&email=a@b&q=alice%40example.com"
    assert target(b"/", query) == (
        b"/",
        b"token=%5BREDACTED%5D&page=2&email=%5BREDACTED%5D&q=%5BREDACTED_EMAIL%5D",
    )


def test_a_route_can_keep_paths_and_parameters() -> None:
    kept = HTTP.exempting(["url.path", "token"])
    path, query = b"/cards/4111111111111111", b"token=x&email=y"
    assert target(path, query, kept) == (path, b"token=x&email=%5BREDACTED%5D")


def test_what_an_upstream_needs_passes() -> None:
    pairs = [(name, b"Bearer alice@example.com") for name in sorted(CREDENTIALS)]
    pairs += [
        (b"host", b"203.0.113.77:80"),
        (b"content-type", b'multipart/form-data; boundary="4111111111111111"'),
        (b"content-length", b"4111111111111111"),
        (b"accept", b"text/html;q=0.9"),
        (b"accept-language", b"de"),
        (b"if-none-match", b'"4111111111111111"'),
        (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0"),
        (b"x-langfuse-public-key", b"pk-lf-1234abcd-1234-1234-1234-123456789abc"),
        (b"x-odd", b"\xe9\xff"),
        (b"cache-control", b"no-cache"),
    ]
    shown = headers(*pairs)
    assert shown == pairs
    assert all(one[1] is other[1] for one, other in zip(shown, pairs, strict=True))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"cookie", b"sid=1; theme=dark", b"[REDACTED]"),
        (b"x-user-email", b"alice@example.com", b"[REDACTED]"),
        (b"x-note", b"mail alice@example.com", b"mail [REDACTED_EMAIL]"),
        (b"x-note", b"mail alice%40example.com", b"mail %5BREDACTED_EMAIL%5D"),
        (b"x-note", b"\xe9 alice@example.com", b"\xe9 [REDACTED_EMAIL]"),
        (b"x-note", "é alice@example.com".encode(), "é [REDACTED_EMAIL]".encode()),
        (b"x-forwarded-for", b"203.0.113.77", b"[REDACTED]"),
        (b"x-data", b'{"password": "x"}', b'{"password": "[REDACTED]"}'),
        (b"content-disposition", b'filename="alice@example.com"', b'filename="[REDACTED_EMAIL]"'),
        (
            b"location",
            b"/users/a@example.com?page=2&q=b@example.com",
            b"/users/%5BREDACTED_EMAIL%5D?page=2&q=%5BREDACTED_EMAIL%5D",
        ),
        (b"location", b"https://h.example/a?page=2", b"https://h.example/a?page=2"),
    ],
)
def test_other_headers_go_through_the_rules(name: bytes, value: bytes, expected: bytes) -> None:
    assert headers((name, value)) == [(name, expected)]
    assert headers((name, expected)) == [(name, expected)]


def test_a_referer_keeps_no_value_of_a_query() -> None:
    ((_, shown),) = headers((b"referer", b"https://h.example/find?text=my%20name&page=2"))
    assert shown == b"https://h.example/find?text=%5BREDACTED%5D&page=%5BREDACTED%5D"


def test_a_route_can_keep_headers() -> None:
    cookie = (b"cookie", b"sid=1")
    assert headers(cookie, redactor=HTTP.exempting(["cookie"])) == [cookie]


def test_headers_whose_names_tell_something_do_not_pass() -> None:
    assert headers((b"x-4111111111111111", b"1"), (b"x-a", b"1")) == [(b"x-a", b"1")]


def test_only_headers_that_are_allowed_stay_beside_those_that_are_needed() -> None:
    redactor = engine({"find": "email"}, allow=("x_note",)).redactor("http")
    pairs = [
        (b"host", b"h"),
        (b"x-note", b"a@example.com"),
        (b"x-mood", b"good"),
        (b"api-key", b"k"),
    ]
    assert headers(*pairs, redactor=redactor) == [
        (b"host", b"h"),
        (b"x-note", b"[REDACTED_R0]"),
        (b"api-key", b"k"),
    ]


def test_a_rule_that_drops_takes_the_header_or_the_message() -> None:
    drops = engine({"keys": ["x_note"], "action": {"drop": {}}}).redactor("http")
    assert headers((b"x-note", b"1"), (b"x-a", b"2"), redactor=drops) == [(b"x-a", b"2")]
    stops = engine({"pattern": "board", "action": {"drop_record": {}}}).redactor("http")
    with pytest.raises(DropRecordError):
        headers((b"x-note", b"board"), redactor=stops)
    with pytest.raises(DropRecordError):
        target(b"/board", redactor=stops)


def test_when_sees_the_other_headers() -> None:
    rule = {"keys": ["x-q"], "when": {"x-kind": "secret"}}
    redactor = engine(rule).redactor("http")
    pair = (b"x-q", b"1")
    assert headers((b"x-kind", b"secret"), pair, redactor=redactor)[1] == (b"x-q", b"[REDACTED_R0]")
    assert headers((b"x-kind", b"open"), pair, redactor=redactor)[1] == pair


def test_no_value_gets_a_line_end() -> None:
    rule = {"pattern": "secret", "action": {"replace": {"with": "one\r\nx: y\0\u20ac"}}}
    redactor = engine(rule).redactor("http")
    assert headers((b"x-a", b"a secret"), redactor=redactor) == [
        (b"x-a", b"a one%0D%0Ax: y%00\xe2\x82\xac")
    ]
    assert headers((b"x-a", b"\xe9 secret"), redactor=redactor) == [
        (b"x-a", b"\xe9 one%0D%0Ax: y%00?")
    ]


def test_what_rules_cannot_come_to_an_end_on_does_not_pass() -> None:
    redactor = engine({"pattern": "a", "action": {"replace": {"with": "aa"}}}).redactor("http")
    with pytest.raises(UncheckedError):
        target(b"/a", redactor=redactor)
    with pytest.raises(UncheckedError):
        headers((b"x-a", b"a"), redactor=redactor)


_PLANTED = st.builds(
    lambda value, encode: encode(value),
    st.sampled_from(PLANTED),
    st.sampled_from([*WITHIN.values()]),
)
_WORD = st.text(st.characters(blacklist_categories=["Cs"]), max_size=10)


@given(st.lists(_WORD | _PLANTED, max_size=4), st.lists(st.tuples(_WORD, _PLANTED), max_size=3))
def test_nothing_planted_comes_out_of_a_target(
    segments: list[str], pairs: list[tuple[str, str]]
) -> None:
    path = "/".join(["", *(quote(segment, safe="@:+") for segment in segments)]).encode()
    query = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in pairs).encode()
    shown = target(path, query)
    assert target(*shown) == shown
    assert re.fullmatch(rb"[!$%&'()*+,;=:@/\w.~-]*", shown[0])
    assert shown[0].count(b"/") == path.count(b"/")
    parts = [*shown[0].decode().split("/"), *shown[1].decode().split("&")]
    for part in parts:
        text = unquote_plus(part.partition("=")[2] or part)
        assert not any(holds(text, value) for value in PLANTED), part


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-a", b"cookie", b"referer"]),
            st.binary(max_size=30) | _PLANTED.map(str.encode),
        )
    )
)
def test_nothing_planted_comes_out_of_headers(pairs: Headers) -> None:
    shown = headers(*pairs)
    assert headers(*shown) == shown
    for (_, before), (_, after) in zip(pairs, shown, strict=True):
        assert after == before or not re.search(rb"[\r\n\0]", after)
        assert not any(holds(after.decode("latin-1"), value) for value in PLANTED), after
        assert not any(holds(after.decode(errors="replace"), value) for value in PLANTED), after
