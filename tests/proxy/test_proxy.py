"""What a gateway passes on and what it keeps to itself, by real sockets on both sides."""

import hashlib
from typing import Any

import httpx2
import pytest
import trio

from sidecar import metrics
from tests.proxy.conftest import Start
from tests.upstream import Behaviour, Upstream


def plain(upstream: Upstream, base: str = "", **options: Any) -> dict[str, Any]:
    """Return a route that changes nothing."""
    return {"name": "up", "upstream": f"{upstream.url}{base}", "redact": "none", **options}


async def test_a_call_goes_to_the_upstream_of_its_route(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream, "/echo"))
    response = await served.client.post("/up/a%20b?c=d&c=e", content=b"body")
    assert response.status_code == 200
    told = response.json()
    assert (told["method"], told["target"], told["body"]) == (
        "POST",
        "/echo/a%20b?c=d&c=e",
        "body",
    )


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "PURGE"]
)
async def test_any_method_passes(start: Start, upstream: Upstream, method: str) -> None:
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        assert (await wire.ask(f"{method} /proxy/up/x")).status == 200
    assert [call.method for call in upstream.requests] == [method]
    assert not upstream.requests[0].header("transfer-encoding")
    assert not upstream.requests[0].header("content-length")


async def test_what_is_no_method_is_refused(start: Start, upstream: Upstream) -> None:
    """RFC 9110 section 9.1."""
    served = await start(plain(upstream))
    async with served.connect() as wire:
        assert (await wire.ask("BREW /proxy/up/x")).status == 501
    assert not upstream.connections


TARGETS = [
    ("/proxy/up", "/echo"),
    ("/proxy/up/", "/echo/"),
    ("/proxy/up?a=b", "/echo?a=b"),
    ("/proxy/up//a//b/", "/echo//a//b/"),
    ("/proxy/up/a%2fb%2FC%20%7e", "/echo/a%2fb%2FC%20%7e"),
    ("/proxy/up/%C3%A9%ff", "/echo/%C3%A9%ff"),
    ("/proxy/up/a%00b%0d%0ax:y", "/echo/a%00b%0d%0ax:y"),
    ("/proxy/up/x?a=%2e&b=1;2&&=&a=%zz&c=+?/%", "/echo/x?a=%2e&b=1;2&&=&a=%zz&c=+?/%"),
    ("/proxy/up/x?next=../../y&u=http://e.example/", "/echo/x?next=../../y&u=http://e.example/"),
    ("/proxy/up/http://other.example/", "/echo/http://other.example/"),
    ("/proxy/up/@other.example/a:80", "/echo/@other.example/a:80"),
    ('/proxy/up/[a]|^`{}"<>', '/echo/[a]|^`{}"<>'),
    ("http://sidecar:8000/proxy/up/x?y", "/echo/x?y"),
    ("HTTPS://elsewhere.example/proxy/up/x", "/echo/x"),
]


async def test_the_target_goes_on_byte_for_byte(start: Start, upstream: Upstream) -> None:
    """Also in absolute form (RFC 9112 section 3.2.2)."""
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        for asked, _ in TARGETS:
            assert (await wire.ask(f"GET {asked}")).status == 200, asked
    assert [call.target for call in upstream.requests] == [target for _, target in TARGETS]
    hosts = {call.header("host") for call in upstream.requests}
    assert hosts == {f"127.0.0.1:{upstream.port}"}


REFUSED = [
    ("/proxy", 404),
    ("/proxy/", 404),
    ("/proxy//x", 404),
    ("/proxy/UP/x", 404),
    ("/proxy/u/x", 404),
    ("/proxy/up%2Fx", 404),
    ("/proxy/%75p/x", 404),
    ("/%70roxy/up/x", 404),
    ("/proxy%2Fup/x", 404),
    ("/proxy/%FF%00%0D%0A/x", 404),
    ("/proxy/../up/x", 404),
    ("//proxy/up/x", 404),
    ("/proxy/up;a=b/x", 404),
    ("http://h", 404),
    ("http://h/", 404),
    ("*", 400),
    ("proxy/up/x", 400),
    ("/proxy/up/..", 400),
    ("/proxy/up/a/%2e%2E/b", 400),
    ("/proxy/up/..%2fb", 400),
    ("/proxy/up/..;/b", 400),
    ("/proxy/up/.", 400),
    ("/proxy/up/x#y", 400),
]


