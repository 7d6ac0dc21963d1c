"""Upstreams that are slow, broken, hostile or away."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx2
import pytest
import trio
import trustme

from sidecar import metrics
from tests.proxy.conftest import Heard, Served, Start
from tests.upstream import NEVER, Behaviour, Upstream, open_upstream

Raw = Callable[[trio.SocketStream], Awaitable[None]]


def route(upstream: Upstream | str, **options: Any) -> dict[str, Any]:
    url = upstream if isinstance(upstream, str) else upstream.url
    return {"name": "up", "upstream": url, "redact": "none", **options}


async def ask(served: Served, line: str = "GET /proxy/up/x", **options: Any) -> Heard:
    async with served.connect() as wire:
        return await wire.ask(line, **options)


@asynccontextmanager
async def raw_upstream(handler: Raw) -> AsyncIterator[str]:
    """Serve connections by a handler; yield the URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def read_head(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return b""
        data += piece
    return data


def failures(reason: str) -> float:
    labels = {"route": "up", "reason": reason}
    name = "telemetry_cache_proxy_failures_total"
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


async def test_an_upstream_that_is_not_there_is_a_502(start: Start) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    served = await start(route(f"http://127.0.0.1:{port}"))
    before = failures("connect")
    for line in ("GET /proxy/up/x", "POST /proxy/up/x"):
        assert (await ask(served, line, body=b"x" if "POST" in line else b"")).status == 502
    assert failures("connect") == before + 2


async def test_a_host_without_an_address_is_a_502_that_does_not_name_it(start: Start) -> None:
    served = await start(route("http://no-such-host.invalid:1234/base"))
    answer = await ask(served)
    assert answer.status == 502
    assert b"no-such-host" not in answer.body


@pytest.fixture
def unreachable() -> Iterator[int]:
    """Return a port where connections are neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


async def test_connecting_has_a_time_limit(start: Start, unreachable: int) -> None:
    served = await start(route(f"http://127.0.0.1:{unreachable}", timeouts={"connect": 0.1}))
    with trio.fail_after(2):
        assert (await ask(served)).status == 504


async def test_a_tls_handshake_has_the_time_limit_of_connecting(start: Start) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_upstream(silent) as url:
        served = await start(route(url.replace("http:", "https:"), timeouts={"connect": 0.2}))
        with trio.fail_after(2):
            assert (await ask(served)).status == 504


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300_000])
async def test_an_answer_that_does_not_begin_is_a_504(
    start: Start, upstream: Upstream, body: bytes
) -> None:
    upstream.behaviour = Behaviour(head_delay=NEVER)
    served = await start(route(upstream, timeouts={"first_byte": 0.2}))
    before = failures("timeout")
    with trio.fail_after(5):
        answer = await ask(served, "POST /proxy/up/upload", body=body)
    assert answer.status == 504
    assert failures("timeout") == before + 1
    with trio.fail_after(5):
        await upstream.requests[0].closed.wait()


async def test_a_head_that_comes_in_drops_is_a_504(start: Start) -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await read_head(stream)
        try:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nx: ")
            while True:
                await stream.send_all(b"a")
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            pass

    async with raw_upstream(drip) as url:
        served = await start(route(url, timeouts={"first_byte": 0.3}))
        with trio.fail_after(3):
            assert (await ask(served)).status == 504


async def test_the_time_to_the_first_byte_begins_with_the_end_of_the_request(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, timeouts={"first_byte": 0.3}))
    async with served.connect() as wire:
        await wire.say(b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\n")
        for _ in range(8):
            await trio.sleep(0.1)
            await wire.say(b"x")
        assert (await wire.hear("POST")).status == 200


async def test_a_request_body_that_stops_is_a_408(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, timeouts={"idle": 0.2}))
    async with served.connect() as wire:
        await wire.say(b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nx")
        with trio.fail_after(5):
            assert (await wire.hear("POST")).status == 408
            assert await wire.ended()
    with trio.fail_after(5):
        await upstream.requests[0].closed.wait()


async def test_an_upstream_that_takes_no_more_of_a_body_is_a_504(start: Start) -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_upstream(deaf) as url:
        served = await start(route(url, timeouts={"idle": 0.3}))
        with trio.fail_after(10):
            response = await served.client.post("/up/x", content=bytes(20_000_000))
    assert response.status_code == 504


async def broken(served: Served, line: str = "GET /proxy/up/x") -> bytes:
    """Return what comes of an answer that must not come to its end."""
    async with served.connect() as wire:
        await wire.say(f"{line} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        assert (await wire.head()).status_code == 200
        body = b""
        with pytest.raises(h11.RemoteProtocolError):
            while isinstance(event := await wire.event(), h11.Data):
                body += event.data
        return body


async def test_a_body_that_stops_breaks_the_response(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, timeouts={"idle": 0.2}))
    upstream.behaviour = Behaviour(pause=NEVER, pieces=(b"some", b"more"))
    with trio.fail_after(5):
        assert await broken(served, "GET /proxy/up/echo") == b"some"
    with trio.fail_after(5):
        await upstream.requests[0].closed.wait()


@pytest.mark.parametrize("cut", ["body", "last_chunk"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("query", ["", "?chunked"])
async def test_a_cut_body_breaks_the_response(
    start: Start, upstream: Upstream, cut: Any, reset: bool, query: str
) -> None:
    line = f"GET /proxy/up/bytes/200000{query}"
    # What has a length has no last chunk.
    upstream.behaviour = Behaviour(cut=cut if query else "body", reset=reset)
    served = await start(route(upstream))
    before = failures("cut")
    assert len(await broken(served, line)) <= 200_000
    assert failures("cut") == before + 1
    upstream.behaviour = Behaviour()
    assert (await ask(served, line)).status == 200


async def test_a_cut_body_is_a_reset_for_a_client_that_knows_no_chunks(
    start: Start, upstream: Upstream
) -> None:
    """Such as one of HTTP/1.0, for which the body ends with the connection."""
    upstream.behaviour = Behaviour(cut="body", body_delay=0.1)
    served = await start(route(upstream))
    async with served.connect() as wire:
        await wire.say(b"GET /proxy/up/bytes/1000?chunked HTTP/1.0\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            while await wire.stream.receive_some():
                pass


@pytest.mark.parametrize(
    "cut",
    [
        b"5\r\nabc",
        b"5\r\nabcde\r\n",
        b"5\r\nabcde\r\nx\r\n",
        b"5\r\nabcdefg\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        b"5 ;a\x00b\r\nabcde\r\n0\r\n\r\n",
    ],
)
async def test_broken_chunks_break_the_response(
    start: Start, upstream: Upstream, cut: bytes
) -> None:
    upstream.behaviour = Behaviour(
        raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbeg\r\n" + cut
    )
    served = await start(route(upstream))
    async with served.connect() as wire:
        await wire.say(b"GET /proxy/up/x HTTP/1.1\r\nhost: h\r\n\r\n")
        if (await wire.head()).status_code == 200:  # the head may come before the fault shows
            with pytest.raises(h11.RemoteProtocolError):
                while isinstance(await wire.event(), h11.Data):
                    pass


async def test_a_body_that_ends_with_its_connection_is_whole(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(raw=b"HTTP/1.0 200 OK\r\n\r\nall of it")
    served = await start(route(upstream))
    async with served.connect() as wire:
        for _ in range(2):
            answer = await wire.ask("GET /proxy/up/x")
            assert (answer.status, answer.body) == (200, b"all of it")


@pytest.mark.parametrize("cut", ["before_head", "head"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("line", ["GET /proxy/up/echo", "POST /proxy/up/echo"])
async def test_an_upstream_that_ends_before_its_head_is_a_502(
    start: Start, upstream: Upstream, cut: Any, reset: bool, line: str
) -> None:
    upstream.behaviour = Behaviour(cut=cut, reset=reset)
    served = await start(route(upstream))
    assert (await ask(served, line)).status == 502
    assert len(upstream.requests) == 1  # on a new connection nothing is tried again


GARBAGE = [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\x00" * 1000,
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/3.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
    b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 50_000 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 099 Low\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("redact", ["none", "both"])
async def test_what_is_no_http_is_a_502(start: Start, upstream: Upstream, redact: str) -> None:
    served = await start(route(upstream, redact=redact))
    for raw in GARBAGE:
        upstream.behaviour = Behaviour(raw=raw)
        with trio.fail_after(10):
            assert (await ask(served)).status == 502, raw[:100]


async def test_no_answer_is_taken_for_that_of_another_call(start: Start) -> None:
    """RFC 9112 section 11.1: what follows a response is not the answer to the next request."""
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

    async def split(stream: trio.SocketStream) -> None:
        if await read_head(stream):
            await stream.send_all(whole + evil)
            while await read_head(stream):
                await stream.send_all(whole)

    async with raw_upstream(split) as url:
        served = await start(route(url))
        async with served.connect() as wire:
            for _ in range(5):
                assert (await wire.ask("GET /proxy/up/x")).body == b"yes"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil",
        b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ],
)
async def test_a_body_where_there_can_be_none_does_not_pass(
    start: Start, upstream: Upstream, raw: bytes
) -> None:
    """RFC 9112 section 6.3."""
    upstream.answers.append(Behaviour(raw=raw))
    served = await start(route(upstream))
    async with served.connect() as wire:
        answer = await wire.ask("HEAD /proxy/up/x" if b"200" in raw else "GET /proxy/up/x")
        assert answer.status == 502 or answer.body == b""
        answer = await wire.ask("GET /proxy/up/bytes/3")
        assert (answer.status, answer.body) == (200, b"\x00\x01\x02")


@pytest.mark.parametrize(
    "head",
    [
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b"content-length: 3\r\ntransfer-encoding: chunked",
    ],
)
async def test_a_length_beside_chunks_is_refused_or_left_out(
    start: Start, upstream: Upstream, head: bytes
) -> None:
    """RFC 9112 section 6.3: the chunks count."""
    upstream.behaviour = Behaviour(
        raw=b"HTTP/1.1 200 OK\r\n%b\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n" % head
    )
    served = await start(route(upstream))
    answer = await ask(served)
    if answer.status != 502:
        assert (answer.status, answer.body) == (200, b"abcdef")
        assert not answer.values("content-length")


@pytest.mark.parametrize(
    ("line", "redact", "body", "again"),
    [
        ("GET", "none", b"", True),
        ("HEAD", "none", b"", True),
        ("OPTIONS", "none", b"", True),
        ("DELETE", "none", b"", True),
        ("PUT", "request", b"whole", True),
        ("PUT", "none", b"whole", True),
        ("POST", "none", b"", False),
        ("POST", "request", b"whole", False),
        ("PATCH", "request", b"whole", False),
    ],
)
async def test_a_call_over_a_connection_that_was_closed_just_then_is_made_again_if_it_may_be(
    start: Start, upstream: Upstream, line: str, redact: str, body: bytes, again: bool
) -> None:
    """RFC 9110 section 9.2.2, RFC 9112 section 9.3.1."""
    served = await start(route(upstream, redact=redact))
    upstream.answers.extend([Behaviour(), Behaviour(cut="before_head")])
    async with served.connect() as wire:
        await wire.ask("GET /proxy/up/echo")
        answer = await wire.ask(f"{line} /proxy/up/echo", "content-type: text/plain", body=body)
    assert answer.status == (200 if again else 502)
    assert len(upstream.requests) == (3 if again else 2)


async def test_a_call_whose_body_goes_as_it_comes_is_not_made_again(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    upstream.answers.extend([Behaviour(), Behaviour(cut="before_head")])
    async with served.connect() as wire:
        await wire.ask("GET /proxy/up/echo")
        await wire.say(
            b"PUT /proxy/up/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\n\r\n"
        )
        assert (await wire.hear("PUT")).status == 502
    assert len(upstream.requests) == 2


async def test_it_is_made_again_only_once_and_only_without_any_answer(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    cuts: list[tuple[Any, int]] = [("before_head", 3), ("head", 2)]
    for cut, calls in cuts:
        upstream.requests.clear()
        upstream.answers.extend([Behaviour(), Behaviour(cut=cut), Behaviour(cut=cut)])
        async with served.connect() as wire:
            await wire.ask("GET /proxy/up/echo")
            assert (await wire.ask("GET /proxy/up/echo")).status == 502
        assert len(upstream.requests) == calls
        upstream.answers.clear()


async def test_a_connection_that_was_closed_while_idle_costs_nobody_anything(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    upstream.answers.append(Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))
    async with served.connect() as wire:
        assert (await wire.ask("POST /proxy/up/echo")).body == b"ok"
        while upstream.open:
            await trio.lowlevel.checkpoint()
        assert (await wire.ask("POST /proxy/up/echo")).status == 200


@pytest.mark.parametrize("redact", ["none", "request"])
async def test_an_upstream_may_answer_before_it_has_read_the_body(
    start: Start, upstream: Upstream, redact: str
) -> None:
    upstream.behaviour = Behaviour(early=True, status=413)
    served = await start(route(upstream, redact=redact, unknown="pass"))
    with trio.fail_after(10):
        response = await served.client.post("/up/upload", content=bytes(1_000_000))
    assert response.status_code == 413
    assert b"It was told to" in response.content


async def test_an_upstream_may_answer_and_never_read_the_body(start: Start) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await trio.sleep_forever()

    async with raw_upstream(refuse) as url:
        served = await start(route(url))
        with trio.fail_after(10):
            response = await served.client.post("/up/upload", content=bytes(20_000_000))
    assert (response.status_code, response.content) == (413, b"big")


async def test_an_upstream_may_answer_and_close_without_reading_the_body(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(
        early=True,
        raw=b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
    )
    served = await start(route(upstream))
    with trio.fail_after(10):
        response = await served.client.post("/up/upload", content=bytes(20_000_000))
    assert (response.status_code, response.content) == (413, b"big")


async def test_calls_beyond_the_limit_wait_for_a_place_and_then_are_sent_away(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, concurrency=2, timeouts={"connect": 0.4}))
    statuses: list[int] = []
    upstream.answers.extend([Behaviour(head_delay=0.2), Behaviour(head_delay=1.5)])
    again: list[str] = []

    async def call() -> None:
        answer = await ask(served, "GET /proxy/up/slow/0")
        statuses.append(answer.status)
        again.extend(answer.values("retry-after"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(call)
        await upstream.received(2)
        upstream.behaviour = Behaviour(head_delay=1.5)
        nursery.start_soon(call)  # has the place of the first one
        await upstream.received(3)
        nursery.start_soon(call)
        assert len(upstream.requests) == 3
    assert sorted(statuses) == [200, 200, 200, 503]
    assert again == ["1"]
    assert len(upstream.requests) == 3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return an authority."""
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_an_upstream_by_tls(start: Start, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    async with open_upstream(tls=server_context(authority, "127.0.0.1")) as upstream:
        good = route(upstream, ca_file=str(tmp_path / "ca.pem"))
        served = await start(
            good,
            {**good, "name": "system", "ca_file": ""},
            *(
                {**good, "name": name, "ca_file": str(tmp_path / f"{name}.pem")}
                for name in ("other", "empty", "missing")
            ),
            {**good, "name": "plain", "upstream": upstream.url.replace("https", "http")},
        )
        async with served.connect() as wire:
            for _ in range(2):
                answer = await wire.ask("GET /proxy/up/slow/0")
                assert (answer.status, answer.body) == (200, b"at last")
            for name in ("system", "other", "empty", "missing", "plain"):
                assert (await wire.ask(f"GET /proxy/{name}/slow/0")).status == 502
        response = await served.client.post("/up/upload", content=bytes(3_000_000))
        assert response.json()["length"] == 3_000_000
        assert upstream.connections
    assert len(upstream.requests) == 3


async def test_a_certificate_of_another_host_is_not_trusted(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with open_upstream(tls=server_context(authority, "other.example")) as upstream:
        served = await start(route(upstream, ca_file=str(tmp_path / "ca.pem")))
        answer = await ask(served)
    assert answer.status == 502
    assert not upstream.requests


async def test_a_tls_connection_that_is_cut_breaks_the_response(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    """Also where only the end of the connection says that the body is whole."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with open_upstream(tls=server_context(authority, "127.0.0.1")) as upstream:
        upstream.behaviour = Behaviour(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        served = await start(route(upstream, ca_file=str(tmp_path / "ca.pem")))
        assert await broken(served) == b"half"


async def test_an_upstream_that_comes_back_is_used_again(start: Start) -> None:
    async with open_upstream() as first:
        served = await start(route(first))
        assert (await ask(served, "GET /proxy/up/slow/0")).status == 200
    assert (await ask(served, "GET /proxy/up/slow/0")).status == 502
    async with open_upstream(first.port):
        assert (await ask(served, "GET /proxy/up/slow/0")).status == 200


async def test_faults_leave_no_connection_behind(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, timeouts={"first_byte": 0.1}))
    faults = [
        Behaviour(cut="before_head"),
        Behaviour(cut="head"),
        Behaviour(cut="body"),
        Behaviour(head_delay=NEVER),
        Behaviour(raw=b"garbage"),
        Behaviour(early=True, status=413),
    ]
    upstream.answers.extend(faults * 5)
    for _ in range(5):
        for status in (502, 502, 0, 504, 502, 413):
            try:
                response = await served.client.post("/up/bytes/10", content=b"x")
            except httpx2.RemoteProtocolError:
                assert status == 0
            else:
                assert response.status_code == status
    with trio.fail_after(5):
        while upstream.open > 1:
            await trio.lowlevel.checkpoint()
