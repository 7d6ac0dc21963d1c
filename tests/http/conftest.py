from collections.abc import AsyncIterator, Awaitable, Callable

import h11
import httpx2
import msgspec
import pytest
import trio

from sidecar.http.application import Application
from sidecar.http.body import read_body, read_json
from sidecar.http.http1 import serve
from sidecar.http.listening import bind
from sidecar.http.messages import Handler, HTTPError, Request, Response, json_response
from sidecar.http.routing import Body, Route

LIMIT = 256 * 1024


class Served:
    """A server on a free port, and a client that speaks to it."""

    def __init__(self, port: int, client: httpx2.AsyncClient) -> None:
        self.port = port
        self.client = client
        self.stopping = trio.Event()
        self.stopped = trio.Event()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def served(nursery: trio.Nursery) -> AsyncIterator[Serve]:
    """Return ``await served(app, grace_seconds=5.0)``."""
    clients = []

    async def start(app: Application, grace_seconds: float = 5.0) -> Served:
        sock = bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        clients.append(client)
        server = Served(port, client)

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(
                app,
                sock,
                stopping=server.stopping,
                grace_seconds=grace_seconds,
                task_status=task_status,
            )
            server.stopped.set()

        await nursery.start(run)
        return server

    yield start
    for client in clients:
        await client.aclose()


class Point(msgspec.Struct):
    x: int
    y: int = 0


async def echo(request: Request) -> Response:
    body = await read_body(request, LIMIT)
    return Response(headers={"content-type": "application/octet-stream"}, body=body)


async def point(request: Request) -> Response:
    return json_response(await read_json(request, Point, LIMIT))


async def hello(request: Request) -> Response:
    return Response(headers={"content-type": "text/plain"}, body=b"hello")


async def deaf(request: Request) -> Response:
    raise HTTPError(415, "Not this one.")


async def failing(request: Request) -> Response:
    secret = (await read_body(request, LIMIT)).decode()
    raise ValueError(f"cannot read {secret}")


async def about(request: Request) -> Response:
    return json_response([request.method, request.path, request.query, dict(request.headers)])


async def nothing(request: Request) -> Response:
    return Response(204)


def route(method: str, path: str, handler: Handler) -> Route:
    return Route(
        method=method, path=path, handler=handler, summary="", tag="", responses={200: Body("")}
    )


ROUTES = [
    route("POST", "/echo", echo),
    route("POST", "/point", point),
    route("GET", "/hello", hello),
    route("POST", "/deaf", deaf),
    route("POST", "/failing", failing),
    route("GET", "/a bout/é", about),
    route("DELETE", "/nothing", nothing),
]


@pytest.fixture
async def server(served: Serve) -> Served:
    """Return a server of a few small routes."""
    return await served(Application(ROUTES))


@pytest.fixture
def routes() -> list[Route]:
    """Return the routes of `server`."""
    return list(ROUTES)


class Conversation:
    """An HTTP/1.1 client that says exactly what it is told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._parser = h11.Connection(h11.CLIENT)

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self, method: bytes = b"GET") -> tuple[int, dict[bytes, bytes], bytes]:
        """Return the next response: status, headers, body."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        self._parser.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                with trio.fail_after(10):
                    self._parser.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, headers, body

    async def ended(self) -> bool:
        """Tell whether the server closes the connection and says nothing more."""
        with trio.fail_after(10):
            return await self.stream.receive_some(1) == b""


@pytest.fixture
async def talk(server: Served) -> AsyncIterator[Conversation]:
    """Return a conversation with `server`."""
    async with await server.connect() as stream:
        yield Conversation(stream)


@pytest.fixture
def route_of() -> Callable[[str, str, Handler], Route]:
    """Return ``route_of(method, path, handler)``, which makes an undocumented route."""
    return route
