"""What a gateway does to heads; the number of a case is its section in RFC 9110 or RFC 9112."""

from typing import Any

import pytest

from sidecar.http.asgi import join_headers
from sidecar.http.headers import end_to_end
from sidecar.http.messages import HTTPError, Request
from sidecar.proxy.forwarding import (
    body_framing,
    content_type,
    forwards_left,
    of_changed_body,
    request_headers,
    response_headers,
    target_of,
)
from sidecar.proxy.unchecked import UncheckedError

Pairs = list[tuple[bytes, bytes]]


def pairs(*lines: str) -> Pairs:
    """Return headers from lines such as ``name: value``."""
    split = (line.partition(": ") for line in lines)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, _, value in split]


def request(*lines: str, method: str = "GET", client: str = "10.0.0.7") -> Request:
    async def receive() -> bytes:
        return b""

    headers = pairs(*lines)
    return Request(
        method, "/", "", join_headers(headers), receive, raw_headers=headers, client=client
    )


def sent(*lines: str, **options: Any) -> Pairs:
    """Return what goes on of these headers, but for those that are added."""
    forwarded = options.pop("forwarded", False)
    headers = request_headers(request(*lines, **options), b"up", b"side", forwarded=forwarded)
    assert headers[0] == (b"host", b"up")
    assert headers[-1] == (b"via", b"1.1 side")
    return headers[1:-1]


GOES = [
    ("7.6.1", ["connection: close"], []),
    ("7.6.1", ["connection: keep-alive", "keep-alive: timeout=5"], []),
    ("7.6.1", ["connection: x-hop", "x-hop: 1", "x-end: 2"], ["x-end: 2"]),
    ("7.6.1", ["connection: a, B ,c", "a: 1", "b: 2", "c: 3", "d: 4"], ["d: 4"]),
    ("7.6.1", ["connection: a", "x: 0", "connection: b", "a: 1", "b: 2"], ["x: 0"]),
    ("7.6.1", ["a: 1", "connection: a", "a: 2"], []),
    ("7.6.1", ["connection: , ,", "a: 1"], ["a: 1"]),
    ("7.6.1", ["connection: via", "via: 1.1 other"], []),
    ("7.6.1", ["proxy-connection: keep-alive"], []),
    ("7.6.1", ["te: trailers, gzip;q=0.5"], []),
    ("7.6.1", ["transfer-encoding: chunked"], []),
    ("7.6.1", ["upgrade: websocket", "connection: upgrade"], []),
    ("7.8", ["upgrade: h2c", "http2-settings: AAMAAABk"], []),
    ("6.6.2", ["trailer: x-sum"], []),
    ("11.7.2", ["proxy-authorization: Basic QQ=="], []),
    ("11.6.2", ["authorization: Bearer t"], ["authorization: Bearer t"]),
    ("10.1.1", ["expect: 100-continue"], []),
    ("7.2", ["host: 127.0.0.1:8000"], []),
    ("8.6", ["content-length: 5"], []),
    ("5.3", ["a: 1", "b: 2", "a: 3"], ["a: 1", "b: 2", "a: 3"]),
    ("5.5", ["a: \xff\xe9", "b: "], ["a: \xff\xe9", "b: "]),
    ("7.6.3", ["via: 1.0 fred, 1.1 p.example"], ["via: 1.0 fred, 1.1 p.example"]),
    ("12.5.3", ["accept-encoding: br"], ["accept-encoding: br"]),
    ("14.2", ["range: bytes=0-9", "if-range: x"], ["range: bytes=0-9", "if-range: x"]),
    ("RFC 7239", ["forwarded: for=1.2.3.4"], []),
    ("RFC 7239", ["x-forwarded-for: 1.2.3.4", "x-real-ip: 1.2.3.4"], []),
    ("RFC 7239", ["x-forwarded-proto: https", "x-forwarded-host: h"], []),
    ("RFC 7239", ["x-forwarded-port: 1", "x-forwarded-prefix: /p"], []),
]


@pytest.mark.parametrize(("section", "came", "goes"), GOES)
def test_what_goes_on_of_a_requests_headers(section: str, came: list[str], goes: list[str]) -> None:
    assert sent(*came) == pairs(*goes)


