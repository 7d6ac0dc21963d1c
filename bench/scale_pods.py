"""Pods as Redis sees them: ``python -m bench.scale_pods URL``, so many caches in one process.

A line on stdin tells what to do, as a JSON list of a function's name and its arguments; a line on
stdout is its answer, when it is done.
"""

import bisect
import itertools
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import structlog
import trio

from bench.cache import _search_results as search_results
from bench.scale_model import NAME_CHARS, Workload, sizes_of
from sidecar import metrics
from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache

_MEMORY_BYTES = 16 * 2**20
_TTL = 3600.0
# A busy machine is no lost server.
_CALL_SECONDS = 5.0


def name_of(number: int, kind: str = "web_search") -> str:
    """Return a key like those of tool calls, of `NAME_CHARS` characters."""
    return f"tool:{kind}:query={number:06}:".ljust(NAME_CHARS, "0")


class Pods:
    """The caches of this process; each public method is what a line may name."""

    def __init__(self, url: str, nursery: trio.Nursery) -> None:
        self._url = url
        self._nursery = nursery
        self._caches: list[Cache] = []

    async def open(self, count: int) -> None:
        """Have so many caches more, all connected."""
        for _ in range(count):
            cache = Cache(_MEMORY_BYTES, RedisCache(self._url, _CALL_SECONDS))
            self._caches.append(cache)
            await self._nursery.start(cache.run)
        await self.connected()

    async def connected(self) -> None:
        """Wait until all caches are connected."""
        # The cache has no event of that.
        while not all(cache.redis_connected for cache in self._caches):  # noqa: ASYNC110
            await trio.sleep(0.01)

    # One call after the other, as a server gets them that has little to do.

    async def look(self, first: int, last: int) -> None:
        """Let each cache look for each key of a range."""
        for number in range(first, last):
            for cache in self._caches:
                await cache.get(name_of(number))

    async def store(self, first: int, last: int, size: int) -> None:
        """Let the caches in turn store values of one size under the keys of a range."""
        value = search_results(size)
        for cache, key in self._in_turn(first, last):
            await cache.set(key, value, _TTL)

    async def fetch(self, first: int, last: int, size: int) -> None:
        """Let the caches in turn look for keys that are not there, and fetch them."""
        value = search_results(size)
        for cache, key in self._in_turn(first, last):
            await _look_up(cache, key, 0.0, value, _TTL)

    async def told(self) -> float:
        """Return how many messages of changes have come so far."""
        count: float = metrics.REDIS_INVALIDATIONS._value.get()
        return count

    async def play(
        self, workload: dict[str, Any], warm_up: float, seconds: float, seed: int
    ) -> float:
        """Let each cache live a workload; return how many messages came after the warm-up."""
        load = msgspec.convert(workload, Workload)
        async with trio.open_nursery() as nursery:
            for number, cache in enumerate(self._caches):
                nursery.start_soon(_live, cache, load, random.Random(f"{seed} {number}"))
            await trio.sleep(warm_up)
            before = await self.told()
            await trio.sleep(seconds)
            told = await self.told() - before
            nursery.cancel_scope.cancel()
        return told

    def _in_turn(self, first: int, last: int) -> Iterator[tuple[Cache, str]]:
        return zip(itertools.cycle(self._caches), map(name_of, range(first, last)))


async def _look_up(cache: Cache, key: str, fetch_seconds: float, value: bytes, ttl: float) -> None:
    if await cache.get(key) is None:
        async with cache.flight(key, wait_seconds=30):
            if await cache.get(key) is None:
                await trio.sleep(fetch_seconds)
                await cache.set(key, value, ttl)


async def _live(cache: Cache, load: Workload, draw: random.Random) -> None:
    sizes, shares = zip(*load.sizes, strict=True)
    values = {size: search_results(size) for size in sizes}
    of_key = [values[size] for size in sizes_of(load)]
    weights = list(itertools.accumulate(1 / n**load.zipf for n in range(1, load.keys + 1)))

    def any_key() -> int:
        return bisect.bisect(weights, draw.random() * weights[-1])

    async def look_up() -> None:
        number = any_key()
        await _look_up(cache, name_of(number), load.fetch_seconds, of_key[number], load.ttl)

    async def write() -> None:
        number = any_key()
        await cache.set(name_of(number), of_key[number], load.ttl)

    async def write_own() -> None:
        value = values[draw.choices(sizes, shares)[0]]
        await cache.set(name_of(0, f"own_{draw.getrandbits(48):012x}"), value, load.ttl)

    async def again(rate: float, act: Callable[[], Awaitable[None]]) -> None:
        due = trio.current_time()
        while rate:
            due += draw.expovariate(rate)
            await trio.sleep_until(due)
            nursery.start_soon(act)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again, load.lookups, look_up)
        nursery.start_soon(again, load.writes, write)
        nursery.start_soon(again, load.own_writes, write_own)


async def main(url: str) -> None:
    async with trio.open_nursery() as nursery:
        pods = Pods(url, nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            what, *args = msgspec.json.decode(line)
            print(msgspec.json.encode(await getattr(pods, what)(*args)).decode(), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1])
