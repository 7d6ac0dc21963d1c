from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import trio

from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache
from sidecar.http.asgi import Application
from sidecar.http.server import bind, serve
from sidecar.pressure import Pressure
from sidecar.proxy.api import routes
from sidecar.proxy.proxy import Proxy
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Redactions
from tests.upstream import Upstream, open_upstream

MAX_BODY = 2**20
EMAIL = {"id": "email", "find": "email"}


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

    async def start(self, nursery: trio.Nursery) -> None:
        """Serve what is declared."""
        self.rules = RulesInForce(self._folder)
        self.proxy = Proxy(
            self.rules,
            self.cache,
            self.redactions,
            Pressure(MAX_BODY, None),
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
                Application(routes(self.proxy)),
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
