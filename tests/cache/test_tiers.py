import time
from functools import partial

import pytest
import structlog.testing
import trio

from sidecar.cache.memory import ValueTooLargeError
from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import MAX_VALUE_BYTES, Cache
from sidecar.metrics import REGISTRY
from sidecar.settings import SettingsError
from tests.cache.conftest import MEMORY_BYTES, Start, sees, until, value
from tests.valkey import Valkey


def is_away(cache: Cache) -> bool:
    """Tell whether Redis is known to be out of reach, so that memory answers for it."""
    return not cache.redis_connected and cache._redis is not None and cache._redis.copies_hold


def stored(server: Valkey, key: str) -> bytes | None:
    with server.client() as other:
        found: bytes | None = other.get(f"telemetry-cache:{key}")
    return found


async def test_without_redis_memory_is_the_cache(nursery: trio.Nursery) -> None:
    cache = Cache.from_url("", MEMORY_BYTES)
    await nursery.start(cache.run)
    await cache.set("key", b"1", 60)
    assert await value(cache, "key") == b"1"
    await cache.delete("key")
    assert await value(cache, "key") is None
    assert not cache.redis_connected


def test_a_url_that_cannot_be_used_is_told_without_its_password() -> None:
    with pytest.raises(SettingsError, match=r"^REDIS_URL=\(hidden\) is not allowed: ") as refusal:
        Cache.from_url("redis://:hunter2@cache/main", MEMORY_BYTES)
    assert "hunter2" not in str(refusal.value)


