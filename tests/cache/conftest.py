from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache
from tests.valkey import Relay, Valkey, run_valkey

MEMORY_BYTES = 2**22

Wait = Callable[..., Awaitable[None]]
Start = Callable[..., Awaitable[Cache]]


@pytest.fixture
async def server() -> AsyncIterator[Valkey]:
    """Run one real server."""
    async with run_valkey() as running:
        yield running


@pytest.fixture
async def relay(server: Valkey, nursery: trio.Nursery) -> Relay:
    """Run a network in front of the server."""
    running = Relay(server.port)
    await nursery.start(running.run)
    return running


async def value(cache: Cache, key: str) -> bytes | None:
    """Return what a cache has under a key."""
    found = await cache.get(key)
    return None if found is None else found.value


async def sees(cache: Cache, key: str, expected: bytes | None) -> None:
    """Wait until a cache has been told of what another one has written."""
    with trio.fail_after(5):
        while await value(cache, key) != expected:
            await trio.lowlevel.checkpoint()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until the condition holds; fail when it does not within the time."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    """Return ``await start(url, call_seconds=2.0)``, which runs a cache as one pod does.

    The long time limit keeps a busy machine from looking like a lost server.
    """

    async def run(url: str, call_seconds: float = 2.0, max_bytes: int = MEMORY_BYTES) -> Cache:
        cache = Cache(max_bytes, RedisCache(url, call_seconds))
        await nursery.start(cache.run)
        return cache

    return run


@pytest.fixture
def connect(start: Start) -> Start:
    """Return the same as `start`, but the cache is connected."""

    async def run(url: str, call_seconds: float = 2.0, max_bytes: int = MEMORY_BYTES) -> Cache:
        cache = await start(url, call_seconds, max_bytes)
        await until(lambda: cache.redis_connected)
        return cache

    return run
