from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx2
import msgspec
import pytest
import trio

from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache
from sidecar.http.application import Application
from sidecar.http.http1 import serve
from sidecar.http.listening import bind
from sidecar.pressure import Pressure
from sidecar.proxy.api import routes
from sidecar.proxy.proxy import Proxy
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Redactions
from tests.upstream import Upstream, open_upstream

MAX_BODY = 2**20
EMAIL = {"id": "email", "find": "email"}


class Heard(msgspec.Struct):
    """A response; ``headers`` are pairs of lower-case name and value in their order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of a header, one each line."""
        return [value for other, value in self.headers if other == name]


class Wire:
    """A client that sends exactly what it is told to, and reads responses strictly."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.informational: list[int] = []
        self._parser = h11.Connection(h11.CLIENT)

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        await self.stream.send_all(data)

    async def event(self) -> Any:
        """Return the next event of the response; raises `h11.RemoteProtocolError` at a cut."""
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            with trio.fail_after(10):
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    data = b""
            self._parser.receive_data(data)
        return event

    async def head(self, method: str = "GET") -> h11.Response:
        """Return the head of the response to a request of this method."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        self._parser.send(h11.EndOfMessage())
        while isinstance(event := await self.event(), h11.InformationalResponse):
            self.informational.append(event.status_code)
        assert isinstance(event, h11.Response)
        return event

    async def hear(self, method: str = "GET") -> Heard:
        """Return the response to a request of this method."""
        head, body = await self.head(method), b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert not event.headers
        shown = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
        return Heard(head.status_code, shown, body)

    async def ask(
        self, line: str, *headers: str, body: bytes = b"", host: str = "host: h"
    ) -> Heard:
        """Send a request (``GET /proxy/up/x``, headers such as ``name: value``); return the answer.

        A body gets its ``Content-Length``.
        """
        lines = [f"{line} HTTP/1.1", host, *headers]
        if body:
            lines.append(f"content-length: {len(body)}")
        await self.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return await self.hear(line.partition(" ")[0])

    async def ended(self) -> bool:
        """Tell whether the server closes the connection and says nothing more."""
        with trio.fail_after(10):
            try:
                return await self.stream.receive_some(1) == b""
            except trio.BrokenResourceError:
                return True


class Served:
    """A proxy on a real socket.

    Attributes:
        client: speaks to it; paths are those below ``/proxy/``.
        cache: of its answers.
        redactions: what it found.
        stopping: set it, and no new call is taken.
    """

    def __init__(self, folder: Path, cache: Cache) -> None:
        self._folder = folder
        self.cache = cache
        self.redactions = Redactions()
        self.stopping = trio.Event()
        self.port = 0

    def declare(self, *declared: dict[str, Any], **file: Any) -> None:
        """Write the rules folder."""
        content = {"version": 1, "rules": [EMAIL], "routes": list(declared), **file}
        (self._folder / "rules.json").write_bytes(msgspec.json.encode(content))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        """Open a connection to it."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield Wire(stream)

    async def reload(self) -> None:
        """Put what is declared now in force."""
        await self.rules.look(asked=True)

    async def start(self, nursery: trio.Nursery) -> None:
        """Serve what is declared."""
        self.rules = RulesInForce(self._folder)
        self.pressure = Pressure(MAX_BODY, None)
        self.proxy = Proxy(
            self.rules,
            self.cache,
            self.redactions,
            self.pressure,
            MAX_BODY,
            self.stopping.is_set,
        )
        sock = bind("127.0.0.1", 0)
        self.port = sock.getsockname()[1]
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/proxy", timeout=30, follow_redirects=False
        )

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(
                Application(routes(self.proxy), self.pressure),
                sock,
                stopping=trio.Event(),
                grace_seconds=0,
                task_status=task_status,
            )

        await nursery.start(self.cache.run)
        await nursery.start(self.proxy.run)
        await nursery.start(run)


Start = Callable[..., Awaitable[Served]]


@pytest.fixture
async def start(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Start]:
    """Return ``await start(route, …, redis_url="")``, which serves these routes."""
    started: list[Served] = []

    async def run(*declared: dict[str, Any], redis_url: str = "", **file: Any) -> Served:
        folder = tmp_path / f"rules-{len(started)}"
        folder.mkdir()
        served = Served(folder, Cache(2**24, RedisCache(redis_url) if redis_url else None))
        started.append(served)
        served.declare(*declared, **file)
        await served.start(nursery)
        return served

    yield run
    for served in started:
        await served.client.aclose()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Run a real upstream."""
    async with open_upstream() as running:
        yield running
