import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from sidecar.cache import flights, locks
from sidecar.cache.tiers import Cache
from tests.cache.conftest import MEMORY_BYTES, Start, until, value
from tests.cache.misses import KEY
from tests.valkey import Relay, Valkey

# Far longer than anything here takes: who relies on it fails its test's time limit.
LONG = 30.0


class Upstream:
    """Where values are fetched; tells how often, and how often at the same time."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.fetches = 0
        self.most_at_once = 0
        self._seconds = seconds
        self._now = 0

    async def fetch(self) -> bytes:
        self.fetches += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await trio.sleep(self._seconds)
        self._now -= 1
        return b"%d" % self.fetches


async def look_up(cache: Cache, upstream: Upstream, wait_seconds: float = LONG) -> bytes:
    async with cache.flight("key", wait_seconds):
        found = await cache.get("key")
        if found is None:
            fetched = await upstream.fetch()
            await cache.set("key", fetched, 60)
            return fetched
        return found.value


async def all_of(*calls: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def line(stream: trio.abc.ReceiveStream) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        piece = await stream.receive_some()
        assert piece, "it has ended"
        read += piece
    return read


def lock(server: Valkey) -> bytes | None:
    with server.client() as client:
        held: bytes | None = client.get(b"telemetry-cache:\xfflock:key")
    return held


@pytest.fixture
def alone() -> Cache:
    return Cache(MEMORY_BYTES)


async def test_one_fetches_for_all_of_a_pod(alone: Cache) -> None:
    upstream = Upstream()
    await all_of(*[partial(look_up, alone, upstream) for _ in range(200)])
    assert upstream.fetches == 1
    assert not alone._flights._turns


async def test_one_fetches_for_all_of_two_pods(server: Valkey, connect: Start) -> None:
    pods = [await connect(server.url), await connect(server.url)]
    upstream = Upstream()
    with trio.fail_after(5):
        await all_of(*[partial(look_up, pod, upstream) for pod in pods for _ in range(100)])
    assert upstream.fetches == 1
    for pod in pods:
        assert await value(pod, "key") == b"1"
        assert not pod._flights._turns


async def test_who_waited_is_told_so(alone: Cache) -> None:
    entered: list[bool] = []

    async def enter() -> None:
        async with alone.flight("key", LONG) as flight:
            await trio.sleep(0.01)
            entered.append(flight.leads)

    await all_of(*[enter] * 5)
    assert sorted(entered) == [False, False, False, False, True]


async def test_keys_do_not_wait_for_each_other(alone: Cache) -> None:
    async with alone.flight("one", LONG) as one, alone.flight("other", LONG) as other:
        assert one.leads
        assert other.leads


async def test_what_could_not_be_kept_is_fetched_by_all_at_once(
    server: Valkey, connect: Start
) -> None:
    pods = [await connect(server.url), await connect(server.url)]
    upstream = Upstream(0.1)

    async def call(pod: Cache) -> None:
        async with pod.flight("key", LONG):
            await upstream.fetch()

    with trio.fail_after(5):
        await all_of(*[partial(call, pod) for pod in pods for _ in range(5)])
    assert upstream.fetches == 10
    assert upstream.most_at_once >= 8


async def test_a_cancelled_leader_hands_on_at_once(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    upstream = Upstream()
    for waiting in (one, other):
        await other.delete("key")
        leader = trio.CancelScope()
        leading = trio.Event()

        async def lead(scope: trio.CancelScope = leader, leading: trio.Event = leading) -> None:
            with scope:
                async with one.flight("key", LONG) as flight:
                    assert flight.leads
                    leading.set()
                    await trio.sleep_forever()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lead)
                await leading.wait()
                for _ in range(20):
                    nursery.start_soon(look_up, waiting, upstream)
                await until(lambda: len(waiting._flights._turns) == 1)  # noqa: B023
                await trio.sleep(0.02)
                leader.cancel()
                cancelled = time.perf_counter()
        assert time.perf_counter() - cancelled < flights._POLL_SECONDS / 2
    assert upstream.fetches == 2


async def test_a_leader_that_fails_hands_on_and_its_error_stays_as_it_is(alone: Cache) -> None:
    upstream = Upstream()

    async def fail() -> None:
        with pytest.raises(OSError, match="away"):
            async with alone.flight("key", LONG):
                await trio.sleep(0.01)
                raise OSError("away")

    with trio.fail_after(5):
        await all_of(fail, partial(look_up, alone, upstream), partial(look_up, alone, upstream))
    assert upstream.fetches == 1


@pytest.mark.parametrize("same_pod", [True, False])
async def test_who_has_waited_long_enough_fetches_alone(
    same_pod: bool, server: Valkey, connect: Start
) -> None:
    one, other = await connect(server.url), await connect(server.url)
    async with one.flight("key", LONG):
        began = time.perf_counter()
        async with (one if same_pod else other).flight("key", 0.1) as flight:
            assert flight.leads
        assert 0.09 < time.perf_counter() - began < 1
    assert not one._flights._turns
    assert not other._flights._turns


async def test_all_who_wait_can_go_away(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    async with one.flight("key", LONG):
        for pod in (one, other):
            with trio.move_on_after(0.05):
                await all_of(*[partial(look_up, pod, Upstream()) for _ in range(20)])
        assert not other._flights._turns
        assert len(one._flights._turns) == 1
    with trio.fail_after(1):
        async with other.flight("key", LONG) as flight:
            assert flight.leads


async def test_the_background_leads_at_once_or_not_at_all(server: Valkey, connect: Start) -> None:
    one, other = await connect(server.url), await connect(server.url)
    with trio.fail_after(1):
        async with one.try_lead("key") as first:
            for pod in (one, other):
                async with pod.try_lead("key") as second:
                    assert not second.leads
        async with other.try_lead("key") as later:
            assert later.leads
    assert first.leads


async def test_who_waits_is_not_let_in_by_the_background_that_does_not_lead(
    server: Valkey, connect: Start
) -> None:
    one, other = await connect(server.url), await connect(server.url)
    upstream = Upstream()
    with trio.fail_after(5):
        async with one.try_lead("key") as first, trio.open_nursery() as nursery:
            assert first.leads
            nursery.start_soon(look_up, other, upstream)
            for _ in range(20):
                async with other.try_lead("key") as second:
                    assert not second.leads
            nursery.cancel_scope.cancel()
    assert upstream.fetches == 0


async def test_a_lock_is_renewed_while_its_holder_works(
    server: Valkey, connect: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.4)
    monkeypatch.setattr(flights, "LOCK_SECONDS", 0.4)
    one, other = await connect(server.url), await connect(server.url)
    async with one.flight("key", LONG):
        held = lock(server)
        assert held is not None
        for _ in range(15):
            await trio.sleep(0.1)
            async with other.try_lead("key") as second:
                assert not second.leads
        assert lock(server) == held


async def test_a_dead_holder_costs_at_most_the_time_of_its_lock(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    with server.client() as client:
        client.set(b"telemetry-cache:\xfflock:key", b"of a pod that died", px=500)
    began = time.perf_counter()
    with trio.fail_after(5):
        async with cache.flight("key", LONG) as flight:
            assert flight.leads
    assert 0.3 < time.perf_counter() - began < 0.5 + flights._POLL_SECONDS


async def test_nobody_lets_go_of_the_lock_of_another(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url)
    with server.client() as client:
        async with cache.flight("key", LONG):
            client.set(b"telemetry-cache:\xfflock:key", b"another", px=60_000)
    assert lock(server) == b"another"


async def test_without_redis_nothing_fails_and_nobody_waits_for_it(
    server: Valkey, connect: Start
) -> None:
    cache = await connect(server.url)
    upstream = Upstream(0.1)
    await server.kill()
    await until(lambda: not cache.redis_connected)
    began = time.perf_counter()
    await all_of(*[partial(look_up, cache, upstream) for _ in range(50)])
    assert time.perf_counter() - began < 1
    assert upstream.fetches == 1


async def test_who_waits_for_another_pod_leads_when_redis_is_lost(
    server: Valkey, connect: Start, relay: Relay
) -> None:
    one, other = await connect(server.url), await connect(relay.url)
    upstream = Upstream()
    with trio.fail_after(2):
        async with one.flight("key", LONG), trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(look_up, other, upstream)
            await until(lambda: len(other._flights._turns) == 1)
            relay.refuse()
    assert upstream.fetches == 1


async def test_a_thousand_misses_in_three_processes_are_one_fetch(server: Valkey) -> None:
    fetches = 0

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal fetches
        fetches += 1
        await trio.sleep(0.3)
        await stream.send_all(b'"fetched"')
        await stream.aclose()

    async def pod(number: int) -> None:
        callers = 334 if number == 0 else 333
        command = [sys.executable, "-m", "tests.cache.misses", server.url, str(port), str(callers)]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready.append(await line(process.stdout))
            await until(lambda: len(ready) == 3, 30)
            await process.stdin.send_all(b"\n")
            told.append(await line(process.stdout))
        finally:
            process.kill()
            await process.wait()

    ready: list[bytes] = []
    told: list[bytes] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            await all_of(*[partial(pod, number) for number in range(3)])
            nursery.cancel_scope.cancel()
    assert ready == [b"ready\n"] * 3
    assert sorted(told) == [b"333 1\n", b"333 1\n", b"334 1\n"]
    assert fetches == 1
    with server.client() as client:
        assert client.exists(f"telemetry-cache:{KEY}")
