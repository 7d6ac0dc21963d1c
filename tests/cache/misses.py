"""A pod that misses one key many times at once: ``python -m tests.cache.misses URL PORT CALLERS``.

It says ``ready`` when Redis is connected, begins when it is told to, fetches from the port on
loopback as its flights tell it, and says how many callers got a value.
"""

import sys

import structlog
import trio

from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache

KEY = "shared"


async def fetch(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        value = b""
        async for piece in stream:
            value += piece
    return value


async def main(url: str, port: int, callers: int) -> None:
    # A busy machine is no lost server.
    cache = Cache(2**22, RedisCache(url, call_seconds=5.0))
    got: list[bytes] = []

    async def call() -> None:
        found = await cache.get(KEY)
        if found is None:
            async with cache.flight(KEY, wait_seconds=30):
                found = await cache.get(KEY)
                if found is None:
                    await cache.set(KEY, await fetch(port), 60)
                    found = await cache.get(KEY)
        assert found is not None
        got.append(found.value)

    async with trio.open_nursery() as nursery:
        await nursery.start(cache.run)
        while not cache.redis_connected:
            await trio.sleep(0.01)
        print("ready", flush=True)  # noqa: T201
        await trio.to_thread.run_sync(sys.stdin.readline)
        async with trio.open_nursery() as calls:
            for _ in range(callers):
                calls.start_soon(call)
        nursery.cancel_scope.cancel()
    print(len(got), len(set(got)), flush=True)  # noqa: T201


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