async def test_pods_share_what_they_set_and_delete(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    await one.set("key", b"1", 60)
    found = await other.get("key")
    assert found is not None
    assert found.value == b"1"
    assert 50 < found.ttl <= 60
    await other.set("key", b"2", 60)
    await sees(one, "key", b"2")
    await other.delete("key")
    await sees(one, "key", None)


async def test_a_value_ends_in_memory_when_it_ends_in_redis(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    await one.set("key", b"1", 0.4)
    assert await value(other, "key") == b"1"
    await server.kill()
    await until(lambda: not other.redis_connected)
    await until(lambda: other._memory.get("key") is None)
    assert await value(other, "key") is None


async def test_memory_answers_while_redis_is_away(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    await one.set("set", b"1", 60)
    await one.set("read", b"2", 60)
    assert await value(other, "read") == b"2"
    await server.kill()
    for cache in (one, other):
        await until(partial(is_away, cache))
    assert await value(one, "set") == b"1"
    assert await value(other, "read") == b"2"
    await other.set("new", b"3", 60)
    assert await value(other, "new") == b"3"


async def test_what_redis_missed_is_carried_over(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url, 0.1), await connect(server.url, 2.0)
    for key in ("changed", "deleted", "evicted", "expired", "same"):
        await one.set(key, b'"old"', 3600)
    # Redis keeps what it has, and nobody reaches it.
    await server.hang()
    await one.set("changed", b'"new"', 3600)
    await one.delete("deleted")
    await one.set("expired", b'"new"', 0.001)
    await one.set("evicted", b'"new"', 3600)
    one._memory.delete("evicted")
    await server.resume()
    await until(lambda: one.redis_connected and not len(one._unsent))
    await until(lambda: other.redis_connected)
    for cache in (one, other):
        assert await value(cache, "changed") == b'"new"'
        assert await value(cache, "same") == b'"old"'
        # There is no newer value to tell, and the older one must not be.
        for key in ("deleted", "evicted", "expired"):
            assert await value(cache, key) is None
    with server.client() as redis:
        assert 3_500_000 < redis.pttl("telemetry-cache:changed") <= 3_600_000


async def test_nobody_here_reads_an_older_value_before_it_is_carried_over(
    server: Valkey, nursery: trio.Nursery
) -> None:
    redis = RedisCache(server.url, 2.0)
    cache = Cache(MEMORY_BYTES, redis)
    with server.client() as other:
        other.set("telemetry-cache:key", b'\x01"old"', px=60_000)
    await cache.set("key", b'"new"', 60)
    # The connection alone, without the task that carries over.
    await nursery.start(redis.run)
    await until(lambda: cache.redis_connected)
    assert await value(cache, "key") == b'"new"'
    assert stored(server, "key") == b'\x01"old"'
    await cache._carry_over()
    assert stored(server, "key") == b'\x01"new"'


async def test_a_full_redis_refuses_and_memory_serves(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url)
    await cache.set("key", b'"old"', 60)
    with server.client() as other, structlog.testing.capture_logs() as lines:
        other.config_set("maxmemory", 1)
        for number in range(5):
            await cache.set("key", b"%d" % number, 60)
            assert await value(cache, "key") == b"%d" % number
        assert cache.redis_connected
        assert [line["event"] for line in lines] == ["redis_refuses_writes"]
        other.config_set("maxmemory", 0)
        await until(lambda: stored(server, "key") == b"\x014")
    assert await value(cache, "key") == b"4"


async def test_one_refused_key_does_not_hold_up_the_others(
    server: Valkey, nursery: trio.Nursery
) -> None:
    with server.client() as other:
        account = ("on", ">pass", "~telemetry-cache:free*", "%R~telemetry-cache:*", "+@all")
        other.execute_command("ACL", "SETUSER", "app", *account)
    redis = RedisCache(server.url.replace("://", "://app:pass@"), 2.0)
    cache = Cache(MEMORY_BYTES, redis)
    for key in ("taken", "free-1", "free-2"):
        await cache.set(key, b"1", 60)
    await nursery.start(redis.run)
    await until(lambda: cache.redis_connected)
    await cache._carry_over()
    await cache._carry_over()
    assert stored(server, "free-1") == stored(server, "free-2") == b"\x011"
    assert list(cache._unsent) == ["taken"]
    assert await value(cache, "taken") == b"1"


async def test_a_read_only_redis_still_answers_and_memory_takes_the_writes(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    await cache.set("old", b"1", 60)
    with server.client() as other:
        other.replicaof("127.0.0.1", 1)
        await cache.set("new", b"2", 60)
        await cache.delete("old")
        assert await value(cache, "new") == b"2"
        assert await value(cache, "old") is None
        other.replicaof("NO", "ONE")
    await until(lambda: not len(cache._unsent))
    assert stored(server, "new") == b"\x012"
    assert stored(server, "old") is None


async def test_what_waits_for_redis_is_bounded(server: Valkey, nursery: trio.Nursery) -> None:
    redis = RedisCache(server.url, 2.0)
    cache = Cache(MEMORY_BYTES, redis, max_unsent_bytes=2100)
    with structlog.testing.capture_logs() as lines:
        for number in range(100):
            await cache.set(f"key-{number:02}", b"1", 60)
    assert [line["event"] for line in lines] == ["redis_missed_too_many_writes"]
    assert list(cache._unsent) == [f"key-{number}" for number in range(90, 100)]
    await nursery.start(redis.run)
    await until(lambda: cache.redis_connected)
    await cache._carry_over()
    assert stored(server, "key-89") is None
    assert stored(server, "key-90") == b"\x011"


async def test_the_last_write_stays_when_many_write_one_key(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url)
    for number in range(20):
        async with trio.open_nursery() as writers:
            for _ in range(3):
                writers.start_soon(cache.set, "key", b"%d" % number, 60)
            writers.start_soon(cache.delete, "key")
            writers.start_soon(cache.get, "key")
        await cache.set("key", b'"last %d"' % number, 60)
        assert await value(cache, "key") == b'"last %d"' % number
    await until(lambda: stored(server, "key") == b'\x01"last 19"')


async def test_an_answer_that_a_write_overtakes_is_not_remembered(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    await cache.set("key", b'"old"', 60)
    for _ in range(20):
        async with trio.open_nursery() as both:
            both.start_soon(cache.get, "key")
            both.start_soon(cache.delete, "key")
        assert cache._memory.get("key") is None
        await cache.set("key", b'"old"', 60)


async def test_a_writer_that_goes_away_has_still_written(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url)
    with trio.CancelScope() as writer:
        async with trio.open_nursery() as writers:
            writers.start_soon(cache.set, "key", b"1", 60)
            await trio.lowlevel.checkpoint()
            writer.cancel()
    assert await value(cache, "key") == b"1"
    await until(lambda: stored(server, "key") == b"\x011")


async def test_too_large_a_value_is_refused_and_changes_nothing() -> None:
    cache = Cache(4 * MAX_VALUE_BYTES)
    await cache.set("key", b"1" * MAX_VALUE_BYTES, 60)
    with pytest.raises(ValueTooLargeError, match=str(MAX_VALUE_BYTES)):
        await cache.set("key", b"1" * (MAX_VALUE_BYTES + 1), 60)
    assert await value(cache, "key") == b"1" * MAX_VALUE_BYTES


async def test_a_value_too_large_for_this_pods_memory_comes_from_redis(
    server: Valkey, connect: Start
) -> None:
    large, small = await connect(server.url), await connect(server.url, max_bytes=2000)
    await small.set("key", b"1", 60)
    await large.set("key", b"1" * 4000, 60)
    await sees(small, "key", b"1" * 4000)
    assert small._memory.get("key") is None


async def test_look_ups_are_counted() -> None:
    cache = Cache(MEMORY_BYTES)

    def sample(name: str) -> float:
        return REGISTRY.get_sample_value(f"telemetry_cache_cache_{name}") or 0

    hits, misses = sample("hits_total"), sample("misses_total")
    assert cache.stats().hit_rate == 0
    await cache.set("key", b"1", 60)
    for key in ("key", "key", "key", "other"):
        await cache.get(key)
    stats = cache.stats()
    assert (stats.hit_rate, stats.total_hits, stats.total_misses) == (0.75, 3, 1)
    assert stats.total_requests == 4
    assert sample("hits_total") - hits == 3
    assert sample("misses_total") - misses == 1
    assert sample("hit_rate") == 0.75
    assert sample("memory_entries") == 1
    assert sample("memory_bytes") == cache._memory.bytes > 0


async def test_expired_values_leave_memory_by_themselves(nursery: trio.Nursery) -> None:
    cache = Cache(MEMORY_BYTES)
    await cache.set("key", b"1", 0.01)
    await nursery.start(cache.run)
    await until(lambda: len(cache._memory) == 0)


async def test_no_call_waits_for_a_redis_that_dies_or_hangs(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url, call_seconds=0.025)
    await cache.set("key", b"1", 60)
    took: list[float] = []

    async def use(seconds: float) -> None:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            for call in (
                partial(cache.set, "key", b"1", 60),
                partial(cache.get, "key"),
                partial(cache.delete, "other"),
            ):
                began = time.perf_counter()
                await call()
                took.append(time.perf_counter() - began)
            await trio.sleep(0.005)

    for lose, restore in ((server.kill, server.start), (server.hang, server.resume)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, 0.5)
            await trio.sleep(0.1)  # in the middle of the calls
            await lose()
        assert not cache.redis_connected
        assert await value(cache, "key") == b"1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, 0.5)
            await restore()
            await until(lambda: cache.redis_connected, 5)
    took.sort()
    assert took[int(len(took) * 0.95)] < 0.05
    # A machine may be late; the cache itself waits at most once in each loss.
    assert sum(seconds > 0.05 for seconds in took) <= 2