@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
async def test_a_target_without_a_route_or_with_dots_is_refused(
    start: Start, upstream: Upstream, method: str
) -> None:
    served = await start(plain(upstream, "/echo"))
    for asked, status in REFUSED:
        async with served.connect() as wire:
            answer = await wire.ask(f"{method} {asked}", body=b"x" if method == "POST" else b"")
            assert answer.status == status, asked
    assert not upstream.connections
    assert (await served.client.get("/up/x")).status_code == 200


@pytest.mark.parametrize("line", ["CONNECT example.com:443", "CONNECT /proxy/up/x"])
async def test_a_tunnel_is_refused(start: Start, upstream: Upstream, line: str) -> None:
    served = await start(plain(upstream))
    async with served.connect() as wire:
        answer = await wire.ask(line)
    assert 400 <= answer.status < 500
    assert not upstream.connections


async def test_trace_is_refused(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream))
    async with served.connect() as wire:
        answer = await wire.ask("TRACE /proxy/up/x", "authorization: Bearer t")
        assert answer.status == 405
        assert "TRACE" not in answer.values("allow")[0]
        assert b"Bearer" not in answer.body
        assert (await wire.ask("TRACE /proxy/none/x")).status == 404
    assert not upstream.connections


async def test_headers_keep_their_order_and_repetitions(start: Start, upstream: Upstream) -> None:
    cookies = (("set-cookie", "a=1; Path=/"), ("x-a", "1"), ("set-cookie", "b=2"), ("x-a", "2, 3"))
    upstream.behaviour = Behaviour(headers=cookies)
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        answer = await wire.ask(
            "GET /proxy/up/x", "x-b: 1", "X-A: 1", "cookie: c=1", "x-b: 2", "cookie: d=\xe9"
        )
    sent = [pair for pair in upstream.requests[0].headers if pair[0] in ("x-a", "x-b", "cookie")]
    assert sent == [
        ("x-b", "1"),
        ("x-a", "1"),
        ("cookie", "c=1"),
        ("x-b", "2"),
        ("cookie", "d=\xe9"),
    ]
    assert [pair for pair in answer.headers if pair in cookies] == list(cookies)
    assert len(answer.values("date")) == 1


async def test_what_is_for_one_connection_stays_there(start: Start, upstream: Upstream) -> None:
    """RFC 9110 section 7.6.1."""
    upstream.behaviour = Behaviour(
        headers=(("connection", "x-hop, keep-alive"), ("x-hop", "1"), ("keep-alive", "timeout=9"))
    )
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        answer = await wire.ask(
            "GET /proxy/up/x",
            "connection: x-secret",
            "x-secret: 1",
            "te: trailers",
            "proxy-authorization: Basic QQ==",
            "proxy-connection: keep-alive",
        )
    sent = [name for name, _ in upstream.requests[0].headers]
    assert not {"x-secret", "te", "proxy-authorization", "proxy-connection"} & set(sent)
    assert not answer.values("x-hop")
    assert not answer.values("keep-alive")
    assert upstream.requests[0].header("via").startswith("1.1 sidecar-")
    assert answer.values("via")[-1].startswith("1.1 sidecar-")


@pytest.mark.parametrize("protocol", ["websocket", "echo", "h2c"])
async def test_no_connection_switches_protocols(
    start: Start, upstream: Upstream, protocol: str
) -> None:
    served = await start(plain(upstream))
    async with served.connect() as wire:
        # With a body, for a server may switch to HTTP/2 by itself otherwise.
        await wire.say(
            b"POST /proxy/up/upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: %b\r\n"
            b"content-length: 1\r\n\r\nx" % protocol.encode()
        )
        answer = await wire.hear("POST")
    assert answer.status == 404
    assert not upstream.requests[0].header("upgrade")
    assert "upgrade" not in upstream.requests[0].header("connection")


