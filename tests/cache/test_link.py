import sys

import trio

from tests.valkey import Valkey

_TWO_CACHES = """
import sys
import structlog.testing
import trio
from sidecar.cache.redis import RedisCache

async def main():
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(RedisCache("redis://127.0.0.1:1").run)
            while not lines:
                await trio.sleep(0.01)
            print("coredis" in sys.modules)
            there = RedisCache(sys.argv[1])
            await nursery.start(there.run)
            while not there.connected:
                await trio.sleep(0.01)
            print("coredis" in sys.modules)
            nursery.cancel_scope.cancel()

trio.run(main)
"""


async def test_the_library_is_imported_when_a_redis_is_there(server: Valkey) -> None:
    with trio.fail_after(30):
        done = await trio.run_process(
            [sys.executable, "-c", _TWO_CACHES, server.url], capture_stdout=True
        )
    assert done.stdout.split() == [b"False", b"True"]
