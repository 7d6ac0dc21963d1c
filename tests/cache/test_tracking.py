import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import coredis
import pytest
import structlog.testing
import trio

from sidecar.cache.link import REST_SECONDS
from sidecar.cache.redis_url import parse_url
from sidecar.cache.tiers import Cache
from sidecar.cache.tracking import Tracker, open_client
from sidecar.metrics import REGISTRY
from tests.cache.conftest import MEMORY_BYTES, Start, sees, until, value
from tests.valkey import Relay, Valkey, run_valkey

FRESH_SECONDS = 0.05


def reads(server: Valkey) -> int:
    """Return how many values were asked for; probes and scripts that write ask for none."""
    with server.client() as other:
        stats: dict[str, dict[str, int]] = other.info("commandstats")
    calls = stats.get("cmdstat_pttl", {"calls": 0})["calls"]
    return calls - stats.get("cmdstat_eval", {"calls": 0})["calls"]


async def test_a_hot_key_is_answered_without_asking_redis(server: Valkey, connect: Start) -> None:
    writer, reader = await connect(server.url), await connect(server.url)
    await writer.set("key", b"1", 60)
    assert await value(reader, "key") == b"1"
    before = reads(server)
    for cache in (writer, reader):
        for _ in range(100):
            assert await value(cache, "key") == b"1"
    assert reads(server) == before


async def test_what_one_pod_writes_another_sees_at_once(server: Valkey, connect: Start) -> None:
    writer, reader = await connect(server.url), await connect(server.url)
    worst = 1.0
    for attempt in range(3):
        took = []
        for number in range(100):
            expected = b"%d" % (1000 * attempt + number)
            await writer.set("key", expected, 60)
            written = time.perf_counter()
            await sees(reader, "key", expected)
            took.append(time.perf_counter() - written)
        worst = min(worst, max(took))
    assert worst < FRESH_SECONDS


async def test_the_last_writer_is_told_as_well(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    for number in range(50):
        for cache, reader in ((one, other), (other, one)):
            expected = b'"%d %d"' % (number, cache is one)
            await cache.set("key", expected, 60)
            assert await value(cache, "key") == expected
            await sees(reader, "key", expected)


async def test_what_is_deleted_flushed_or_has_expired_is_not_answered(
    server: Valkey, connect: Start
) -> None:
    writer, reader = await connect(server.url), await connect(server.url)
    for key in ("deleted", "flushed"):
        await writer.set(key, b"1", 60)
        assert await value(reader, key) == b"1"
    await writer.delete("deleted")
    await until(lambda: reader._memory.get("deleted") is None)
    assert reader._memory.get("flushed") is not None
    with server.client() as other:
        other.flushall()
    await until(lambda: not len(reader._memory) and not len(writer._memory))
    assert await value(reader, "flushed") is None


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_a_change_that_overtakes_an_answer_wins(
    change: str, server: Valkey, connect: Start, relay: Relay
) -> None:
    reader, other = await connect(relay.url), await connect(server.url)
    for number in range(20):
        await other.set("key", b'"old"', 60)
        await until(lambda: reader._memory.get("key") is None)
        relay.hold()
        before = reads(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.get, "key")
            await until(lambda: reads(server) > before)  # noqa: B023
            if change == "set":
                await other.set("key", b"%d" % number, 60)
            else:
                await other.delete("key")
            relay.release()
        await sees(reader, "key", b"%d" % number if change == "set" else None)


async def test_a_change_that_overtakes_the_answer_to_an_own_write_wins(
    server: Valkey, connect: Start, relay: Relay
) -> None:
    writer, other = await connect(relay.url), await connect(server.url)
    for number in range(20):
        relay.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.set, "key", b'"own %d"' % number, 60)
            with server.client() as client:
                own = b'\x01"own %d"' % number
                await until(lambda: client.get("telemetry-cache:key") == own)  # noqa: B023
            await other.set("key", b'"other %d"' % number, 60)
            relay.release()
        await sees(writer, "key", b'"other %d"' % number)


async def test_a_killed_connection_empties_what_redis_gave(server: Valkey, connect: Start) -> None:
    reader, other = await connect(server.url), await connect(server.url)
    for number in range(5):
        await other.set("key", b"%d" % number, 60)
        await other.set("gone", b"1", 60)
        assert await value(reader, "gone") == b"1"
        await sees(reader, "key", b"%d" % number)
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: not reader.redis_connected)
        assert await value(reader, "key") is None
        await until(lambda: reader.redis_connected and other.redis_connected)
        assert reader._memory.get("key") is None


async def test_what_this_pod_wrote_while_redis_was_away_stays(
    server: Valkey, connect: Start, relay: Relay, nursery: trio.Nursery
) -> None:
    cache, other = await connect(relay.url), await connect(server.url)
    await other.set("copy", b'"old"', 60)
    assert await value(cache, "copy") == b'"old"'
    relay.refuse()
    await until(lambda: not cache.redis_connected)
    await cache.set("own", b"1", 60)
    assert await value(cache, "own") == b"1"
    await other.set("copy", b'"new"', 60)
    # Nothing better is to be had.
    await until(lambda: bool(cache._redis and cache._redis.copies_hold))
    assert await value(cache, "copy") == b'"old"'
    await nursery.start(relay.run)
    await until(lambda: cache.redis_connected)
    assert await value(cache, "copy") == b'"new"'
    assert await value(cache, "own") == b"1"
    await until(lambda: not len(cache._unsent))
    assert await value(other, "own") == b"1"


