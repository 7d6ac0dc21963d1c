import errno
import socket
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.http.asgi import Application
from sidecar.http.messages import Request, Response
from sidecar.http.server import bind, serve


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


class Http2:
    """An HTTP/2 client by prior knowledge, one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()

    async def send(self, path: str, body: bytes, *, end: bool = True) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "h")]
        self.h2.send_headers(stream_id, head)
        if body or end:
            self.h2.send_data(stream_id, body, end_stream=end)
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def receive(self, stream_id: int) -> tuple[bytes, bytes]:
        status = body = b""
        while True:
            with trio.fail_after(10):
                data = await self.stream.receive_some(65536)
            assert data, "the server closed the connection"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id == stream_id:
                    await self.flush()
                    return status, body
            await self.flush()


async def test_http2_by_prior_knowledge_takes_thousands_of_requests(server: Any) -> None:
    async with await server.connect() as stream:
        client = Http2(stream)
        for _ in range(1500):
            assert await client.receive(await client.send("/echo", b"ping")) == (b"200", b"ping")


async def test_an_early_refusal_over_http2_leaves_the_connection_usable(server: Any) -> None:
    async with await server.connect() as stream:
        client = Http2(stream)
        refused = await client.send("/deaf", b"x" * 10_000, end=False)
        client.h2.send_data(refused, b"x" * 10_000, end_stream=True)
        await client.flush()
        status, _ = await client.receive(refused)
        assert status == b"415"
        assert await client.receive(await client.send("/echo", b"ping")) == (b"200", b"ping")


@pytest.mark.parametrize("fault", ["path", "late data"])
async def test_a_connection_that_breaks_the_protocol_harms_no_other(
    server: Any, fault: str
) -> None:
    async with await server.connect() as stream:
        client = Http2(stream)
        if fault == "path":
            await client.send("/h\u00e9", b"")
        else:
            refused = await client.send("/deaf", b"x", end=False)
            await client.receive(refused)  # after the server has waited for the end of the body
            client.h2.send_data(refused, b"x" * 1000)
            await client.flush()
        with trio.fail_after(10):
            while await stream.receive_some(65536):
                pass
    assert (await server.client.get("/hello")).status_code == 200
