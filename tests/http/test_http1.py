import errno
import gc
import socket
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.http import http1, listening
from sidecar.http.application import Application
from sidecar.http.http1 import serve
from sidecar.http.listening import bind
from sidecar.http.messages import Request, Response


def test_a_taken_port_is_found_when_it_is_bound() -> None:
    with bind("127.0.0.1", 0) as sock, pytest.raises(OSError) as caught:
        bind("127.0.0.1", sock.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost", "127.0.0.1"])
def test_names_and_addresses_of_both_families_are_bound(host: str) -> None:
    if ":" in host and not has_ipv6():
        host = "127.0.0.1"
    with bind(host, 0) as sock:
        assert sock.getsockname()[1] > 0
        socket.create_connection(sock.getsockname()[:2], timeout=5).close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_one_connection_takes_thousands_of_requests(talk: Any) -> None:
    for _ in range(30):
        await talk.say(b"GET /hello HTTP/1.1\r\nhost: h\r\n\r\n" * 100)
        for _ in range(100):
            status, headers, body = await talk.hear()
            assert (status, body) == (200, b"hello")
            assert b"connection" not in headers


async def test_the_server_does_not_name_its_software(server: Any) -> None:
    response = await server.client.get("/hello")
    assert "server" not in response.headers
    assert "date" in response.headers


class Slow:
    """An application whose one request ends when it is told to."""

    def __init__(self, body: bytes = b"done") -> None:
        self.entered = trio.Event()
        self.go_on = trio.Event()
        self.body = body

    async def handle(self, request: Request) -> Response:
        self.entered.set()
        await self.go_on.wait()
        return Response(body=self.body)


RouteOf = Callable[[str, str, Any], Any]


async def test_a_request_in_flight_completes_though_the_server_stops(
    served: Any, route_of: RouteOf
) -> None:
    slow = Slow()
    server = await served(Application([route_of("GET", "/slow", slow.handle)]))
    answers = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append((await server.client.get("/slow")).text)

        nursery.start_soon(ask)
        await slow.entered.wait()
        server.stopping.set()
        await wait_all_tasks_blocked()
        with pytest.raises(OSError):
            await server.connect()
        assert not server.stopped.is_set()
        slow.go_on.set()
    with trio.fail_after(2):
        await server.stopped.wait()
    assert answers == ["done"]


async def test_idle_connections_do_not_hold_up_the_stop(served: Any, routes: Any) -> None:
    server = await served(Application(routes), grace_seconds=60)
    async with await server.connect(), await server.connect() as half:
        await half.send_all(b"GET /hello HTT")
        await server.client.get("/hello")
        server.stopping.set()
        with trio.fail_after(5):
            await server.stopped.wait()


async def test_a_request_that_does_not_end_is_given_up_after_the_grace(
    served: Any, route_of: RouteOf
) -> None:
    slow = Slow()
    app = Application([route_of("GET", "/slow", slow.handle)])
    server = await served(app, grace_seconds=0.1)
    async with await server.connect() as stream:
        await stream.send_all(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n")
        await slow.entered.wait()
        server.stopping.set()
        with trio.fail_after(5):
            await server.stopped.wait()


async def test_a_client_that_does_not_read_is_given_up_after_the_grace(
    served: Any, route_of: RouteOf
) -> None:
    slow = Slow(bytes(50_000_000))
    app = Application([route_of("GET", "/slow", slow.handle)])
    server = await served(app, grace_seconds=0.1)
    async with await server.connect() as stream:
        await stream.send_all(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n")
        slow.go_on.set()
        await stream.receive_some(1000)
        server.stopping.set()
        with trio.fail_after(5):
            await server.stopped.wait()


async def test_cancelling_the_server_ends_it_at_once_whatever_its_clients_do(
    routes: Any, route_of: RouteOf
) -> None:
    slow = Slow(bytes(50_000_000))
    app = Application([route_of("GET", "/slow", slow.handle)])
    sock = bind("127.0.0.1", 0)
    address = sock.getsockname()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve(app, sock, stopping=trio.Event(), grace_seconds=60, task_status=task_status)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n")
                slow.go_on.set()
                await stream.receive_some(1000)
                nursery.cancel_scope.cancel()
                await wait_all_tasks_blocked()


GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
HELLO = Response(headers={"content-type": "text/plain"}, body=b"hello")


async def hello(exchange: Any) -> None:
    await exchange.respond(HELLO)


class Waiting:
    """A handler that waits until it is told to answer, or is cancelled."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.go_on = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, exchange: Any) -> None:
        self.entered.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        await exchange.respond(HELLO)


async def everything(stream: trio.SocketStream) -> bytes:
    """Return all that comes before the server closes the connection."""
    received = bytearray()
    with trio.fail_after(10):
        while piece := await stream.receive_some(65536):
            received += piece
    return bytes(received)


def reset(stream: trio.SocketStream) -> None:
    """Close the connection without ending it."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "pipelined"])
async def test_a_head_that_drips_is_refused_in_time(
    served: Any, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.2)
    server = await served(hello)
    async with await server.connect() as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            await stream.send_all(before + b"GET /")
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"a")
                    await trio.sleep(0.02)

        nursery.start_soon(drip)
        answer = await everything(stream)
        nursery.cancel_scope.cancel()
    assert answer.count(b"HTTP/1.1 200") == len(before) // len(GET)
    assert b"HTTP/1.1 408 Request Timeout\r\n" in answer
    assert b"connection: close" in answer


async def test_an_idle_connection_is_closed_without_a_word(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "KEEP_ALIVE_SECONDS", 0.1)
    server = await served(hello)
    async with await server.connect() as stream:
        assert await everything(stream) == b""
    async with await server.connect() as stream:
        await stream.send_all(b"\r\n" + GET)
        assert (await everything(stream)).endswith(b"\r\n\r\nhello")


async def test_a_body_may_take_longer_than_a_head_and_a_handler_longer_than_a_pause(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(http1, "KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.05)

    async def handler(exchange: Any) -> None:
        body = b"".join([await exchange.receive() for _ in range(2)])
        assert await exchange.receive() == b""
        await trio.sleep(0.1)
        await exchange.respond(Response(body=body))

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\npi")
        await trio.sleep(0.1)
        await stream.send_all(b"ng")
        assert (await everything(stream)).endswith(b"\r\n\r\nping")


async def test_what_is_pipelined_behind_a_slow_request_is_not_late(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As often as the event loop turns, so also between the requests.
    monkeypatch.setattr(http1, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(http1, "KEEP_ALIVE_SECONDS", 0.05)

    async def handler(exchange: Any) -> None:
        await trio.sleep(0.1)
        await exchange.respond(HELLO)

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET * 3)
        assert (await everything(stream)).count(b"\r\n\r\nhello") == 3


async def test_many_pipelined_requests_hold_up_no_other_connection(served: Any) -> None:
    order, other = [], GET.replace(b"/ ", b"/other ")

    async def handler(exchange: Any) -> None:
        order.append(exchange.request.path)
        await exchange.respond(HELLO)

    server = await served(handler)
    first, busy, last = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(3))
    with first, busy, last:
        await wait_all_tasks_blocked(0.05)
        # Without a checkpoint in between: all are there before the server looks, which takes those
        # that are ready in this order or the other way round.
        for client, said in (first, other), (busy, GET * 1000), (last, other):
            client.send(said)
        while len(order) < 1002:
            await trio.lowlevel.checkpoint()
    assert [path for path in order[:10] if path == "/other"] == ["/other"] * 2


@pytest.mark.parametrize("requests", [1, 20])
async def test_a_client_that_has_nothing_more_to_say_gets_its_answers(
    served: Any, requests: int
) -> None:
    server = await served(hello)
    async with await server.connect() as stream:
        await stream.send_all(GET * requests)
        await stream.send_eof()
        assert (await everything(stream)).count(b"\r\n\r\nhello") == requests


@pytest.mark.parametrize("silent", [False, True], ids=["later", "at_once"])
async def test_a_client_may_reset_its_connection_at_any_time(served: Any, silent: bool) -> None:
    waiting = Waiting()

    async def handler(exchange: Any) -> None:
        while await exchange.receive():
            pass
        if exchange.request.path == "/wait":
            await waiting(exchange)
        elif exchange.request.path == "/gone":
            await exchange.gone()
        else:
            await exchange.respond(Response(body=bytes(10_000_000)))

    server = await served(handler, grace_seconds=60)
    wait, gone = GET.replace(b"/ ", b"/wait "), GET.replace(b"/ ", b"/gone ")
    half = b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n12345"
    for said in (b"", GET[:9], half, half[:-5] + b"12345", wait, gone, GET, GET * 10):
        stream = await server.connect()
        await stream.send_all(said)
        if not silent:
            await wait_all_tasks_blocked()
        reset(stream)
    assert len((await server.client.get("/")).content) == 10_000_000
    await server.client.aclose()
    server.stopping.set()
    with trio.fail_after(5):
        await server.stopped.wait()


async def test_a_client_that_takes_nothing_is_given_up(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SEND_SECONDS", 0.3)
    sent, ended = 0, trio.Event()

    async def handler(exchange: Any) -> None:
        nonlocal sent
        try:
            await exchange.start(200, [])
            while True:
                await exchange.send(bytes(65536))
                sent += 65536
        finally:
            ended.set()

    server = await served(handler)
    async with await server.connect() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.send_all(GET)
        with trio.fail_after(20):
            await ended.wait()
    # What the kernel holds for one connection, and no more.
    assert sent < 16_000_000


async def test_connections_above_the_bound_wait_until_others_end(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 5)
    under_way, most = 0, 0

    async def handler(exchange: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(0.01)
        under_way -= 1
        await exchange.respond(HELLO)

    server = await served(handler)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        async with await server.connect() as stream:
            await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            answer = await everything(stream)
            answered += answer.endswith(b"hello")

    idle = [await server.connect() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked(0.1)
        assert answered == 0
        for stream in idle:
            await stream.aclose()
    assert (answered, most) == (300, 5)


async def test_a_client_of_http_1_0_is_told_whether_its_connection_is_kept(served: Any) -> None:
    server = await served(hello)
    async with await server.connect() as stream:
        await stream.send_all(
            b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n"
        )
        first, second = (await everything(stream)).split(b"hello", 1)
    assert b"\r\nconnection: keep-alive\r\n" in first
    assert b"\r\nconnection: close\r\n" in second
    assert second.endswith(b"hello")


async def pieces(exchange: Any) -> None:
    await exchange.start(200, [])
    for piece in (b"one ", b"", b"two"):
        await exchange.send(piece)
    await exchange.finish()


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET / HTTP/1.1", b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\nconnection: keep-alive", b"one two"),
        (b"HEAD / HTTP/1.1", b""),
        (b"HEAD / HTTP/1.0", b""),
    ],
)
async def test_a_response_of_no_known_length_ends_as_its_client_understands(
    served: Any, request_line: bytes, expected: bytes
) -> None:
    server = await served(pieces)
    async with await server.connect() as stream:
        await stream.send_all(request_line + b"\r\nhost: h\r\n\r\n")
        await stream.send_eof()
        head, _, body = (await everything(stream)).partition(b"\r\n\r\n")
    assert body == expected
    assert (b"transfer-encoding: chunked" in head) == request_line.startswith(b"GET / HTTP/1.1")
    assert b"content-length" not in head
    assert (b"connection: close" in head) == (b"1.0" in request_line)


@pytest.mark.parametrize("size", [100, 1000])
async def test_a_response_that_is_shorter_than_it_says_ends_its_connection(
    served: Any, size: int
) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.start(200, [(b"content-length", b"1000")])
        await exchange.send(bytes(size))
        await exchange.finish()

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET * 2)
        await stream.send_eof()
        answers = (await everything(stream)).count(b"HTTP/1.1 200")
    assert answers == (2 if size == 1000 else 1)


async def test_a_response_is_never_longer_than_it_says(served: Any) -> None:
    raised = []

    async def handler(exchange: Any) -> None:
        await exchange.start(200, [(b"content-length", b"5")])
        await exchange.send(b"hel")
        try:
            await exchange.send(b"lo, HTTP/1.1 200")
        except ValueError as error:
            raised.append(error)

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET * 2)
        assert (await everything(stream)).endswith(b"\r\n\r\nhel")
    assert len(raised) == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_content_has_no_body(served: Any, status: int) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.start(status, [(b"etag", b'"a"')])
        await exchange.send(b"body")
        await exchange.finish()

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET * 2)
        await stream.send_eof()
        answers = await everything(stream)
    assert answers.count(b"HTTP/1.1 %d" % status) == 2
    assert not any(name in answers for name in (b"body", b"content-length", b"transfer-encoding"))


CONTINUED = b"PUT / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


async def echo(exchange: Any) -> None:
    body = bytearray()
    while piece := await exchange.receive():
        body += piece
    await exchange.respond(Response(body=bytes(body)))


async def test_a_client_that_waits_with_its_body_is_asked_for_it(served: Any) -> None:
    server = await served(echo)
    async with await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(CONTINUED)
            with trio.fail_after(10):
                assert await stream.receive_some(1000) == INTERIM
            await stream.send_all(b"ping")
            with trio.fail_after(10):
                answer = await stream.receive_some(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nping")


async def test_a_client_that_does_not_wait_is_not_asked_for_what_it_has_sent(served: Any) -> None:
    server = await served(echo)
    async with await server.connect() as stream:
        await stream.send_all(CONTINUED + b"ping")
        await stream.send_eof()
        answer = await everything(stream)
    assert INTERIM not in answer
    assert answer.endswith(b"\r\n\r\nping")


async def test_a_body_that_nobody_asks_for_is_not_asked_for(served: Any) -> None:
    server = await served(hello)
    async with await server.connect() as stream:
        await stream.send_all(CONTINUED)
        await stream.send_eof()
        answer = await everything(stream)
    assert INTERIM not in answer
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("ahead", [b"", GET, GET * 5000], ids=["none", "one", "many"])
async def test_what_is_done_for_a_client_that_goes_away_is_cancelled(
    served: Any, ahead: bytes
) -> None:
    waiting = Waiting()
    server = await served(waiting)
    async with await server.connect() as stream:
        await stream.send_all(GET + ahead)
        await waiting.entered.wait()
    with trio.fail_after(5):
        await waiting.cancelled.wait()


async def test_a_handler_that_streams_is_told_at_once_that_its_client_has_gone(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "_LOOK_SECONDS", 1000)
    entered, gone = trio.Event(), trio.Event()

    async def handler(exchange: Any) -> None:
        entered.set()
        await exchange.gone()
        gone.set()

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET * 3)
        await entered.wait()
        await wait_all_tasks_blocked()
        assert not gone.is_set()
    with trio.fail_after(5):
        await gone.wait()


async def test_a_handler_may_wait_for_its_client_to_go_while_it_takes_the_body(
    served: Any,
) -> None:
    over = trio.Event()

    async def handler(exchange: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await exchange.gone()
                over.set()

            nursery.start_soon(leave)
            while await exchange.receive():
                pass
            await exchange.start(200, [])
            await over.wait()

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\npi")
        await wait_all_tasks_blocked()
        assert not over.is_set()
        await stream.send_all(b"ng")
        with trio.fail_after(10):
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
    with trio.fail_after(5):
        await over.wait()


async def test_what_a_client_sends_ahead_is_bounded(served: Any) -> None:
    """However many requests are answered, while each of them lets some more be read."""
    go_on = trio.Semaphore(0)

    async def handler(exchange: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.gone)
            await go_on.acquire()
            nursery.cancel_scope.cancel()
        await exchange.respond(HELLO)

    server = await served(handler)
    tracemalloc.start()
    async with await server.connect() as stream, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await stream.send_all(GET * 1000)

        nursery.start_soon(flood)
        sizes = []
        for _ in range(20):
            for _ in range(5):
                go_on.release()
                with trio.fail_after(10):
                    await wait_all_tasks_blocked(0.01)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        nursery.cancel_scope.cancel()
    tracemalloc.stop()
    assert max(sizes) < sizes[0] + 1_000_000


async def test_a_body_that_is_faulty_in_its_middle_is_refused(served: Any, routes: Any) -> None:
    server = await served(Application(routes))
    async with await server.connect() as stream:
        await stream.send_all(
            b"POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n"
        )
        await wait_all_tasks_blocked()
        await stream.send_all(b"four\r\n" + GET)
        answer = await everything(stream)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"HTTP/1.1 200" not in answer


async def test_a_refusal_ends_what_the_server_says_and_waits_for_what_the_client_does(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "LINGER_SECONDS", 1000)
    server = await served(hello)
    async with await server.connect() as stream:
        await stream.send_all(b"nonsense")
        await stream.send_all(bytes(5_000_000))
        assert (await everything(stream)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_client_that_goes_on_after_a_faulty_chunk_gets_the_refusal(
    served: Any, routes: Any
) -> None:
    server = await served(Application(routes))
    async with await server.connect() as stream:
        await stream.send_all(
            b"POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nfaulty\r\n"
        )
        await stream.send_all(bytes(5_000_000))
        assert (await everything(stream)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("requests", [0, 3])
async def test_what_is_faulty_is_refused_after_what_came_before_it(
    served: Any, requests: int
) -> None:
    server = await served(hello)
    async with await server.connect() as stream:
        await stream.send_all(GET * requests + b"GET\0" + GET)
        answers = await everything(stream)
    assert answers.count(b"HTTP/1.1 200") == requests
    assert answers.count(b"HTTP/1.1 400") == 1
    assert answers.rfind(b"HTTP/1.1 200") < answers.index(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\r\n\r\nHTTP/1.1 200 OK"),
        (b"x", b"a\nb: c"),
        (b"x", b"a\rb"),
        (b"x\r\nset-cookie: a\r\nx", b""),
        (b"x\n", b""),
    ],
)
async def test_no_value_of_a_header_becomes_another_line(
    served: Any, header: tuple[bytes, bytes]
) -> None:
    async def handler(exchange: Any) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            await exchange.start(200, [header])
        name, value = (part.decode() for part in header)
        with pytest.raises(ValueError, match="not allowed"):
            await exchange.respond(Response(headers={name: value}))
        assert exchange.status == 0
        await exchange.respond(HELLO)

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET)
        await stream.send_eof()
        answer = await everything(stream)
    assert (answer.count(b"HTTP/1.1"), b"set-cookie" in answer) == (1, False)


async def test_the_stop_tells_the_clients_of_requests_in_flight(served: Any) -> None:
    waiting = Waiting()
    server = await served(waiting, grace_seconds=60)
    async with await server.connect() as stream, await server.connect() as idle:
        await stream.send_all(GET * 2)
        await waiting.entered.wait()
        server.stopping.set()
        assert await everything(idle) == b""
        waiting.go_on.set()
        answer = await everything(stream)
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 200") == 1
    with trio.fail_after(5):
        await server.stopped.wait()


async def test_a_connection_that_comes_with_the_stop_is_closed(served: Any) -> None:
    waiting = Waiting()
    server = await served(waiting, grace_seconds=60)
    async with await server.connect() as busy:
        await busy.send_all(GET)
        await waiting.entered.wait()
        late = socket.create_connection(("127.0.0.1", server.port))
        late.setblocking(False)
        # Without a checkpoint in between: it is accepted, but nobody has looked at it yet.
        server.stopping.set()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(late)) as stream:
            with suppress(trio.BrokenResourceError):
                assert await everything(stream) == b""
        waiting.go_on.set()
        assert (await everything(busy)).endswith(b"hello")


async def test_what_was_answered_is_freed_without_a_collection(served: Any, routes: Any) -> None:
    server = await served(Application(routes))
    async with await server.connect() as stream:
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await stream.send_all(GET.replace(b"/ ", b"/hello "))
                assert (await stream.receive_some(1000)).endswith(b"hello")
            assert gc.collect() < 100
        finally:
            gc.enable()


async def test_a_large_response_is_not_copied(served: Any) -> None:
    body = bytes(20_000_000)

    async def handler(exchange: Any) -> None:
        await exchange.respond(Response(body=body))

    server = await served(handler)
    tracemalloc.start()
    async with await server.connect() as stream:
        await stream.send_all(GET)
        received = 0
        with trio.fail_after(10):
            while received < len(body):
                received += len(await stream.receive_some(65536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


async def hellos(stream: trio.SocketStream, count: int) -> None:
    """Return when so many have come."""
    received = b""
    with trio.fail_after(10):
        while received.count(b"hello") < count:
            received += await stream.receive_some(65536)


@pytest.mark.parametrize(
    "framing",
    [b"content-length: 4\r\n\r\n%b", b"transfer-encoding: chunked\r\n\r\n4\r\n%b\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
async def test_a_body_that_has_come_is_there_without_waiting(served: Any, framing: bytes) -> None:
    bodies: list[bytes | None] = []

    async def handler(exchange: Any) -> None:
        bodies.append(exchange.whole())
        if bodies[-1] is None:
            bodies.append(await exchange.receive())
        assert exchange.ended or await exchange.receive() == b""
        await exchange.respond(Response(body=b"hello"))

    server = await served(handler)
    request = b"PUT / HTTP/1.1\r\nhost: h\r\n" + framing % b"ping"
    async with await server.connect() as stream:
        await stream.send_all(request)
        await hellos(stream, 1)
        await stream.send_all(request[: request.index(b"ping")])
        await wait_all_tasks_blocked()
        await stream.send_all(request[request.index(b"ping") :] + GET)
        await hellos(stream, 2)
    assert bodies == [b"ping", None, b"ping", b""]


async def test_what_is_done_for_a_request_can_be_cancelled_with_its_connection(
    served: Any,
) -> None:
    cancelled = trio.Event()

    async def handler(exchange: Any) -> None:
        exchange.abandon()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    server = await served(handler)
    async with await server.connect() as stream:
        await stream.send_all(GET)
        assert await everything(stream) == b""
    assert cancelled.is_set()


@pytest.mark.parametrize("size", [5, 200_000])
async def test_a_response_may_begin_with_a_piece_of_its_body(served: Any, size: int) -> None:
    async def handler(exchange: Any) -> None:
        framing = [(b"content-length", b"%d" % (size + 1))] if exchange.request.path == "/l" else []
        await exchange.start(200, framing, bytes(size))
        await exchange.send(b"e")
        await exchange.finish()

    server = await served(handler)
    for path in ("/l", "/c"):
        assert (await server.client.get(path)).content == bytes(size) + b"e"
        head = await server.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