async def test_copies_rest_only_as_long_as_redis_may_be_within_reach(
    server: Valkey, connect: Start, relay: Relay
) -> None:
    cache = await connect(relay.url)
    await cache.set("key", b"1", 60)
    relay.hold()
    relay.cut()
    await until(lambda: not cache.redis_connected)
    lost = time.perf_counter()
    assert await value(cache, "key") is None
    with trio.fail_after(5):
        while await value(cache, "key") is None:
            await trio.sleep(0.01)
    assert time.perf_counter() - lost > REST_SECONDS / 2
    relay.release()


async def test_where_tracking_is_refused_every_value_comes_from_redis(
    server: Valkey, connect: Start
) -> None:
    with server.client() as client:
        account = ("on", ">pass", "~telemetry-cache:*", "+@all", "-client")
        client.execute_command("ACL", "SETUSER", "app", *account)
    with structlog.testing.capture_logs() as lines:
        cache = await connect(server.url.replace("://", "://app:pass@"))
    assert [line["event"] for line in lines] == ["redis_tracking_refused", "redis_connected"]
    other = await connect(server.url)
    await cache.set("key", b"1", 60)
    await other.set("key", b"2", 60)
    assert await value(cache, "key") == b"2"
    await server.kill()
    await until(lambda: bool(cache._redis and cache._redis.copies_hold))
    assert await value(cache, "key") == b"2"


async def test_names_that_are_hidden_are_told_of_as_well(
    server: Valkey, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"one:{b64encode(bytes(32)).decode()}")
    pods = [Cache.from_url(server.url, MEMORY_BYTES, str(path)) for _ in range(2)]
    for pod in pods:
        await nursery.start(pod.run)
    await until(lambda: all(pod.redis_connected for pod in pods))
    one, other = pods
    for number in range(3):
        await one.set("alice", b'"bob %d"' % number, 60)
        await sees(other, "alice", b'"bob %d"' % number)
    async with one.flight("alice", 1), other.try_lead("alice") as flight:
        assert not flight.leads
        with server.client() as client:
            stored = {name: client.get(name) for name in client.scan_iter()}
    assert len(stored) == 2
    assert "alice" not in repr(stored)
    assert "bob" not in repr(stored)


async def test_who_has_a_value_and_what_redis_tells_is_counted(
    server: Valkey, connect: Start
) -> None:
    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"telemetry_cache_{name}_total", labels) or 0

    writer, reader = await connect(server.url), await connect(server.url)
    await writer.set("key", b"1", 60)
    memory, redis = (sample("cache_tier_hits", tier=tier) for tier in ("memory", "redis"))
    told = sample("redis_invalidations")
    for _ in range(3):
        await reader.get("key")
    assert sample("cache_tier_hits", tier="redis") - redis == 1
    assert sample("cache_tier_hits", tier="memory") - memory == 2
    await writer.set("key", b"2", 60)
    await until(lambda: sample("redis_invalidations") - told == 1)


def pool_settings(client: Any) -> dict[str, Any]:
    pool = client.connection_pool
    kept = ("username", "password", "db", "ssl_context")
    return {name: pool.connection_kwargs.get(name) for name in kept} | {
        "max_connections": pool.max_connections
    }


def tracker(nursery: trio.Nursery) -> Tracker:
    return Tracker(nursery, lambda name: None, lambda: None)


async def test_sentinels_and_their_server_have_their_own_accounts_and_one_connection_each(
    nursery: trio.Nursery,
) -> None:
    server = parse_url("redis+sentinel://app:pass@a:1,b:2/main/2?sentinel_password=other&ssl=true")
    async with open_client(server, tracker(nursery)) as client:
        assert pool_settings(client) == {
            "username": "app",
            "password": "pass",
            "db": 2,
            "ssl_context": server.tls,
            "max_connections": 1,
        }
        pool: Any = client.connection_pool
        assert isinstance(pool, coredis.pool.SentinelConnectionPool)
        assert pool.service_name == "main"
        sentinels = pool.sentinel_manager.sentinels
        assert [str(s.connection_pool.location) for s in sentinels] == ["a:1", "b:2"]
        for sentinel in sentinels:
            assert pool_settings(sentinel) == {
                "username": None,
                "password": "other",
                "db": 0,
                "ssl_context": server.tls,
                "max_connections": 1,
            }


async def test_a_cluster_is_found_by_any_of_its_nodes(nursery: trio.Nursery) -> None:
    async with run_valkey("secret", cluster=True) as server:
        dead_node, node = "127.0.0.1:1", f"127.0.0.1:{server.port}"
        url = f"redis+cluster://:secret@{dead_node},{node}"
        with trio.fail_after(10):
            async with open_client(parse_url(url), tracker(nursery)) as client:
                await client.set("key", b"value")
                assert await client.get("key") == b"value"
        assert server.client().get("key") == b"value"


async def test_a_connection_that_nobody_waits_for_any_more_is_made_by_the_next(
    nursery: trio.Nursery,
) -> None:
    async with run_valkey(cluster=True) as server:
        url = f"redis+cluster://127.0.0.1:{server.port}"
        async with open_client(parse_url(url), tracker(nursery)) as client:
            pool: Any = client.connection_pool
            (node,) = pool.cluster_layout.primaries

            async def go_away(scope: trio.CancelScope, turns: int) -> None:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            for turns in range(20):
                try:
                    async with trio.open_nursery() as callers:
                        callers.start_soon(go_away, callers.cancel_scope, turns)
                        pool.release(await pool.get_connection(node))
                except* coredis.exceptions.ConnectionError:  # in its handshake
                    pass
            with trio.fail_after(2):
                await pool.get_connection(node)