RETURNS = [
    ("7.6.1", 200, ["connection: x", "x: 1", "y: 2"], ["y: 2"]),
    ("7.6.1", 200, ["keep-alive: timeout=5", "transfer-encoding: chunked"], []),
    ("7.8", 426, ["upgrade: h2c", "connection: upgrade"], []),
    ("11.7.1", 407, ["proxy-authenticate: Basic"], []),
    ("11.7.3", 200, ["proxy-authentication-info: x"], []),
    ("11.6.1", 401, ["www-authenticate: Basic"], ["www-authenticate: Basic"]),
    ("6.6.2", 200, ["trailer: x-sum"], []),
    ("5.3", 200, ["set-cookie: a", "x: 1", "set-cookie: b"],
     ["set-cookie: a", "x: 1", "set-cookie: b"]),
    ("8.6", 200, ["content-length: 5"], ["content-length: 5"]),
    ("8.6", 304, ["content-length: 5"], ["content-length: 5"]),
    ("8.6", 204, ["content-length: 0", "x: 1"], ["x: 1"]),
    ("9112 6.3", 200, ["content-length: 5", "transfer-encoding: chunked"], []),
    ("15.4", 302, ["location: http://up/x"], ["location: http://up/x"]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "status", "came", "returns"), RETURNS)
def test_what_goes_back_of_a_responses_headers(
    section: str, status: int, came: list[str], returns: list[str]
) -> None:
    assert response_headers(status, pairs(*came), b"side") == pairs(*returns, "via: 1.1 side")


@pytest.mark.parametrize(
    ("method", "came", "left", "goes"),
    [
        ("OPTIONS", "7", 7, "6"),
        ("OPTIONS", "1", 1, "0"),
        ("OPTIONS", "0", 0, None),
        ("OPTIONS", "007", 7, "6"),
        ("OPTIONS", "9" * 5000, 2**31 - 1, "2147483646"),
        ("OPTIONS", "", None, ""),
        ("OPTIONS", "-1", None, "-1"),
        ("OPTIONS", "1, 2", None, "1, 2"),
        ("OPTIONS", "\xb2", None, "\xb2"),
        ("GET", "0", None, "0"),
        ("POST", "7", None, "7"),
    ],
)
def test_max_forwards_counts_down_for_options_and_means_nothing_else(
    method: str, came: str, left: int | None, goes: str | None
) -> None:
    """RFC 9110 section 7.6.2."""
    header = f"max-forwards: {came}"
    assert forwards_left(request(header, method=method)) == left
    if goes is not None:
        assert sent(header, method=method) == pairs(f"max-forwards: {goes}")


@pytest.mark.parametrize(
    "via",
    [
        ["via: 1.1 side"],
        ["via: HTTP/1.1 side"],
        ["via: 1.0 fred,1.1 side (a comment)"],
        ["via: 1.0 fred", "via: 1.1 side"],
        ["via: 1.1 side", "connection: via"],
    ],
)
def test_a_request_that_was_here_before_is_a_loop(via: list[str]) -> None:
    """RFC 9110 section 7.6.3."""
    with pytest.raises(HTTPError) as raised:
        sent(*via)
    assert raised.value.status == 508


@pytest.mark.parametrize("via", ["1.1 sidecar", "1.1 xside", "1.1 side-2"])
def test_a_gateway_of_another_name_is_no_loop(via: str) -> None:
    assert sent(f"via: {via}") == pairs(f"via: {via}")


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        (["host: h:8000"], ["10.0.0.7", "h:8000", "http"]),
        (["host: h", "x-forwarded-for: 1.2.3.4"], ["1.2.3.4, 10.0.0.7", "h", "http"]),
        (
            ["host: h", "x-forwarded-for: a", "x-forwarded-for: b"],
            ["a, b, 10.0.0.7", "h", "http"],
        ),
        (
            ["host: h", "x-forwarded-host: outer", "x-forwarded-proto: https"],
            ["10.0.0.7", "outer", "https"],
        ),
        (["host: h", "forwarded: for=9.9.9.9"], ["10.0.0.7", "h", "http"]),
    ],
)
def test_forwarded_headers_are_added_to_those_that_came(came: list[str], goes: list[str]) -> None:
    names = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
    lines = [f"{name}: {value}" for name, value in zip(names, goes, strict=True)]
    assert sent(*came, forwarded=True) == pairs(*lines)


