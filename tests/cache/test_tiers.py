import time

import pytest
import structlog.testing
import trio

from sidecar.cache.memory import ValueTooLargeError
from sidecar.cache.redis import PREFIX
from sidecar.cache.tiers import MAX_VALUE_BYTES, Cache
from tests.cache.conftest import MEMORY_BYTES, Start, until
from tests.valkey import Valkey


async def value_of(cache: Cache, key: str) -> bytes | None:
    found = await cache.get(key)
    return None if found is None else found.value


async def test_without_redis_memory_serves_and_run_returns() -> None:
    cache = Cache.from_url("", MEMORY_BYTES)
    with trio.fail_after(1):
        await cache.run()
    await cache.set("key", b"1", 60)
    assert await value_of(cache, "key") == b"1"
    await cache.delete("key")
    assert await value_of(cache, "key") is None
    assert not cache.redis_connected
    stats = cache.stats()
    assert (stats.total_hits, stats.total_misses, stats.total_requests) == (1, 1, 2)
    assert stats.hit_rate == 0.5


async def test_a_value_too_large_is_refused_with_the_limit() -> None:
    cache = Cache(MEMORY_BYTES)
    await cache.set("key", b"1" * MAX_VALUE_BYTES, 60)
    with pytest.raises(ValueTooLargeError) as refusal:
        await cache.set("key", b"1" * (MAX_VALUE_BYTES + 1), 60)
    assert refusal.value.limit == MAX_VALUE_BYTES


async def test_pods_see_each_others_writes_and_deletes(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    await one.set("key", b"1", 60)
    assert await value_of(other, "key") == b"1"
    await other.set("key", b"2", 60)
    assert await value_of(one, "key") == b"2"
    await one.delete("key")
    assert await value_of(other, "key") is None


async def test_what_was_read_from_redis_is_in_memory_with_what_is_left_of_its_time(
    server: Valkey, connect: Start
) -> None:
    one, other = await connect(server.url), await connect(server.url)
    await one.set("key", b"1", 60)
    await other.get("key")
    await server.kill()
    found = await other.get("key")
    assert found is not None
    assert found.value == b"1"
    assert 0 < found.ttl <= 60


async def test_writes_of_an_outage_replace_what_was_there_before(
    server: Valkey, connect: Start
) -> None:
    one, other = await connect(server.url), await connect(server.url)
    for key in ("replaced", "deleted", "kept"):
        await one.set(key, b'"old"', 60)
    # Hangs rather than dies, so that it comes back with what it had.
    server.hang()
    one_call = time.perf_counter()
    await one.set("replaced", b'"new"', 60)
    await one.delete("deleted")
    await one.set("added", b'"new"', 60)
    assert time.perf_counter() - one_call < 5
    assert await value_of(one, "replaced") == b'"new"'
    assert await value_of(one, "deleted") is None
    server.resume()
    await until(lambda: one.redis_connected and other.redis_connected, 8)
    with server.client() as client:
        await until(lambda: client.get(f"{PREFIX}added") is not None)
        await until(lambda: client.get(f"{PREFIX}deleted") is None)
        await until(lambda: client.get(f"{PREFIX}replaced") == b'\x01"new"')
    assert await value_of(other, "replaced") == b'"new"'
    assert await value_of(other, "deleted") is None
    assert await value_of(other, "kept") == b'"old"'


async def test_a_redis_out_of_memory_is_no_fault_and_gets_the_write_later(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    await cache.set("key", b'"old"', 60)
    with server.client() as client, structlog.testing.capture_logs() as lines:
        client.config_set("maxmemory", 1)
        await cache.set("key", b'"new"', 60)
        await cache.set("key", b'"newer"', 60)
        assert await value_of(cache, "key") == b'"newer"'
        assert cache.redis_connected
        assert [line["event"] for line in lines].count("redis_refuses") == 1
        client.config_set("maxmemory", 0)
        await until(lambda: client.get(f"{PREFIX}key") == b'\x01"newer"')


async def test_calls_across_a_kill_and_a_start_are_quick_and_right(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url, 0.02)
    times: list[float] = []

    async def use(rounds: int) -> None:
        for number in range(rounds):
            value = b"%d" % number
            began = time.perf_counter()
            await cache.set("key", value, 60)
            middle = time.perf_counter()
            assert await value_of(cache, "key") == value
            times.extend((middle - began, time.perf_counter() - middle))

    await use(100)
    await server.kill()
    await use(100)
    await server.start()
    await until(lambda: cache.redis_connected)
    await use(100)
    assert sorted(times)[int(len(times) * 0.95)] < 0.05


async def test_concurrent_writes_leave_redis_and_memory_the_same(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(cache.set, "key", b"%d" % number, 60)
    with server.client() as client:
        stored = client.get(f"{PREFIX}key")
    await server.kill()
    assert stored is not None
    assert stored[1:] == await value_of(cache, "key")
