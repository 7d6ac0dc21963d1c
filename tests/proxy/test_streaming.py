"""Calls that take their time: pieces as they come, clients that leave or read slowly, the stop."""

import signal
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx2
import msgspec
import pytest
import trio
import trio.testing

from sidecar import metrics
from sidecar.http.application import Application
from sidecar.http.http1 import serve
from sidecar.http.listening import bind
from sidecar.proxy.api import routes
from tests.process import SidecarProcess
from tests.proxy.conftest import EMAIL, Served, Start, Wire
from tests.upstream import NEVER, Behaviour, Upstream

GONE_SECONDS = 0.1


def route(upstream: Upstream | str, **options: Any) -> dict[str, Any]:
    url = upstream if isinstance(upstream, str) else upstream.url
    return {"name": "up", "upstream": url, "redact": "none", **options}


def under_way() -> float:
    labels = {"route": "up"}
    return metrics.REGISTRY.get_sample_value("telemetry_cache_proxy_calls", labels) or 0


class Stepwise:
    """An upstream that sends a piece only when it is told that the one before has arrived.

    Attributes:
        arrived: takes something for each piece that has arrived.
        url: without a path.
    """

    def __init__(self, pieces: list[bytes], kind: str) -> None:
        self._pieces = pieces
        self._kind = kind
        self.arrived, self._waits = trio.open_memory_channel[None](100)
        self.url = ""

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async def started(task_status: trio.TaskStatus[Any]) -> None:
            await trio.serve_tcp(self._answer, 0, host="127.0.0.1", task_status=task_status)

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(started)
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            task_status.started()

    async def _answer(self, stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: %b\r\n\r\n"
            % self._kind.encode()
        )
        for piece in self._pieces:
            await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._waits.receive()
        await stream.send_all(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("redact", "kind", "piece"),
    [
        ("none", "text/event-stream", b"data: one@example.com %d\n\n"),
        ("none", "application/x-ndjson", b'{"one@example.com": %d}\n'),
        ("none", "application/octet-stream", b"%d"),
        ("request", "text/event-stream", b"data: one@example.com %d\n\n"),
        ("both", "text/event-stream", b"data: one@example.com %d\n\n"),
        ("both", "text/event-stream; charset=utf-8", b'data: {"a": "one@example.com %d"}\n\n'),
    ],
)
async def test_each_piece_arrives_before_the_next_is_sent(
    start: Start, nursery: trio.Nursery, redact: str, kind: str, piece: bytes
) -> None:
    pieces = [piece % number for number in range(20)]
    upstream = Stepwise(pieces, kind)
    await nursery.start(upstream.serve)
    served = await start(route(upstream.url, redact=redact))
    async with served.connect() as wire:
        await wire.say(b"GET /proxy/up/events HTTP/1.1\r\nhost: h\r\n\r\n")
        await wire.head()
        for wanted in pieces:
            if redact == "both":
                wanted = wanted.replace(b"one@example.com", b"[REDACTED_EMAIL]")
            got = b""
            while len(got) < len(wanted):
                got += (await wire.event()).data
            assert got == wanted
            upstream.arrived.send_nowait(None)
        assert isinstance(await wire.event(), h11.EndOfMessage)


