from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sidecar.http.asgi import Receive, Scope, Send
from sidecar.http.http2 import serve
from sidecar.http.listening import bind


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    sock = bind("127.0.0.1", 0)
    port: int = sock.getsockname()[1]

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve(echo, sock, stopping=trio.Event(), grace_seconds=1, task_status=task_status)

    await nursery.start(run)
    return port


@pytest.fixture
async def client(port: int) -> AsyncIterator["Http2"]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Http2(stream)


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


async def test_one_connection_takes_thousands_of_requests(client: Http2) -> None:
    for _ in range(1500):
        assert await client.receive(await client.send("/", b"ping")) == (b"200", b"ping")


async def test_a_connection_that_breaks_the_protocol_harms_no_other(
    client: Http2, port: int
) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await Http2(stream).send("/h\u00e9", b"")
        with trio.fail_after(10):
            while await stream.receive_some(65536):
                pass
    assert await client.receive(await client.send("/", b"ping")) == (b"200", b"ping")


async def test_a_client_that_does_not_read_does_not_hold_up_the_stop(
    nursery: trio.Nursery,
) -> None:
    sending, stopping, stopped = trio.Event(), trio.Event(), trio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sending.set()
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve(flood, sock, stopping=stopping, grace_seconds=0.1, task_status=task_status)
        stopped.set()

    await nursery.start(run)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Http2(stream)
        # So that it is the socket that is full, not the window of HTTP/2.
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        client.h2.increment_flow_control_window(2**31 - 1 - 65535)
        await client.send("/", b"")
        await sending.wait()
        await wait_all_tasks_blocked(0.2)
        stopping.set()
        with trio.fail_after(5):
            await stopped.wait()