async def test_an_upstream_that_switches_protocols_unasked_is_a_502(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(
        raw=b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nbytes"
    )
    served = await start(plain(upstream))
    async with served.connect() as wire:
        assert (await wire.ask("POST /proxy/up/x", body=b"x")).status == 502


@pytest.mark.parametrize("forwarded", [False, True])
async def test_where_a_call_comes_from_is_told_by_choice(
    start: Start, upstream: Upstream, forwarded: bool
) -> None:
    served = await start(plain(upstream, "/echo", forwarded=forwarded))
    async with served.connect() as wire:
        await wire.ask(
            "GET /proxy/up/x",
            "x-forwarded-for: 1.2.3.4",
            "x-forwarded-port: 99",
            "forwarded: for=1.2.3.4",
            "x-real-ip: 1.2.3.4",
            host="host: pod:8000",
        )
    told = [(n, v) for n, v in upstream.requests[0].headers if "forwarded" in n or "real" in n]
    added = [
        ("x-forwarded-for", "1.2.3.4, 127.0.0.1"),
        ("x-forwarded-host", "pod:8000"),
        ("x-forwarded-proto", "http"),
    ]
    assert told == (added if forwarded else [])


async def test_a_redirect_is_handed_back(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream))
    async with served.connect() as wire:
        answer = await wire.ask("GET /proxy/up/redirect?to=http://127.0.0.1:1/away")
    assert (answer.status, answer.values("location")) == (302, ["http://127.0.0.1:1/away"])
    assert len(upstream.requests) == 1


async def test_a_call_that_comes_back_is_a_loop(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream))
    served.declare(
        {"name": "loop", "upstream": f"http://127.0.0.1:{served.port}/proxy/loop", "redact": "none"}
    )
    await served.reload()
    async with served.connect() as wire:
        assert (await wire.ask("GET /proxy/loop/x")).status == 508


async def test_max_forwards_ends_here(start: Start, upstream: Upstream) -> None:
    """RFC 9110 section 7.6.2."""
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        answer = await wire.ask("OPTIONS /proxy/up/x", "max-forwards: 0")
        assert (answer.status, answer.body) == (200, b"")
        assert "OPTIONS" in answer.values("allow")[0]
        assert (await wire.ask("OPTIONS /proxy/none/x", "max-forwards: 0")).status == 404
        assert not upstream.requests
        assert (await wire.ask("OPTIONS /proxy/up/x", "max-forwards: 1")).status == 200
    assert upstream.requests[0].header("max-forwards") == "0"


