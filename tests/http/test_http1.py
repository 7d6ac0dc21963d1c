import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

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