@pytest.mark.parametrize(
    ("section", "came", "framing"),
    [
        ("9112 6.3", [], []),
        ("9112 6.3", ["content-length: 5"], ["content-length: 5"]),
        ("9112 6.3", ["content-length: 0"], ["content-length: 0"]),
        ("9112 6.3", ["transfer-encoding: chunked"], ["transfer-encoding: chunked"]),
        (
            "9112 6.3",
            ["transfer-encoding: chunked", "content-length: 5"],
            ["transfer-encoding: chunked"],
        ),
    ],
)
def test_how_a_request_body_is_framed_anew(
    section: str, came: list[str], framing: list[str]
) -> None:
    assert body_framing(request(*came)) == pairs(*framing)


@pytest.mark.parametrize(
    ("base", "rest", "target"),
    [
        (b"", b"", b"/"),
        (b"", b"/", b"/"),
        (b"/", b"", b"/"),
        (b"/", b"/a", b"/a"),
        (b"/v1", b"", b"/v1"),
        (b"/v1", b"/", b"/v1/"),
        (b"/v1/", b"/a", b"/v1/a"),
        (b"/v1", b"//a///b", b"/v1//a///b"),
        (b"/v1", b"/a%2Fb%2f%20%41", b"/v1/a%2Fb%2f%20%41"),
        (b"/v1", b"/%", b"/v1/%"),
        (b"/v1", b"/a:b;c=d@e", b"/v1/a:b;c=d@e"),
        (b"/v1", b"/.hidden/...", b"/v1/.hidden/..."),
        (b"/v1", b"/a..b", b"/v1/a..b"),
        (b"/v1", b"/%2E%2E%2E", b"/v1/%2E%2E%2E"),
    ],
)
def test_the_path_follows_the_base_byte_for_byte(base: bytes, rest: bytes, target: bytes) -> None:
    assert target_of(base, rest) == target


@pytest.mark.parametrize(
    "rest",
    [
        b"/..",
        b"/.",
        b"/a/../b",
        b"/%2e%2E/b",
        b"/.%2e",
        b"/a%2F..%2Fb",
        b"/..\\b",
        b"/..%5Cb",
        b"/a/..;x=y/b",
        b"/..%3B/b",
        b"/..#",
        b"/a#b",
    ],
)
def test_no_path_leads_out_of_the_base(rest: bytes) -> None:
    with pytest.raises(HTTPError) as raised:
        target_of(b"/v1", rest)
    assert raised.value.status == 400


def test_digests_of_a_body_go_with_it() -> None:
    came = pairs("content-length: 5", "content-digest: x", "digest: x", "content-md5: x", "a: 1")
    assert of_changed_body([*came, *pairs("repr-digest: x")]) == pairs("a: 1")


def test_every_one_of_many_connection_options_is_honoured() -> None:
    options = ",".join(f"x{i}" for i in range(10_000))
    came = pairs(f"connection: {options}", *(f"x{i}: 1" for i in range(10_000)), "y: 1")
    assert end_to_end(came) == pairs("y: 1")


@pytest.mark.parametrize(
    ("came", "kind"),
    [
        ([], ""),
        (["content-type: a/b; c=d"], "a/b; c=d"),
        (['content-type: a/b; c="d,e"'], 'a/b; c="d,e"'),
        (["content-type: a/b", "content-type: a/b"], None),
        (["content-type: a/b, c/d"], None),
        (["content-type: a/b; c=d, e/f"], None),
    ],
)
def test_a_body_has_one_type_or_cannot_be_checked(came: list[str], kind: str | None) -> None:
    """RFC 9110 section 8.3."""
    if kind is None:
        with pytest.raises(UncheckedError):
            content_type(pairs(*came))
    else:
        assert content_type(pairs(*came)) == kind
