"""Redaction on the way: nothing personal gets through, and nothing that cannot be checked."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import msgspec
import pytest
import structlog
import trio
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from prometheus_client import generate_latest

from sidecar import metrics
from tests.process import sidecar_process
from tests.proxy.conftest import EMAIL, MAX_BODY, Served, Start
from tests.upstream import Behaviour, Call, Upstream

WHO = "alice@example.com"
SHOWN = "[REDACTED_EMAIL]"
JSON = "application/json"

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def otlp_logs() -> bytes:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.string_value = f"from {WHO}"
    return request.SerializeToString()


ENVELOPE = b'{"event_id":"1"}\n{"type":"event"}\n{"message":"%b"}\n' % WHO.encode()
BODIES: list[tuple[str, str, bytes]] = [
    ("/x", JSON, json.dumps({"a": [1, WHO]}).encode()),
    ("/x", "application/vnd.x+json; charset=utf-8", json.dumps(WHO).encode()),
    ("/x", "application/x-ndjson", b'{"a":"%b"}\n{"b":2}\n' % WHO.encode()),
    ("/x", "application/x-www-form-urlencoded", b"a=alice%40example.com&b=2"),
    ("/x", "text/plain; charset=latin-1", f"caf\xe9 {WHO}".encode("latin-1")),
    ("/x", "text/event-stream", b"data: %b\n\ndata: 2\n\n" % WHO.encode()),
    ("/v1/logs", "application/x-protobuf", otlp_logs()),
]


def route(upstream: Upstream, redact: str, **options: Any) -> dict[str, Any]:
    return {"name": "up", "upstream": f"{upstream.url}/echo", "redact": redact, **options}


async def found(served: Served) -> dict[str, int]:
    """Return how often each rule found something, of the signal of the proxy."""
    await served.proxy.idle()
    rows = served.redactions.rows()
    assert {row.signal for row in rows} <= {"http"}
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.rule] = counts.get(row.rule, 0) + row.count
    return counts


async def post(
    served: Served, body: bytes, kind: str = JSON, path: str = "/up/x", **headers: str
) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await served.client.post(
        path, content=body, headers={**({"content-type": kind} if kind else {}), **named}
    )


def plain(call: Call) -> bytes:
    """Return what the upstream reads."""
    assert call.header("content-length") == str(call.size)
    return DECODERS[call.header("content-encoding")](bytes(call.body))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("path", "kind", "body"), BODIES, ids=[kind for _, kind, _ in BODIES])
async def test_a_request_of_any_type_and_coding_goes_on_redacted(
    start: Start, upstream: Upstream, coding: str, path: str, kind: str, body: bytes
) -> None:
    served = await start(route(upstream, "request"))
    coded = {"content_encoding": coding} if coding else {}
    response = await post(served, CODINGS[coding](body), kind, f"/up{path}", **coded)
    assert response.status_code == 200
    (call,) = upstream.requests
    assert call.header("content-encoding") == coding
    assert call.header("content-type") == kind
    read = plain(call)
    assert b"alice" not in read
    assert b"REDACTED_EMAIL" in read
    assert await found(served) == {"email": 1}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("path", "kind", "body"), BODIES, ids=[kind for _, kind, _ in BODIES])
async def test_a_response_of_any_type_and_coding_comes_back_redacted(
    start: Start, upstream: Upstream, coding: str, path: str, kind: str, body: bytes
) -> None:
    if kind == "application/x-protobuf":
        kind, path = "text/plain", "/x"  # OTLP answers hold a message, and are tested as such
    headers = [("content-type", kind), ("etag", '"1"'), ("content-md5", "x")]
    if coding:
        headers.append(("content-encoding", coding))
    upstream.behaviour = Behaviour(headers=tuple(headers), pieces=(CODINGS[coding](body),))
    served = await start(route(upstream, "response"))
    response = await served.client.get(f"/up{path}", headers={"accept-encoding": "gzip, br"})
    assert response.status_code == 200
    assert b"alice" not in response.content
    assert b"REDACTED_EMAIL" in response.content
    assert response.headers["content-type"] == kind
    assert "content-md5" not in response.headers
    assert (
        "content-encoding" not in response.headers
        or response.headers["content-encoding"] == "identity"
    )
    assert upstream.requests[0].header("accept-encoding") == "identity"
    assert await found(served) == {"email": 1}


@pytest.mark.parametrize("redact", ["none", "request", "response", "both"])
async def test_each_way_is_redacted_or_is_not_touched(
    start: Start, upstream: Upstream, redact: str
) -> None:
    upstream.behaviour = Behaviour(
        headers=(("content-type", JSON), ("x-who", WHO)), pieces=(b'{"r":"%b"}' % WHO.encode(),)
    )
    served = await start(route(upstream, redact))
    response = await post(served, b'{ "q" : "%b"}' % WHO.encode(), x_who=WHO)
    (call,) = upstream.requests
    request = redact in ("request", "both")
    assert (WHO.encode() in call.body, call.header("x-who") == WHO) == (not request,) * 2
    answer = redact in ("response", "both")
    assert (WHO in response.text, response.headers["x-who"] == WHO) == (not answer,) * 2
    assert bool(await found(served)) == (redact != "none")


async def test_what_holds_nothing_personal_passes_byte_for_byte(
    start: Start, upstream: Upstream
) -> None:
    body = gzip.compress(b'{ "a" : 1.0, "b":2 }', mtime=7)
    headers = (("content-type", JSON), ("content-encoding", "gzip"), ("etag", '"1"'))
    upstream.behaviour = Behaviour(headers=headers, pieces=(body,))
    served = await start(route(upstream, "both"))
    async with served.connect() as wire:
        answer = await wire.ask(
            "POST /proxy/up/x?a=%20+&b",
            f"content-type: {JSON}",
            "content-encoding: gzip",
            "digest: kept",
            body=body,
        )
    assert answer.body == body
    assert answer.values("etag") == ['"1"']
    (call,) = upstream.requests
    assert gzip.decompress(call.body) == b'{ "a" : 1.0, "b":2 }'
    assert call.target == "/echo/x?a=%20+&b"


async def test_target_and_headers_are_redacted(start: Start, upstream: Upstream) -> None:
    rules = [EMAIL, {"id": "secret", "keys": ["user_id", "x-user"]}]
    served = await start(route(upstream, "request"), rules=rules)
    async with served.connect() as wire:
        answer = await wire.ask(
            "GET /proxy/up/u/alice%40example.com/b%2Fc?user_id=7&m=alice@example.com&x=%2b",
            "x-user: 12345",
            f"x-text: mail {WHO}",
            f"cookie: a={WHO}",
            "authorization: Bearer alice@example.com",
            f"connection: x-hop, {WHO}",
        )
    assert answer.status == 200
    (call,) = upstream.requests
    path, _, query = call.target.partition("?")
    assert path == "/echo/u/[REDACTED_EMAIL]/b%2Fc".replace("[", "%5B").replace("]", "%5D")
    assert dict(parse_qsl(query)) == {"user_id": "[REDACTED_SECRET]", "m": SHOWN, "x": "+"}
    assert call.header("x-user") == "[REDACTED_SECRET]"
    assert call.header("x-text") == f"mail {SHOWN}"
    assert call.header("authorization") == f"Bearer {WHO}"
    others = [pair for pair in call.headers if pair[0] != "authorization"]
    assert "alice" not in str(others)


async def test_what_a_route_keeps_passes(start: Start, upstream: Upstream) -> None:
    kept = {"keep": ["sender", "x-mail", "url.path"]}
    served = await start(route(upstream, "both", **kept))
    response = await post(
        served,
        json.dumps({"sender": WHO, "to": WHO}).encode(),
        path=f"/up/{WHO}?sender={WHO}&to={WHO}",
        x_mail=WHO,
    )
    (call,) = upstream.requests
    assert json.loads(call.body) == {"sender": WHO, "to": SHOWN}
    assert call.header("x-mail") == WHO
    path, _, query = call.target.partition("?")
    assert path == f"/echo/{WHO}"
    assert dict(parse_qsl(query)) == {"sender": WHO, "to": SHOWN}
    assert response.status_code == 200


UNKNOWN = [
    ("application/octet-stream", b"\x00\x01"),
    ("multipart/form-data; boundary=x", b"--x\r\n\r\nalice@example.com\r\n--x--"),
    ("", b"alice@example.com"),
    ("image/png", b"\x89PNG"),
    ("text/plain; charset=no-such", b"alice@example.com"),
]


@pytest.mark.parametrize(("kind", "body"), UNKNOWN)
@pytest.mark.parametrize(
    ("unknown", "status", "calls"), [("block", 415, 0), ("drop", 204, 0), ("pass", 200, 1)]
)
async def test_a_request_of_an_unknown_type_is_refused_dropped_or_passed(
    start: Start, upstream: Upstream, kind: str, body: bytes, unknown: str, status: int, calls: int
) -> None:
    served = await start(route(upstream, "request", unknown=unknown))
    response = await post(served, body, kind)
    assert response.status_code == status
    assert [bytes(call.body) for call in upstream.requests] == [body] * calls
    assert (response.content == b"") == (status == 204)


@pytest.mark.parametrize(("kind", "body"), UNKNOWN)
@pytest.mark.parametrize(("unknown", "status"), [("block", 502), ("drop", 200), ("pass", 200)])
async def test_a_response_of_an_unknown_type_is_withheld_emptied_or_passed(
    start: Start, upstream: Upstream, kind: str, body: bytes, unknown: str, status: int
) -> None:
    headers = (("content-type", kind), ("etag", "1")) if kind else ()
    upstream.behaviour = Behaviour(headers=headers, pieces=(body,))
    served = await start({**route(upstream, "response", unknown=unknown), "upstream": upstream.url})
    # What is echoed has a type; this has none but what is said here.
    response = await served.client.get("/up/bytes/2" if kind else "/up/upload")
    if not kind:
        return
    assert response.status_code == status
    assert response.content == (body if unknown == "pass" else response.content)
    assert (response.content == b"") == (unknown == "drop")
    if unknown != "pass":
        assert b"alice" not in response.content


MALFORMED = [
    (JSON, b'{"a": '),
    (JSON, b"alice@example.com"),
    (JSON, b'{"a": "\xff"}'),
    (JSON, b"[" * 100_000 + b"]" * 100_000),
    ("application/x-ndjson", b'{"a": 1}\n{"b\n'),
    ("text/plain", b"\xff\xfe alice"),
    ("application/vnd.x+json", b"{}{}"),
]


@pytest.mark.parametrize(("kind", "body"), MALFORMED)
async def test_what_is_not_what_its_type_says_does_not_pass(
    start: Start, upstream: Upstream, kind: str, body: bytes
) -> None:
    upstream.behaviour = Behaviour(headers=(("content-type", kind),), pieces=(body,))
    served = await start(
        route(upstream, "request", unknown="pass"),
        route(upstream, "response", name="back", unknown="pass"),
    )
    assert (await post(served, body, kind)).status_code == 400
    assert not upstream.requests
    response = await served.client.get("/back/x")
    assert response.status_code == 502
    assert b"alice" not in response.content


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b'{"a":1}')[:-6], 400),
        ("deflate", b"\xff\xff", 400),
        ("zstd", b"no", 400),
        ("br", b"x", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 415),
        ("GZIP", gzip.compress(b'{"a":1}'), 200),
    ],
)
async def test_what_cannot_be_decompressed_does_not_pass(
    start: Start, upstream: Upstream, coding: str, body: bytes, status: int
) -> None:
    served = await start(
        route(upstream, "request", unknown="pass"),
        route(upstream, "response", name="back", unknown="pass"),
    )
    response = await post(served, body, content_encoding=coding)
    assert response.status_code == status
    assert len(upstream.requests) == (status == 200)
    upstream.behaviour = Behaviour(
        headers=(("content-type", JSON), ("content-encoding", coding)), pieces=(body,)
    )
    async with served.connect() as wire:
        answer = await wire.ask("GET /proxy/back/x")
    assert answer.status == (200 if status == 200 else 502)


@pytest.mark.parametrize("coding", ["", "gzip", "zstd"])
async def test_what_is_too_large_to_be_redacted_does_not_pass(
    start: Start, upstream: Upstream, coding: str
) -> None:
    body = CODINGS[coding](b'"' + b" " * MAX_BODY + b'"')
    coded = {"content_encoding": coding} if coding else {}
    served = await start(
        route(upstream, "request", unknown="pass"),
        route(upstream, "response", name="back", unknown="pass"),
    )
    assert (await post(served, body, **coded)).status_code == 413
    assert not upstream.requests
    headers = (("content-type", JSON), *((("content-encoding", coding),) if coding else ()))
    upstream.behaviour = Behaviour(headers=headers, pieces=(body,))
    assert (await served.client.get("/back/x")).status_code == 502


async def test_an_event_that_is_too_large_ends_the_stream_before_it(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(
        headers=(("content-type", "text/event-stream"),),
        pieces=(b"data: first\n\n", b"data: ", *[b"alice@exa" * 8000] * 20, b"\n\n"),
    )
    served = await start(route(upstream, "response"))
    got = b""
    async with served.client.stream("GET", "/up/x") as response:
        with pytest.raises(httpx2.RemoteProtocolError):
            async for piece in response.aiter_bytes():
                got += piece
    assert got == b"data: first\n\n"


async def test_large_events_are_in_no_other_calls_way(start: Start, upstream: Upstream) -> None:
    mails = (WHO.encode() + b" ") * 20_000
    upstream.behaviour = Behaviour(
        headers=(("content-type", "text/event-stream"),),
        pieces=(b"data: %b\n\n" % mails, b"data: alice@example.com\n\n" * 4000),
    )
    served = await start(route(upstream, "response"))
    shares = []
    for _ in range(3):
        longest, started = 0.0, trio.current_time()
        async with trio.open_nursery() as nursery:

            async def stream(scope: trio.CancelScope = nursery.cancel_scope) -> None:
                response = await served.client.get("/up/x")
                assert b"alice" not in response.content
                scope.cancel()

            nursery.start_soon(stream)
            while not nursery.cancel_scope.cancel_called:
                asked = trio.current_time()
                assert (await served.client.get("/none")).status_code == 404
                longest = max(longest, trio.current_time() - asked)
        shares.append(longest / (trio.current_time() - started))
    assert min(shares) < 0.25


async def test_where_there_is_no_room_for_a_body_the_call_is_to_come_again(
    start: Start, upstream: Upstream, nursery: trio.Nursery
) -> None:
    served = await start(route(upstream, "request"), route(upstream, "none", name="raw"))
    size = MAX_BODY - 1000

    async def slow() -> None:
        async with served.connect() as wire:
            await wire.say(
                b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n"
                b"content-length: %d\r\n\r\n%b" % (size, bytes(size - 1))
            )
            await trio.sleep_forever()

    for _ in range(4):
        nursery.start_soon(slow)
    with trio.fail_after(10):
        while served.pressure.bytes < 4 * (size - 1):
            await trio.sleep(0.01)
    response = await post(served, bytes(size), "text/plain")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert not upstream.requests
    # What is not read as a whole needs no room.
    response = await post(served, bytes(size), "text/plain", "/raw/x")
    assert response.status_code == 200
    nursery.cancel_scope.cancel()


async def test_what_a_rule_drops_is_not_sent_and_does_not_come_back(
    start: Start, upstream: Upstream
) -> None:
    rules = [EMAIL, {"id": "no-go", "pattern": "topsecret", "action": {"drop_record": {}}}]
    served = await start(
        route(upstream, "request"), route(upstream, "response", name="back"), rules=rules
    )
    response = await post(served, b"a topsecret", "text/plain")
    assert (response.status_code, response.content) == (204, b"")
    assert (await served.client.get("/up/topsecret")).status_code == 204
    assert (await served.client.get("/up/x", headers={"x-a": "topsecret"})).status_code == 204
    assert not upstream.requests
    upstream.behaviour = Behaviour(
        headers=(("content-type", "text/plain"),), pieces=(b"topsecret",)
    )
    assert (await served.client.get("/back/x")).status_code == 502
    upstream.behaviour = Behaviour(headers=(("x-a", "topsecret"),))
    assert (await served.client.get("/back/x")).status_code == 502
    assert (await found(served))["no-go"] == 5


async def test_a_part_is_not_asked_for_and_does_not_pass(start: Start, upstream: Upstream) -> None:
    """A part of a value looks like nothing that a rule finds."""
    served = await start(route(upstream, "response"), route(upstream, "request", name="raw"))
    ranges = {"range": "bytes=0-9", "if-range": '"1"'}
    await served.client.get("/raw/x", headers=ranges)
    response = await served.client.get("/up/x", headers=ranges)
    assert response.status_code == 200
    passed, dropped = upstream.requests
    assert (passed.header("range"), passed.header("if-range")) == ("bytes=0-9", '"1"')
    assert (dropped.header("range"), dropped.header("if-range")) == ("", "")
    upstream.behaviour = Behaviour(
        status=206, headers=(("content-type", "text/plain"),), pieces=(b"lice@example.c",)
    )
    assert (await served.client.get("/up/x")).status_code == 502
    assert (await served.client.get("/raw/x")).status_code == 206


@pytest.mark.parametrize(
    "second",
    ["content-type: text/plain", "content-encoding: gzip", "content-type: text/plain, text/x"],
)
async def test_a_body_that_could_be_read_in_two_ways_does_not_pass(
    start: Start, upstream: Upstream, second: str
) -> None:
    """What is no personal value read as text is one read as JSON."""
    hidden = b'{"a": "alice\\u0040example.com"}'
    served = await start(route(upstream, "both"))
    for order in (1, -1):
        lines = [second, f"content-type: {JSON}", "content-encoding: identity"][::order]
        async with served.connect() as wire:
            answer = await wire.ask("POST /proxy/up/x", *lines, body=hidden)
        assert answer.status in (400, 415)
    assert not upstream.requests
    name, _, value = second.partition(": ")
    upstream.behaviour = Behaviour(
        headers=(
            (name, value),
            ("content-type", JSON),
            *((("content-encoding", "identity"),) if "encoding" in name else ()),
        ),
        pieces=(hidden,),
    )
    assert (await served.client.get("/up/x")).status_code == 502


@pytest.mark.parametrize(
    "written",
    ["a\r\nx-evil: 1", "a\nx-evil: 1", "\r\n\r\nGET /evil", " a ", "\x00", "\u2603 a b?c#d"],
)
async def test_what_a_rule_writes_stays_where_it_is_written(
    start: Start, upstream: Upstream, written: str
) -> None:
    rules = [{**EMAIL, "action": {"replace": {"with": written}}}]
    served = await start(route(upstream, "both"), rules=rules)
    upstream.behaviour = Behaviour(headers=(("x-who", WHO), ("location", f"/a/{WHO}?b={WHO}")))
    async with served.connect() as wire:
        answer = await wire.ask(
            f"GET /proxy/up/{WHO}?a={WHO}&b=c", f"x-who: {WHO}", f"cookie: a={WHO}"
        )
        assert answer.status == 200
        assert not answer.values("x-evil")
        assert len(answer.values("x-who")) == 1
        assert (await wire.ask("GET /proxy/up/next")).status == 200
    first, second = upstream.requests
    assert not first.header("x-evil")
    assert first.target.startswith("/echo/")
    assert first.target.count("/") == 2
    assert "alice" not in first.target + str(first.headers)
    query = first.target.partition("?")[2]
    assert parse_qsl(query, keep_blank_values=True)[1:] == [("b", "c")]
    assert second.target == "/echo/next"


async def test_many_large_headers_are_redacted_in_no_time(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, "both"))
    upstream.behaviour = Behaviour(
        headers=tuple((f"x-{i}", f"{WHO}, " * 12 + "x") for i in range(200))
    )
    async with served.connect() as wire:
        lines = [f"x-{i}: {WHO} {WHO} {'a' * 250}" for i in range(40)]
        started = trio.current_time()
        answer = await wire.ask("GET /proxy/up/x", *lines)
        assert answer.status == 200
        assert trio.current_time() - started < 2
    assert "alice" not in str(upstream.requests[0].headers) + str(answer.headers)


FAULTS: list[tuple[str, bytes, dict[str, str], Behaviour]] = [
    ("/up/x", b'{"a": "MARK alice@example.com"', {}, Behaviour()),
    ("/up/x", b"MARK", {"content-encoding": "gzip"}, Behaviour()),
    ("/up/MARK/%2e%2e/x", b"", {}, Behaviour()),
    ("/up/x?MARK=MARK", b"MARK", {"content-type": "MARK/MARK", "x-MARK": "MARK"}, Behaviour()),
    ("/MARK/x", b"", {}, Behaviour()),
    ("/up/MARK", b'"MARK"', {}, Behaviour(raw=b"MARK\r\n\r\n")),
    ("/up/MARK", b'"MARK"', {}, Behaviour(cut="head", headers=(("x-mark", "MARK"),))),
    ("/up/x", b'"MARK"', {}, Behaviour(headers=(("content-type", JSON),), pieces=(b"MARK",))),
    ("/up/x", b'"MARK"', {}, Behaviour(headers=(("content-encoding", "MARK"),))),
    ("/up/x", b'"MARK"', {}, Behaviour(pieces=(b"MARK", b"MARK"), cut="body")),
    ("/up/x", b'"MARK ' + b" " * MAX_BODY, {}, Behaviour()),
]


async def test_nothing_of_a_call_is_in_the_log_the_metrics_or_a_refusal(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Whatever is wrong with it."""
    content = {"version": 1, "rules": [EMAIL], "routes": [route(upstream, "both")]}
    (tmp_path / "rules.json").write_bytes(msgspec.json.encode(content))

    def started() -> Any:
        return sidecar_process(
            {
                "SIDECAR_RULES": str(tmp_path),
                "LOG_LEVEL": "DEBUG",
                "SIDECAR_MAX_BODY_BYTES": str(MAX_BODY),
            }
        )

    manager = started()
    sidecar = await trio.to_thread.run_sync(manager.__enter__)
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            for path, body, headers, behaviour in FAULTS:
                upstream.behaviour = behaviour
                try:
                    response = await client.post(
                        f"{sidecar.url}/proxy{path}",
                        content=body,
                        headers={"content-type": JSON, **headers},
                    )
                except httpx2.RemoteProtocolError:
                    continue
                assert response.status_code != 500
                assert 400 <= response.status_code < 600, path
                assert "MARK" not in response.text
            shown = (await client.get(f"{sidecar.metrics_url}/metrics")).text
            assert "MARK" not in shown
            assert "MARK" not in (await client.get(f"{sidecar.url}/redactions")).text
        assert "MARK" not in sidecar.log
        assert "handler_failed" not in sidecar.log
        assert "MARK" not in str(sidecar.lines())
    finally:
        await trio.to_thread.run_sync(manager.__exit__, None, None, None)


async def test_findings_are_counted_also_of_a_call_that_fails(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(cut="before_head")
    served = await start(route(upstream, "request"))
    with structlog.testing.capture_logs() as logs:
        assert (await post(served, b'["%b"]' % WHO.encode())).status_code == 502
    assert not logs
    assert await found(served) == {"email": 1}
    assert "alice" not in generate_latest(metrics.REGISTRY).decode()
