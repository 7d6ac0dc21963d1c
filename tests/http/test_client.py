import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from sidecar.http.client import Client, ClientError, Failure, Waits

WAITS = Waits(connect=5, head=5, idle=5)
HEADERS = [(b"host", b"h")]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# More than the kernel takes before anyone reads.
LARGE = 20_000_000


class Peer:
    """One connection, as the origin has it.

    Attributes:
        number: of the connection, from 0.
    """

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self._received = bytearray()

    async def head(self) -> bytes:
        """Return the next head; what comes with it is the beginning of `rest`."""
        while b"\r\n\r\n" not in self._received:
            piece = await self.stream.receive_some(65536)
            if not piece:
                raise trio.BrokenResourceError
            self._received += piece
        end = self._received.index(b"\r\n\r\n") + 4
        head = bytes(self._received[:end])
        del self._received[:end]
        return head

    async def body(self, size: int) -> bytes:
        while len(self._received) < size:
            piece = await self.stream.receive_some(65536)
            if not piece:
                raise trio.BrokenResourceError
            self._received += piece
        body = bytes(self._received[:size])
        del self._received[:size]
        return body

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ended(self) -> None:
        """Wait until the client closes the connection."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(65536):
                pass


class Origin:
    """What the client talks to.

    Attributes:
        heads: of all requests, with the number of their connection.
        opened: how many connections there were, and
        open: are.
    """

    def __init__(self, script: Callable[[Peer, "Origin"], Awaitable[None]]) -> None:
        self._script = script
        self.heads: list[tuple[int, bytes]] = []
        self.opened = 0
        self.open = 0
        self.port = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        number = self.opened
        self.opened += 1
        self.open += 1
        try:
            await self._script(Peer(stream, number), self)
        except trio.BrokenResourceError:
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def all_closed(self) -> None:
        with trio.fail_after(5):
            while self.open:
                await trio.sleep(0.001)


async def answering(peer: Peer, origin: Origin) -> None:
    """Answer every request with the number of its connection."""
    while True:
        origin.heads.append((peer.number, await peer.head()))
        body = b"%d" % peer.number
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


def saying(*pieces: bytes) -> Any:
    """Return a script that answers every request with these bytes, then waits for the end."""

    async def script(peer: Peer, origin: Origin) -> None:
        origin.heads.append((peer.number, await peer.head()))
        for piece in pieces:
            await peer.say(piece)
        await peer.ended()

    return script


Start = Callable[..., Awaitable[Origin]]
_clients: list[Client] = []


@pytest.fixture
async def start(nursery: trio.Nursery) -> AsyncIterator[Start]:
    """Return ``await start(script, tls=None)``; what `client_of` has made is closed at the end."""

    async def run(script: Any, tls: ssl.SSLContext | None = None) -> Origin:
        origin = Origin(script)
        listener: trio.abc.Listener[Any]
        (listener,) = tcp = await trio.open_tcp_listeners(0, host="127.0.0.1")
        origin.port = tcp[0].socket.getsockname()[1]
        if tls is not None:
            listener = trio.SSLListener(listener, tls, https_compatible=True)
        nursery.start_soon(trio.serve_listeners, origin.serve, [listener])
        return origin

    yield run
    while _clients:
        _clients.pop().close()


def client_of(
    origin: Origin | str, tls: ssl.SSLContext | None = None, waits: Waits = WAITS, **options: Any
) -> Client:
    if isinstance(origin, Origin):
        origin = f"{'http' if tls is None else 'https'}://127.0.0.1:{origin.port}"
    _clients.append(Client(origin, tls, waits, **options))
    return _clients[-1]


async def call(
    client: Client, method: str = "GET", body: bytes | AsyncIterator[bytes] = b"", **options: Any
) -> bytes:
    """Return the whole body of the response to a call."""
    headers = options.get("headers", HEADERS)
    if isinstance(body, bytes) and body:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    elif not isinstance(body, bytes):
        headers = [*headers, (b"transfer-encoding", b"chunked")]
    async with client.call(method, b"/", headers, body) as response:
        return b"".join([piece async for piece in response])


async def failure_of(client: Client, *args: Any) -> Failure:
    with trio.fail_after(10), pytest.raises(ClientError) as caught:
        await call(client, *args)
    return caught.value.failure


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_call_and_what_comes_of_it(start: Start) -> None:
    origin = await start(
        saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX: a\r\nx: b \r\n", b"\r\nbo")
    )
    client = client_of(origin)
    headers = [(b"host", b"h"), (b"X-One", b"1"), (b"x-one", b"2")]
    async with client.call("GET", b"/a?b", headers) as response:
        assert (response.status, response.headers) == (201, [(b"x", b"a"), (b"x", b"b")])
        assert await anext(response) == b"bo"
    assert origin.heads == [(0, b"GET /a?b HTTP/1.1\r\nhost: h\r\nX-One: 1\r\nx-one: 2\r\n\r\n")]
    await origin.all_closed()


async def test_bodies_are_sent_as_they_are_framed(start: Start) -> None:
    received = []

    async def script(peer: Peer, origin: Origin) -> None:
        while True:
            head = await peer.head()
            if b"chunked" in head:
                received.append(await peer.body(len(b"3\r\none\r\n4\r\ntwo \r\n0\r\n\r\n")))
            else:
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                received.append(await peer.body(length))
            await peer.say(OK)

    origin = await start(script)
    client = client_of(origin)
    sized = [*HEADERS, (b"content-length", b"7")]
    assert await call(client, "PUT", b"whole") == b"ok"
    assert await call(client, "PUT", bytes(200_000)) == b"ok"
    assert await call(client, "PUT", pieces_of(b"one", b"two ")) == b"ok"
    async with client.call("PUT", b"/", sized, pieces_of(b"one", b"two ")) as response:
        assert [piece async for piece in response] == [b"ok"]
    chunks = b"3\r\none\r\n4\r\ntwo \r\n0\r\n\r\n"
    assert received == [b"whole", bytes(200_000), chunks, b"onetwo "]
    assert origin.opened == 1


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET /x HTTP/1.1\r\nhost: a\r\n\r\nGET", b"/", []),
        ("GET", b"/ HTTP/1.1\r\nhost: a\r\n\r\n", []),
        ("GET", b"/a b", []),
        ("GET", b"/\n", []),
        ("G ET", b"/", []),
        ("GÉT", b"/", []),
        ("GET", b"/", [(b"a", b"b\r\nc: d")]),
        ("GET", b"/", [(b"a", b"b\nc: d")]),
        ("GET", b"/", [(b"a", b"b\rc: d")]),
        ("GET", b"/", [(b"a\r\nb", b"c")]),
    ],
)
async def test_no_part_of_a_head_becomes_another_line(
    start: Start, method: str, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    client = client_of(await start(answering), most=1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"not allowed|can't encode"):
            async with client.call(method, target, headers):
                pass
    assert await call(client) == b"0"


async def test_the_connection_that_was_used_last_is_used_first(start: Start) -> None:
    origin = await start(answering)
    client = client_of(origin, kept=2)
    async with (
        client.call("GET", b"/", HEADERS) as first,
        client.call("GET", b"/", HEADERS) as second,
        client.call("GET", b"/", HEADERS) as third,
    ):
        for response in (first, second, third):
            async for _ in response:
                pass
    # The last one of those that end is one too many.
    assert [await call(client) for _ in range(3)] == [b"1"] * 3
    with trio.fail_after(5):
        while origin.open > 2:
            await trio.sleep(0.001)
    client.close()
    await origin.all_closed()
    assert await call(client) == b"3"


async def test_a_connection_is_not_kept_longer_than_it_may_be(start: Start) -> None:
    origin = await start(answering)
    client = client_of(origin, kept_seconds=0)
    assert [await call(client) for _ in range(3)] == [b"0", b"1", b"2"]
    client.close_expired()
    await origin.all_closed()
    client = client_of(origin)
    assert await call(client) == b"3"
    client.close_expired()
    assert await call(client) == b"3"


@pytest.mark.parametrize("last", [b"", OK, b"\r\n"], ids=["end", "response", "line"])
async def test_a_connection_on_which_something_has_come_is_not_used_again(
    start: Start, last: bytes
) -> None:
    go_on = trio.Event()

    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.say(OK)
        if peer.number == 0:
            await go_on.wait()
            if last:
                await peer.say(last)
                await peer.ended()

    origin = await start(script)
    client = client_of(origin)
    for method in ("GET", "POST"):
        assert await call(client, method) == b"ok"
        go_on.set()
        await wait_all_tasks_blocked(0.01)
    assert origin.opened == 2


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", OK + OK),
        ("GET", OK + b"\0"),
        ("HEAD", OK),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nbody"),
        ("GET", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ],
)
async def test_a_connection_is_not_used_again_after(
    start: Start, method: str, answer: bytes
) -> None:
    origin = await start(saying(answer))
    client = client_of(origin)
    assert await call(client, method) in (b"ok", b"")
    assert await call(client, method) in (b"ok", b"")
    assert origin.opened == 2
    await origin.all_closed()


async def test_a_response_that_is_not_read_to_its_end_ends_its_connection(start: Start) -> None:
    origin = await start(answering)
    client = client_of(origin)
    async with client.call("GET", b"/", HEADERS):
        pass
    with pytest.raises(KeyError):
        async with client.call("GET", b"/", HEADERS):
            raise KeyError
    await origin.all_closed()


async def test_there_are_as_many_calls_as_there_may_be(start: Start) -> None:
    origin = await start(answering)
    client = client_of(origin, most=2, waits=Waits(connect=0.1, head=5, idle=5))
    async with client.call("GET", b"/", HEADERS), client.call("GET", b"/", HEADERS):
        assert await failure_of(client) == "busy"
    assert origin.opened == 2

    client = client_of(origin, most=1)
    order = []

    async def one(number: int) -> None:
        await call(client)
        order.append(number)

    async with trio.open_nursery() as nursery, client.call("GET", b"/", HEADERS):
        for number in range(5):
            nursery.start_soon(one, number)
            await wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 1, 2, 3, 4]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when any task is run for the nth time."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [5, 200_000], ids=["small", "large"])
async def test_cancelling_a_call_anywhere_leaves_nothing_behind(
    start: Start,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    secure: bool,
    size: int,
) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        while True:
            await peer.head()
            await peer.body(size)
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
            await peer.say(b"do")
            await peer.say(b"ne")

    origin = await start(script, server_tls if secure else None)
    client = client_of(origin, client_tls if secure else None, most=1)
    step, done = 0, b""
    while not done:
        step += 1
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                done = await call(client, "PUT", bytes(size))
            finally:
                trio.lowlevel.remove_instrument(instrument)
        client.close()
        await origin.all_closed()
    assert (done, step > 5) == (b"done", True)
    # The only place is free.
    assert await call(client, "PUT", bytes(size)) == b"done"


@pytest.mark.parametrize(
    ("method", "body", "said", "requests"),
    [
        ("GET", b"", b"", 3),
        ("HEAD", b"", b"", 3),
        ("OPTIONS", b"", b"", 3),
        ("DELETE", b"", b"", 3),
        ("PUT", b"body", b"", 3),
        ("PUT", bytes(100_000), b"", 2),
        ("POST", b"body", b"", 2),
        ("PATCH", b"body", b"", 2),
        ("GET", b"", b"H", 2),
        ("GET", b"", b"HTTP/1.1 100 Continue\r\n\r\n", 2),
        ("GET", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", 2),
    ],
)
@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
async def test_a_call_is_made_again_only_if_nothing_was_said_on_a_kept_connection(
    start: Start, method: str, body: bytes, said: bytes, requests: int, hard: bool
) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        while True:
            head = await peer.head()
            origin.heads.append((peer.number, head))
            if len(origin.heads) == 2:
                break
            await peer.say(OK.removesuffix(b"ok") if head.startswith(b"HEAD") else OK)
        await peer.body(len(body))
        await peer.say(said)
        if hard and not said:
            assert isinstance(peer.stream, trio.SocketStream)
            no_linger = struct.pack("ii", 1, 0)
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)

    origin = await start(script)
    client = client_of(origin)
    assert await call(client) == b"ok"
    if requests == 3:
        assert await call(client, method, body) in (b"ok", b"")
    else:
        assert await failure_of(client, method, body) == "cut"
    assert len(origin.heads) == requests
    assert await call(client) == b"ok"


async def test_a_call_is_not_made_again_on_a_new_connection_nor_a_third_time(start: Start) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        origin.heads.append((peer.number, await peer.head()))
        if peer.number == 1:
            await peer.say(OK)
            origin.heads.append((peer.number, await peer.head()))

    origin = await start(script)
    client = client_of(origin)
    assert await failure_of(client) == "cut"
    assert len(origin.heads) == 1
    assert await call(client) == b"ok"
    assert await failure_of(client) == "cut"
    assert [number for number, _ in origin.heads] == [0, 1, 1, 2]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)


@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("whole", [False, True])
async def test_an_answer_that_comes_before_the_end_of_the_request_is_taken(
    start: Start, whole: bool, reading: bool
) -> None:
    go_on = trio.Event()

    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        if not reading:
            await go_on.wait()
        await peer.ended()

    origin = await start(script)
    client = client_of(origin, most=1)
    for _ in range(2):
        with trio.fail_after(5):
            assert await call(client, "PUT", bytes(LARGE) if whole else endless()) == b"no"
    assert origin.opened == 2
    go_on.set()
    await origin.all_closed()


async def test_an_origin_that_answers_and_closes_is_heard_though_it_takes_no_more(
    start: Start,
) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.body(1_000_000)
        await peer.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        assert isinstance(peer.stream, trio.SocketStream)
        await peer.stream.send_eof()
        await peer.ended()

    client = client_of(await start(script))
    with trio.fail_after(5):
        assert await call(client, "PUT", bytes(LARGE)) == b"no"


@pytest.mark.parametrize("sent", [0, 1, 100])
async def test_what_a_body_raises_comes_out(start: Start, sent: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(sent):
            yield b"piece"
        raise KeyError("lost")

    origin = await start(saying())
    client = client_of(origin, most=1)
    for _ in range(2):
        with trio.fail_after(5), pytest.raises(KeyError, match="lost"):
            await call(client, "PUT", body())
    await origin.all_closed()
    assert origin.opened == 2


async def test_what_a_body_raises_comes_out_though_the_response_is_being_read(start: Start) -> None:
    go_on = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"
        await go_on.wait()
        raise KeyError("lost")

    origin = await start(saying(OK[:-1]))
    client = client_of(origin)

    async def read() -> None:
        async with client.call("PUT", b"/", HEADERS, body()) as response:
            assert await anext(response) == b"o"
            go_on.set()
            await anext(response)

    with trio.fail_after(5), pytest.raises(KeyError, match="lost"):
        await read()
    await origin.all_closed()


@pytest.mark.parametrize("large", [False, True])
async def test_what_the_caller_raises_comes_out_as_it_is(start: Start, large: bool) -> None:
    origin = await start(answering)
    client = client_of(origin, most=1)
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            async with client.call("PUT", b"/", HEADERS, endless() if large else b""):
                raise KeyError("mine")
    await origin.all_closed()


async def test_over_tls_a_call_is_as_without(
    start: Start, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    origin = await start(answering, server_tls)
    client = client_of(origin, client_tls)
    assert [await call(client, method) for method in ("GET", "POST")] == [b"0", b"0"]
    client.close()
    await origin.all_closed()
    assert await call(client) == b"1"


async def test_an_origin_that_is_not_known_is_not_talked_to(
    start: Start, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    origin = await start(answering, server_tls)
    stranger = client_of(origin, ssl.create_default_context())
    assert await failure_of(stranger) == "tls"
    named = client_of(f"https://localhost:{origin.port}", client_tls)
    assert await failure_of(named) == "tls"
    assert origin.heads == []

    async def plain(peer: Peer, origin: Origin) -> None:
        await peer.say(OK)
        await peer.ended()

    assert await failure_of(client_of(await start(plain), client_tls)) == "tls"


async def test_an_origin_that_does_not_listen_or_hangs_up_is_not_connected_to(
    start: Start, client_tls: ssl.SSLContext
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert await failure_of(client_of(f"http://127.0.0.1:{port}")) == "connect"
    assert await failure_of(client_of("http://nowhere.invalid")) == "connect"

    async def closing(peer: Peer, origin: Origin) -> None:
        pass

    origin = await start(closing)
    assert await failure_of(client_of(origin, client_tls)) in (
        "connect",
        "tls",
    )


SHORT = 0.1


async def test_a_connection_is_not_waited_for_longer_than_it_may_be(
    start: Start, client_tls: ssl.SSLContext
) -> None:
    waits = Waits(connect=SHORT, head=5, idle=5)
    with socket.socket() as full, socket.socket() as one, socket.socket() as other:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (one, other):
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        port = full.getsockname()[1]
        assert await failure_of(client_of(f"http://127.0.0.1:{port}", waits=waits)) == "timeout"

    async def silent(peer: Peer, origin: Origin) -> None:
        await trio.sleep_forever()

    origin = await start(silent)
    assert await failure_of(client_of(origin, client_tls, waits)) == "timeout"


async def dripping(peer: Peer, origin: Origin) -> None:
    await peer.head()
    for byte in OK + bytes(100):
        await peer.say(bytes([byte]))
        await trio.sleep(SHORT / 10)


async def test_a_head_is_not_waited_for_longer_than_it_may_be(start: Start) -> None:
    waits = Waits(connect=5, head=SHORT, idle=5)
    for script in (saying(), saying(b"HTTP/1.1 100 Continue\r\n\r\n"), dripping):
        origin = await start(script)
        client = client_of(origin, waits=waits)
        for body in (b"", pieces_of(b"piece"), bytes(100_000)):
            assert await failure_of(client, "PUT", body) == "timeout"
        await origin.all_closed()


async def test_each_piece_is_waited_for_anew(start: Start) -> None:
    waits = Waits(connect=5, head=5, idle=SHORT)
    assert await call(client_of(await start(dripping), waits=waits)) == b"ok"
    client = client_of(await start(saying(OK[:-1])), waits=waits)
    assert await failure_of(client) == "timeout"


async def test_an_origin_that_takes_nothing_is_not_waited_for_longer_than_it_may_be(
    start: Start,
) -> None:
    async def silent(peer: Peer, origin: Origin) -> None:
        await trio.sleep_forever()

    origin = await start(silent)
    client = client_of(origin, waits=Waits(connect=5, head=5, idle=SHORT), most=1)
    for body in (bytes(LARGE), endless()):
        assert await failure_of(client, "PUT", body) == "timeout"


async def test_a_head_may_take_its_time_while_the_body_does(start: Start) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            await trio.sleep(SHORT / 2)
            yield b"piece"

    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.body(5 * len(b"5\r\npiece\r\n") + 5)
        await peer.say(OK)

    client = client_of(await start(script), waits=Waits(connect=5, head=SHORT, idle=SHORT))
    assert await call(client, "PUT", body()) == b"ok"


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"nonsense\r\n\r\n", "protocol"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "protocol"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "protocol"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 300_000, "protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "cut"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "cut"),
        (b"HTTP/1.1 200 OK\r\n", "cut"),
        (b"", "cut"),
    ],
)
@pytest.mark.parametrize("calls", [1, 20])
async def test_what_is_no_response_or_no_end_of_it_is_told(
    start: Start, answer: bytes, failure: Failure, calls: int
) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.say(answer)

    async def fail() -> None:
        failures.append(await failure_of(client))

    origin = await start(script)
    client, failures = client_of(origin), list[Failure]()
    async with trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(fail)
    assert failures == [failure] * calls
    await origin.all_closed()


async def test_calls_at_a_time_get_each_its_own_response(start: Start) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        while True:
            size = int((await peer.head()).partition(b"content-length: ")[2].split()[0])
            body = await peer.body(size)
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, body))

    client = client_of(await start(script))

    async def ask(number: int) -> None:
        for size in range(1, 30):
            body = b"%d" % number * size
            assert await call(client, "POST", body) == body

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)


async def test_a_response_may_end_with_its_connection(start: Start) -> None:
    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.0 200\r\n\r\nall of ")
        await peer.say(b"it")

    assert await call(client_of(await start(script))) == b"all of it"


async def test_large_bodies_take_no_memory(start: Start) -> None:
    size = 10 * 2**20

    async def script(peer: Peer, origin: Origin) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await peer.say(await peer.body(65536))
        await peer.ended()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield bytes(65536)

    client = client_of(await start(script))
    headers = [*HEADERS, (b"content-length", b"%d" % size)]
    received = 0
    tracemalloc.start()
    try:
        async with client.call("PUT", b"/", headers, body()) as response:
            async for piece in response:
                received += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (received, peak < 2_000_000) == (size, True)
