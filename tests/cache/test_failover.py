"""Redis as people run it: slow, paused, killed, failed over."""

import json
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import valkey

from sidecar.cache.api import routes
from sidecar.cache.link import CALL_SECONDS
from sidecar.cache.tiers import Cache
from sidecar.http.messages import Request
from sidecar.http.routing import Router
from sidecar.metrics import REGISTRY
from tests.cache.conftest import MEMORY_BYTES, Start, sees, until, value
from tests.valkey import Relay, Valkey, run_cluster, run_replicas, run_sentinel

USERS = 5
# What Redis may cost 99 % of the requests, in seconds. The machine may be busy, so one attempt of
# several is enough, and what the same requests take without Redis is not counted.
SLOW_LIMIT = 0.005
LOSS_LIMIT = 0.05
ATTEMPTS = 5


class Load:
    """Callers of the API that set, get and delete, each after the other, and what that took."""

    def __init__(self, cache: Cache) -> None:
        self.took: list[float] = []
        self.failed: list[object] = []
        self._router = Router(routes(cache, 2**24))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Go on for the length of the block."""
        async with trio.open_nursery() as nursery:
            for number in range(USERS):
                nursery.start_soon(self._use, number)
            yield
            nursery.cancel_scope.cancel()

    def percentile(self, share: float) -> float:
        return sorted(self.took)[int(share * len(self.took))]

    async def _use(self, number: int) -> None:
        key = f"load-{number}"
        body = json.dumps({"key": key, "data": number, "ttl": 60}).encode()
        while True:
            for method, path, query in (
                ("POST", "/cache/set", ""),
                ("GET", "/cache/get", f"key={key}"),
                ("GET", "/cache/get", f"key=missing-{number}"),
                ("DELETE", "/cache", f"key={key}"),
            ):
                await self._call(method, path, query, body if method == "POST" else b"")
                await trio.sleep(0.001)

    async def _call(self, method: str, path: str, query: str, body: bytes) -> None:
        pieces = [body, b""]

        async def receive() -> bytes:
            return pieces.pop(0)

        headers = {"content-type": "application/json"} if body else {}
        began = time.perf_counter()
        try:
            response = await self._router(Request(method, path, query, headers, receive))
        except Exception as error:
            self.failed.append(error)
        else:
            self.took.append(time.perf_counter() - began)
            if response.status != 200:
                self.failed.append(response.status)


async def without_redis() -> float:
    """Return how many seconds 99 % of the requests take at most now where there is no Redis."""
    load = Load(Cache(MEMORY_BYTES))
    async with load.run():
        await trio.sleep(0.5)
    return load.percentile(0.99)


def breaker_open() -> float | None:
    return REGISTRY.get_sample_value("telemetry_cache_redis_breaker_open")


async def is_used_again(cache: Cache, seconds: float = 5.0) -> None:
    await until(lambda: cache.redis_connected and not len(cache._unsent), seconds)


async def cost_of_slowness(
    cache: Cache, begin: Callable[[], object], end: Callable[[], object]
) -> float:
    """Return what 99 % of the requests cost at most, from the first that meets a slow Redis."""
    costs = [math.inf]
    while len(costs) <= ATTEMPTS and min(costs) >= SLOW_LIMIT:
        load = Load(cache)
        async with load.run():
            await trio.sleep(0.2)
            load.took.clear()
            begin()
            await trio.sleep(1.0)
            assert not cache.redis_connected
            cost = load.percentile(0.99)
            end()
            await is_used_again(cache)
        assert not load.failed
        costs.append(cost - await without_redis())
    return min(costs)


@pytest.mark.parametrize("delay", [0.0025, 0.003, 0.01, 0.1, 1.5])
async def test_a_slow_redis_costs_a_request_nothing(
    delay: float, connect: Start, relay: Relay
) -> None:
    cache = await connect(relay.url, CALL_SECONDS)
    slow, fast = (partial(setattr, relay, "delay", seconds) for seconds in (delay, 0))
    assert await cost_of_slowness(cache, slow, fast) < SLOW_LIMIT


async def test_a_paused_redis_costs_a_request_nothing(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url, CALL_SECONDS)
    with server.client() as client:
        # It ends by itself; a paused server does not take in that it should go on.
        pause = partial(client.client_pause, 1200)
        assert await cost_of_slowness(cache, pause, lambda: None) < SLOW_LIMIT


async def test_a_slow_redis_keeps_its_connection_and_copies(
    server: Valkey, connect: Start, relay: Relay
) -> None:
    cache, other = await connect(relay.url, 0.1), await connect(server.url)
    for key in ("same", "changed"):
        await other.set(key, b"1", 60)
        assert await value(cache, key) == b"1"
    with server.client() as client:
        before = {c["id"] for c in client.client_list()}
        relay.delay = 0.3
        assert await value(cache, "unknown") is None
        assert not cache.redis_connected
        assert breaker_open() == 1
        await other.set("changed", b"2", 60)
        # The message takes as long as everything does.
        with trio.fail_after(5):
            while await value(cache, "changed") is not None:
                await trio.sleep(0.01)
        assert await value(cache, "same") == b"1"
        relay.delay = 0
        await until(lambda: cache.redis_connected)
        assert breaker_open() == 0
        assert before <= {c["id"] for c in client.client_list()}
    assert await value(cache, "changed") == b"2"


async def test_a_slow_redis_is_not_used_again_before_it_is_fast(
    server: Valkey, connect: Start, relay: Relay
) -> None:
    cache = await connect(relay.url, CALL_SECONDS)
    relay.delay = 0.05
    await cache.get("key")
    relay.cut()
    with server.client() as client:
        connections = client.info("stats")["total_connections_received"]
        # There is a connection again, over which nothing is fast.
        await until(lambda: client.info("stats")["total_connections_received"] > connections)
    for _ in range(20):
        await trio.sleep(0.05)
        assert not cache.redis_connected
    relay.delay = 0
    await until(lambda: cache.redis_connected)


async def test_a_burst_of_calls_is_no_slow_redis(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url, CALL_SECONDS)
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(cache.set, f"key-{number}", b"1" * 100, 60)
    assert cache.redis_connected


async def test_redis_is_killed_and_started_again_under_load(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url, CALL_SECONDS)
    took = [math.inf]
    while len(took) <= ATTEMPTS and min(took) >= LOSS_LIMIT:
        load = Load(cache)
        async with load.run():
            await trio.sleep(0.2)
            await server.kill()
            await until(lambda: not cache.redis_connected)
            await trio.sleep(0.2)
            await server.start()
            await is_used_again(cache)
            await trio.sleep(0.2)
        assert not load.failed
        took.append(load.percentile(0.99) - await without_redis())
    assert min(took) < LOSS_LIMIT


async def test_a_full_redis_still_answers_and_takes_the_writes_later(
    server: Valkey, connect: Start
) -> None:
    cache, other = await connect(server.url), await connect(server.url)
    await other.set("read", b"1", 60)
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        assert await value(cache, "read") == b"1"
        await cache.set("written", b"2", 60)
        assert await value(cache, "written") == b"2"
        assert await value(other, "written") is None
        async with cache.flight("key", 1) as flight:
            assert flight.leads
        assert cache.redis_connected
        client.config_set("maxmemory", 0)
    await is_used_again(cache)
    assert await value(other, "written") == b"2"


async def test_sentinel_fails_over(connect: Start) -> None:
    async with run_replicas() as (primary, replica), run_sentinel(primary, "main") as port:
        url = f"redis+sentinel://127.0.0.1:{port}/main"
        one, other = await connect(url), await connect(url)
        await one.set("before", b"1", 60)
        with replica.client() as client:
            await until(lambda: client.exists("telemetry-cache:before"))
            load = Load(one)
            async with load.run():
                await primary.kill()
                await until(lambda: not one.redis_connected)
                await one.set("meanwhile", b"2", 60)
                await is_used_again(one, 20)
                await is_used_again(other, 20)
            mine = [c for c in client.client_list() if c["lib-name"] == "coredis"]
        assert not load.failed
        assert len(mine) == 2  # pods
        for key, expected in (("before", b"1"), ("meanwhile", b"2")):
            assert await value(other, key) == expected
        await one.set("before", b"3", 60)
        await sees(other, "before", b"3")


async def test_a_primary_that_is_demoted_is_left(connect: Start) -> None:
    async with run_replicas() as (primary, replica), run_sentinel(primary, "main") as port:
        cache = await connect(f"redis+sentinel://127.0.0.1:{port}/main")
        with primary.client() as client:
            client.replicaof("127.0.0.1", str(replica.port))
            await cache.set("key", b"1", 60)
            assert not cache.redis_connected
            assert await value(cache, "key") == b"1"
            client.replicaof("NO", "ONE")
        await is_used_again(cache)
        with valkey.Valkey(port=port) as sentinel:
            sentinel.sentinel_failover("main")
        await until(partial(is_primary, replica), 20)
        with replica.client() as client:
            await until(lambda: "coredis" in {c["lib-name"] for c in client.client_list()}, 20)
            await is_used_again(cache, 20)
            await cache.set("key", b"2", 60)
            assert client.get("telemetry-cache:key") == b"\x012"


async def write_everywhere(cache: Cache, text: bytes) -> None:
    for number in range(30):
        await cache.set(f"key-{number}", text, 60)


async def sees_everywhere(cache: Cache, text: bytes) -> None:
    for number in range(30):
        await sees(cache, f"key-{number}", text)


@pytest.mark.parametrize("how", ["kill", "failover"])
async def test_a_cluster_fails_over(how: str, connect: Start) -> None:
    async with run_cluster() as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[1].port},127.0.0.1:{nodes[0].port}"
        one, other = await connect(url), await connect(url)
        await write_everywhere(one, b"1")
        await sees_everywhere(other, b"1")
        for node in nodes[:3]:
            with node.client() as client:
                mine = [c for c in client.client_list() if c["lib-name"] == "coredis"]
            assert len(mine) == 2  # pods
        load = Load(one)
        async with load.run():
            if how == "kill":
                await nodes[0].kill()
                await until(lambda: not one.redis_connected)
            else:
                with nodes[-1].client() as replica:
                    replica.execute_command("CLUSTER", "FAILOVER")
            await until(partial(is_primary, nodes[-1]), 20)
            await write_everywhere(one, b"2")
            await is_used_again(one, 20)
            await is_used_again(other, 20)
        assert not load.failed
        await sees_everywhere(other, b"2")
        await write_everywhere(other, b"3")
        await sees_everywhere(one, b"3")


def is_primary(server: Valkey) -> bool:
    """Tell whether a server is one; it closes its connections when it becomes one."""
    try:
        with server.client() as client:
            info: Any = client.info("replication")
    except valkey.ConnectionError:
        return False
    return bool(info["role"] == "master")