async def test_an_answer_may_begin_before_the_end_of_the_request(
    start: Start, nursery: trio.Nursery
) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        parser = h11.Connection(h11.SERVER)
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                await stream.send_all(parser.send(h11.Response(status_code=200, headers=[])) or b"")
            elif isinstance(event, h11.Data):
                await stream.send_all(parser.send(h11.Data(event.data)) or b"")
        await stream.send_all(parser.send(h11.EndOfMessage()) or b"")

    listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
    served = await start(route(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"))
    async with served.connect() as wire:
        await wire.say(
            b"POST /proxy/up/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(10):
            await wire.say(b"1\r\n%d\r\n" % number)
            if not number:
                await wire.head("POST")
            assert (await wire.event()).data == b"%d" % number
        await wire.say(b"0\r\n\r\n")
        assert isinstance(await wire.event(), h11.EndOfMessage)


async def in_the_request(wire: Wire, upstream: Upstream) -> None:
    await wire.say(b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf")


async def before_the_head(wire: Wire, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(head_delay=NEVER)
    await wire.say(b"GET /proxy/up/echo HTTP/1.1\r\nhost: h\r\n\r\n")


async def before_the_head_of_an_upload(wire: Wire, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(head_delay=NEVER)
    await wire.say(b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody")


async def in_the_stream(wire: Wire, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(pause=NEVER, pieces=(b"data: 1\n\n", b"data: 2\n\n"))
    await wire.say(b"GET /proxy/up/echo HTTP/1.1\r\nhost: h\r\n\r\n")
    await wire.head()
    await wire.event()


async def in_a_stream_without_end(wire: Wire, upstream: Upstream) -> None:
    await wire.say(b"GET /proxy/up/bytes/9000000000 HTTP/1.1\r\nhost: h\r\n\r\n")
    await wire.head()
    await wire.event()


async def with_more_requests_under_way(wire: Wire, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(pause=NEVER, pieces=(b"data: 1\n\n", b"data: 2\n\n"))
    await wire.say(b"GET /proxy/up/echo HTTP/1.1\r\nhost: h\r\n\r\n" * 3)
    await wire.head()
    await wire.event()


@pytest.mark.parametrize(
    "point",
    [
        in_the_request,
        before_the_head,
        before_the_head_of_an_upload,
        in_the_stream,
        in_a_stream_without_end,
        with_more_requests_under_way,
    ],
)
async def test_the_upstream_sees_at_once_that_the_client_has_gone(
    start: Start, upstream: Upstream, point: Callable[[Wire, Upstream], Awaitable[None]]
) -> None:
    served = await start(route(upstream))
    took = []
    for number in range(5):
        async with served.connect() as wire:
            await point(wire, upstream)
            call = (await upstream.received(number + 1))[number]
        left = time.monotonic()
        with trio.fail_after(5):
            await call.closed.wait()
        assert call.closed_at is not None
        took.append(call.closed_at - left)
    assert min(took) < GONE_SECONDS
    await nothing_left(served, upstream)


async def nothing_left(served: Served, upstream: Upstream) -> None:
    """Wait until no call is under way, and no connection is in use."""
    with trio.fail_after(5):
        await served.proxy.idle()
        while upstream.open > 16:
            await trio.sleep(0.01)


@pytest.mark.parametrize("redact", ["request", "both"])
async def test_a_call_that_is_redacted_ends_with_its_client_too(
    start: Start, upstream: Upstream, redact: str
) -> None:
    served = await start(route(upstream, redact=redact))
    for body_delay, head_delay in ((0.0, NEVER), (NEVER, 0.0)):
        upstream.behaviour = Behaviour(head_delay=head_delay, body_delay=body_delay)
        upstream.requests.clear()
        async with served.connect() as wire:
            await wire.say(
                b"POST /proxy/up/echo HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n"
                b"content-length: 4\r\n\r\nbody"
            )
            (call,) = await upstream.received(1)
        with trio.fail_after(5):
            await call.closed.wait()
    await nothing_left(served, upstream)


async def test_a_call_that_waits_for_a_place_ends_with_its_client(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, concurrency=1, timeouts={"connect": 30}))
    upstream.answers.append(Behaviour(head_delay=NEVER))
    async with served.connect() as first:
        await first.say(b"GET /proxy/up/slow/0 HTTP/1.1\r\nhost: h\r\n\r\n")
        await upstream.received(1)
        async with served.connect() as second:
            await second.say(b"GET /proxy/up/slow/0 HTTP/1.1\r\nhost: h\r\n\r\n")
            while under_way() < 2:
                await trio.sleep(0.001)
        with trio.fail_after(5):
            while under_way() > 1:
                await trio.sleep(0.001)
        assert len(upstream.requests) == 1
    with trio.fail_after(5):
        await served.proxy.idle()
    async with served.connect() as third:
        assert (await third.ask("GET /proxy/up/slow/0")).status == 200


async def test_a_client_that_reads_slowly_holds_the_upstream_back(
    start: Start, upstream: Upstream
) -> None:
    size = 100_000_000
    served = await start(route(upstream))
    with trio.socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", served.port))
        await sock.send(b"GET /proxy/up/bytes/%d HTTP/1.1\r\nhost: h\r\n\r\n" % size)
        (call,) = await upstream.received(1)
        sent = await settled(lambda: call.sent)
        assert 0 < sent < size / 5
        while call.sent == sent:  # it goes on as the client does
            await sock.recv(65536)


async def test_an_upstream_that_reads_slowly_holds_the_client_back(
    start: Start, nursery: trio.Nursery
) -> None:
    reading = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await reading.wait()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    listeners = await nursery.start(partial(trio.serve_tcp, slow, 0, host="127.0.0.1"))
    served = await start(route(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"))
    sent, size = 0, 100_000_000
    async with served.connect() as wire:

        async def upload() -> None:
            nonlocal sent
            await wire.say(
                b"PUT /proxy/up/x HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size
            )
            while sent < size:
                await wire.say(bytes(100_000))
                sent += 100_000

        nursery.start_soon(upload)
        stopped = await settled(lambda: sent)
        assert 0 < stopped < size / 5
        reading.set()
        with trio.fail_after(30):
            while sent < size:
                await trio.sleep(0.01)


async def settled(value: Callable[[], int]) -> int:
    """Return a value once it has not changed for a while."""
    with trio.fail_after(20):
        before = -1
        while value() != before or not before:
            before = value()
            await trio.sleep(0.3)
    return before


async def test_calls_that_are_cancelled_leave_nothing_behind(
    start: Start, upstream: Upstream
) -> None:
    """A thousand of them, each at another moment, and all places are free after them."""
    served = await start(route(upstream, concurrency=3, timeouts={"connect": 2}))
    upstream.recording = False
    kinds = [
        (b"GET /proxy/up/v1/models HTTP/1.1\r\nhost: h\r\n\r\n", Behaviour()),
        (b"GET /proxy/up/bytes/300000 HTTP/1.1\r\nhost: h\r\n\r\n", Behaviour()),
        (b"GET /proxy/up/echo HTTP/1.1\r\nhost: h\r\n\r\n", Behaviour(head_delay=NEVER)),
        (
            b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf",
            Behaviour(),
        ),
    ]

    async def call(number: int) -> None:
        request, upstream.behaviour = kinds[number % len(kinds)]
        async with served.connect() as wire:
            await wire.say(request)
            for _ in range(number // len(kinds)):
                await trio.lowlevel.checkpoint()

    for number in range(1000):
        await call(number)
    await all_is_free(served, upstream)


async def test_a_call_may_be_cancelled_at_every_point(
    start: Start, upstream: Upstream, nursery: trio.Nursery
) -> None:
    served = await start(
        route(upstream, concurrency=2),
        route(upstream, name="redacted", redact="both", concurrency=2),
        route(upstream, name="cached", cache={"ttl": 60}, concurrency=2),
    )
    upstream.recording = False
    app = Application(routes(served.proxy))
    steps, ended = 0, False

    async def handler(exchange: Any) -> None:
        nonlocal ended
        async with trio.open_nursery() as beside:

            async def cancel() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                beside.cancel_scope.cancel()

            beside.start_soon(cancel)
            await app(exchange)
            ended = True
            beside.cancel_scope.cancel()

    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    await nursery.start(partial(serve, handler, sock, stopping=trio.Event(), grace_seconds=0))
    for line, sent in (
        (b"GET /proxy/up/bytes/100000", b""),
        (b"PUT /proxy/up/upload", bytes(200_000)),
        (b"POST /proxy/redacted/echo", msgspec.json.encode({"a": "one@example.com" * 2000})),
        (b"GET /proxy/cached/v1/models", b""),
    ):
        request = (
            b"%b HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (line, len(sent), sent)
        )
        ended, steps = False, 0
        while not ended:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(request)
                    with trio.fail_after(10):
                        while await stream.receive_some():
                            pass
            steps += 1
        assert steps > 3
    await all_is_free(served, upstream)


async def all_is_free(served: Served, upstream: Upstream) -> None:
    """Check that nothing is left of the calls before, and that as many may be made as ever."""
    with trio.fail_after(10):
        await served.proxy.idle()
        # Those that are kept for the next call, two or three a route.
        while upstream.open > 8:
            await trio.sleep(0.01)
    upstream.behaviour = Behaviour()
    statuses = []

    async def call() -> None:
        statuses.append((await served.client.get("/up/slow/0.2")).status_code)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call)
    assert statuses == [200] * 4


async def test_slow_clients_of_one_route_are_in_nobodys_way(
    start: Start, upstream: Upstream, nursery: trio.Nursery
) -> None:
    served = await start(route(upstream), route(upstream, name="other"))
    upstream.recording = False
    for number in range(900):
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(
            b"POST /proxy/up/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nslow"
        )
        nursery.start_soon(_hold, stream)
        if number % 100 == 0:
            started = time.perf_counter()
            assert (await served.client.get("/other/slow/0")).status_code == 200
    took = []
    for _ in range(20):
        started = time.perf_counter()
        assert (await served.client.get("/other/slow/0")).status_code == 200
        took.append(time.perf_counter() - started)
    assert statistics.median(took) < 0.1
    nursery.cancel_scope.cancel()


async def _hold(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


@pytest.fixture
def folder(tmp_path: Path, upstream: Upstream) -> Path:
    """Return a rules folder with a route."""
    content = {"version": 1, "rules": [EMAIL], "routes": [route(upstream)]}
    (tmp_path / "rules.json").write_bytes(msgspec.json.encode(content))
    return tmp_path


async def while_stopping(
    folder: Path, upstream: Upstream, drain_seconds: float
) -> tuple[bytes | None, httpx2.Response, int]:
    """Stop a sidecar in the middle of a stream.

    Return what came of that, None if it was cut, an answer to a new call, and the exit code.
    """
    upstream.behaviour = Behaviour(pause=0.3, pieces=tuple(b"%d" % i for i in range(10)))
    process = SidecarProcess(
        {"SIDECAR_RULES": str(folder), "SIDECAR_DRAIN_SECONDS": str(drain_seconds)}
    )
    try:
        await trio.to_thread.run_sync(process.wait_ready)
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=10) as client,
            client.stream("GET", f"{process.url}/proxy/up/echo") as response,
        ):
            pieces = response.aiter_bytes()
            body: bytes | None = await anext(pieces)
            process.process.send_signal(signal.SIGTERM)
            while "stopping" not in process.log:
                await trio.sleep(0.01)
            new = await client.get(f"{process.url}/proxy/up/echo")
            try:
                async for piece in pieces:
                    body = (body or b"") + piece
            except httpx2.RemoteProtocolError:
                body = None
        code = await trio.to_thread.run_sync(process.process.wait, 20)
    finally:
        process.close()
    return body, new, code


async def test_a_stop_lets_a_call_come_to_its_end_and_takes_no_new_one(
    folder: Path, upstream: Upstream
) -> None:
    body, new, code = await while_stopping(folder, upstream, 20)
    assert body == b"0123456789"
    assert (new.status_code, new.headers["retry-after"]) == (503, "1")
    assert new.headers["content-type"] == "application/problem+json"
    assert code == 0
    assert len(upstream.requests) == 1


async def test_a_call_that_takes_longer_than_a_stop_may_is_cut(
    folder: Path, upstream: Upstream
) -> None:
    body, new, code = await while_stopping(folder, upstream, 0.5)
    assert body is None
    assert new.status_code == 503
    assert code == 0
    with trio.fail_after(5):
        await upstream.requests[0].closed.wait()


async def test_a_connection_takes_the_next_call_when_a_long_one_has_ended(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    async with served.connect() as wire:
        for _ in range(3):
            assert (await wire.ask("GET /proxy/up/slow/0.1")).status == 200
            assert (await wire.ask("GET /proxy/up/echo")).status == 200