async def test_a_body_passes_whole_in_both_directions(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream))
    body = bytes(range(256)) * 4096 * 10
    response = await served.client.post("/up/upload", content=body)
    assert response.json() == {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert upstream.requests[0].header("content-length") == str(len(body))
    for query in ("", "?chunked"):
        response = await served.client.get(f"/up/bytes/{len(body)}{query}")
        assert response.content == body


async def test_a_length_is_kept_and_what_has_none_is_chunked(
    start: Start, upstream: Upstream
) -> None:
    served = await start(plain(upstream))
    async with served.connect() as wire:
        answer = await wire.ask("GET /proxy/up/bytes/10")
        assert answer.values("content-length") == ["10"]
        answer = await wire.ask("GET /proxy/up/bytes/10?chunked")
        assert answer.values("transfer-encoding") == ["chunked"]
        await wire.say(
            b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n"
            b"trailer: x-sum\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n"
        )
        answer = await wire.hear("POST")
        assert answer.body == await _told_of(b"abcde")
        await wire.ask("POST /proxy/up/upload", "content-length: 0")
    chunked, empty = upstream.requests[2:]
    assert chunked.header("transfer-encoding") == "chunked"
    assert not chunked.header("trailer")
    assert empty.header("content-length") == "0"
    assert not empty.header("transfer-encoding")


async def _told_of(body: bytes) -> bytes:
    return b'{"length":%d,"sha256":"%b"}' % (len(body), hashlib.sha256(body).hexdigest().encode())


@pytest.mark.parametrize("redact", ["none", "both"])
async def test_trailers_of_a_response_are_dropped(
    start: Start, upstream: Upstream, redact: str
) -> None:
    upstream.behaviour = Behaviour(
        headers=(("trailer", "x-sum"), ("content-type", "text/plain")),
        trailers=(("x-sum", "1"),),
        pieces=(b"some ", b"text"),
    )
    served = await start(plain(upstream, redact=redact))
    async with served.connect() as wire:
        answer = await wire.ask("GET /proxy/up/echo")
        assert answer.body == b"some text"
        assert not answer.values("trailer")
        assert (await wire.ask("GET /proxy/up/echo")).body == b"some text"


@pytest.mark.parametrize("redact", ["none", "both"])
async def test_responses_to_head_and_without_content_have_no_body(
    start: Start, upstream: Upstream, redact: str
) -> None:
    served = await start(plain(upstream, redact=redact))
    async with served.connect() as wire:
        answer = await wire.ask("HEAD /proxy/up/bytes/10")
        # A redacted one may have another length (RFC 9110 section 8.6).
        assert answer.values("content-length") == (["10"] if redact == "none" else [])
        answer = await wire.ask("GET /proxy/up/v1/models", 'if-none-match: "models-1"')
        assert (answer.status, answer.values("etag"), answer.body) == (304, ['"models-1"'], b"")
        for status in (204, 205, 304):
            length = (("content-length", "0"),) if status < 300 else ()
            upstream.answers.append(Behaviour(status=status, pieces=(), headers=length))
            answer = await wire.ask("GET /proxy/up/echo")
            assert (answer.status, answer.body) == (status, b"")
            if status == 204:
                assert not answer.values("content-length")
                assert not answer.values("transfer-encoding")
        # Nothing of one was taken for a part of the next.
        assert (await wire.ask("GET /proxy/up/slow/0")).body == b"at last"


async def test_responses_before_the_last_one_are_not_passed_on(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(informational=(100, 102, 103))
    served = await start(plain(upstream))
    async with served.connect() as wire:
        answer = await wire.ask("POST /proxy/up/upload", body=b"abc")
        assert answer.body == await _told_of(b"abc")


async def test_a_client_of_http_1_0_gets_what_it_understands(
    start: Start, upstream: Upstream
) -> None:
    served = await start(plain(upstream))
    for path, length in ((b"bytes/70000", ["70000"]), (b"bytes/70000?chunked", [])):
        async with served.connect() as wire:
            await wire.say(b"GET /proxy/up/%b HTTP/1.0\r\n\r\n" % path)
            answer = await wire.hear()
            assert (answer.status, len(answer.body)) == (200, 70000)
            assert answer.values("content-length") == length
            assert not answer.values("transfer-encoding")
    async with served.connect() as wire:
        await wire.say(b"POST /proxy/up/upload HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc")
        assert (await wire.hear("POST")).body == await _told_of(b"abc")


@pytest.mark.parametrize("redact", ["none", "request"])
async def test_a_client_that_waits_before_its_body_is_told_to_go_on(
    start: Start, upstream: Upstream, redact: str
) -> None:
    """RFC 9110 section 10.1.1."""
    served = await start(plain(upstream, redact=redact))
    async with served.connect() as wire:
        await wire.say(
            b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n"
            b"content-length: 3\r\nexpect: 100-continue\r\n\r\n"
        )
        with trio.fail_after(5):
            assert (await wire.stream.receive_some(12)) == b"HTTP/1.1 100"
        await wire.say(b"abc")
        while await wire.stream.receive_some(1) != b"\n":
            pass
        await wire.stream.receive_some(2)
        assert (await wire.hear("POST")).body == await _told_of(b"abc")
    assert not upstream.requests[0].header("expect")


@pytest.mark.parametrize(
    ("path", "status"), [("/proxy/none/x", 404), ("/proxy/up/..", 400), ("/proxy/red/x", 413)]
)
async def test_a_client_that_waits_before_its_body_is_refused_without_it(
    start: Start, upstream: Upstream, path: str, status: int
) -> None:
    served = await start(plain(upstream), plain(upstream, name="red") | {"redact": "request"})
    async with served.connect() as wire:
        await wire.say(
            b"POST %b HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n"
            b"content-type: text/plain\r\ncontent-length: 90000000\r\n\r\n" % path.encode()
        )
        answer = await wire.hear("POST")
        assert answer.status == status
        assert not wire.informational
        assert await wire.ended()


SMUGGLED = b"GET /proxy/up/smuggled HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ncontent-length: 6",
        b"content-length: 5, 6",
        b"content-length: +5",
        b"content-length: -5",
        b"content-length: 5 5",
        b"content-length: 0x5",
        b"content-length: 99999999999999999999999",
        b"transfer-encoding: chunked, gzip",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding:\x0bchunked",
        b"transfer-encoding : chunked",
        b"transfer-encoding: identity",
        b" transfer-encoding: chunked",
        b"x: y\rtransfer-encoding: chunked",
        b"x: y\x00",
        b"x\x00: y",
        b"content-length: 5\r\n folded: 1",
        b"x y: 1",
        b"host: other",
    ],
)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(
    start: Start, upstream: Upstream, head: bytes
) -> None:
    """RFC 9112 sections 2.2, 5.1, 6.1 and 6.3: or it is read in one way, and goes on so."""
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        await wire.say(b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\n%b\r\n\r\n" % head)
        answer = await wire.hear("POST")
        assert answer.status in (400, 501)
        assert await wire.ended()
    assert not upstream.connections


@pytest.mark.parametrize(
    ("request_", "bodies"),
    [
        (
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n"
            b"content-length: 3\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            [b"abcde"],
        ),
        (
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b"
            % (len(SMUGGLED), SMUGGLED),
            [SMUGGLED],
        ),
        (
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
            [SMUGGLED],
        ),
        (
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\nconnection: transfer-encoding\r\n"
            b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            [b"abcde"],
        ),
        (
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\nconnection: content-length, host\r\n"
            b"content-length: 5\r\n\r\nabcde",
            [b"abcde"],
        ),
    ],
)
@pytest.mark.parametrize("redact", ["none", "request"])
async def test_one_request_is_one_request_at_the_upstream(
    start: Start, upstream: Upstream, request_: bytes, bodies: list[bytes], redact: str
) -> None:
    """RFC 9112 section 11.2: what one reader takes for a body is no request for the other."""
    served = await start(plain(upstream, "/echo", redact=redact, unknown="pass"))
    async with served.connect() as wire:
        await wire.say(request_)
        answer = await wire.hear("POST")
        if answer.status == 400:  # it may be refused, too (section 6.1)
            bodies = []
        elif b"\r\ntransfer-encoding" not in request_ or b"content-length" not in request_:
            assert (await wire.ask("GET /proxy/up/next")).status == 200
    calls = [call for call in upstream.requests if call.target == "/echo/x"]
    assert [bytes(call.body) for call in calls] == bodies
    assert "/echo/smuggled" not in upstream.calls
    assert all(call.header("host") == f"127.0.0.1:{upstream.port}" for call in calls)


async def test_pipelined_requests_are_answered_in_order(start: Start, upstream: Upstream) -> None:
    served = await start(plain(upstream, "/echo"))
    async with served.connect() as wire:
        await wire.say(
            b"".join(b"GET /proxy/up/%d HTTP/1.1\r\nhost: h\r\n\r\n" % i for i in range(20))
        )
        for number in range(20):
            assert b"/echo/%d" % number in (await wire.hear()).body


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [("gzip, br, zstd", "gzip, deflate"), ("br", "identity"), ("identity", "identity")],
)
async def test_of_a_model_only_codings_that_can_be_read_are_asked_for(
    start: Start, upstream: Upstream, asked: str, forwarded: str
) -> None:
    served = await start(plain(upstream, observe="llm"))
    told = await served.client.get("/up/echo", headers={"accept-encoding": asked})
    assert dict(told.json()["headers"])["accept-encoding"] == forwarded


async def test_a_stream_of_a_model_that_is_withheld_is_not_its_clients_doing(
    start: Start, upstream: Upstream
) -> None:
    served = await start(
        {"name": "withheld", "upstream": upstream.url, "redact": "both", "observe": "llm"}
    )
    kind = (("content-type", "text/event-stream"),)
    upstream.answers.append(Behaviour(headers=kind, pieces=(b"data: {}\n\ndata: \xff\n\n", b"\n")))
    with pytest.raises(httpx2.RemoteProtocolError):
        await served.client.post("/withheld/v1/chat/completions", json={"model": "m"})
    labels = {"route": "withheld", "model": "m", "kind": "withheld"}
    name = "telemetry_cache_model_errors_total"
    assert metrics.REGISTRY.get_sample_value(name, labels) == 1
