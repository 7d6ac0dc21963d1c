import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import structlog.testing
import trio
import trustme

from sidecar.cache import link
from sidecar.cache.redis import RedisCache, RefusedError, UnavailableError
from sidecar.metrics import REGISTRY
from tests.cache.conftest import until
from tests.valkey import Valkey, run_valkey, serve_tls, write_authority

Lines = Sequence[Mapping[str, object]]


async def connected(url: str, nursery: trio.Nursery, call_seconds: float = 2.0) -> RedisCache:
    cache = RedisCache(url, call_seconds)
    await nursery.start(cache.run)
    await until(lambda: cache.connected)
    return cache


def errors(kind: str) -> float:
    return REGISTRY.get_sample_value("telemetry_cache_redis_errors_total", {"kind": kind}) or 0


def events(lines: Lines) -> list[object]:
    return [line["event"] for line in lines]


async def test_a_value_is_kept_with_its_time(server: Valkey, nursery: trio.Nursery) -> None:
    cache = await connected(server.url, nursery)
    assert await cache.get("key") is None
    await cache.set("key", b'{"a": 1}', 60)
    found = await cache.get("key")
    assert found is not None
    assert found.value == b'{"a": 1}'
    assert 50 < found.ttl <= 60
    await cache.delete("key")
    assert await cache.get("key") is None


async def test_the_stored_form_is_as_documented(server: Valkey, nursery: trio.Nursery) -> None:
    cache = await connected(server.url, nursery)
    await cache.set("clé", b"[1]", 0.5)
    with server.client() as other:
        assert other.get("telemetry-cache:clé") == b"\x01[1]"
        assert 0 < other.pttl("telemetry-cache:clé") <= 500


async def test_redis_forgets_a_value_when_its_time_is_over(
    server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery)
    await cache.set("key", b"1", 0.0001)
    with server.client() as other:
        await until(lambda: not other.exists("telemetry-cache:key"))
    assert await cache.get("key") is None


@pytest.mark.parametrize("stored", [b"\x02[1]", b"", b"\x01[1]"])
async def test_a_value_of_another_format_or_without_expiry_is_not_ours(
    stored: bytes, server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery)
    with server.client() as other:
        other.set("telemetry-cache:key", stored)
    assert await cache.get("key") is None


async def test_one_connection_carries_all_calls(server: Valkey, nursery: trio.Nursery) -> None:
    cache = await connected(server.url, nursery)

    async def use(number: int) -> None:
        await cache.set(f"key-{number}", b"%d" % number, 60)
        found = await cache.get(f"key-{number}")
        assert found is not None
        assert found.value == b"%d" % number

    async with trio.open_nursery() as users:
        for number in range(100):
            users.start_soon(use, number)
    with server.client() as other:
        mine = [c for c in other.client_list() if c["lib-name"] == "coredis"]
    assert len(mine) == 1


async def test_a_key_that_is_no_text_does_not_cost_the_connection(
    server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery)
    with pytest.raises(UnicodeEncodeError):
        await cache.get("\ud800")
    assert await cache.get("key") is None


async def test_a_caller_that_goes_away_does_not_cost_the_connection(
    server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery)
    for _ in range(50):
        with trio.CancelScope() as caller:
            async with trio.open_nursery() as callers:
                callers.start_soon(cache.get, "key")
                await trio.lowlevel.checkpoint()
                caller.cancel()
    await cache.set("key", b"1", 60)
    found = await cache.get("key")
    assert found is not None
    assert found.value == b"1"


@pytest.mark.parametrize("password", ["plain", "p@ss:w/ rd%"])
async def test_a_password_is_given(password: str, nursery: trio.Nursery) -> None:
    async with run_valkey(password) as server:
        cache = await connected(server.url, nursery)
        await cache.set("key", b"1", 60)
        assert await cache.get("key") is not None


@pytest.mark.parametrize("given", [":wrong-hunter2@", "nobody:wrong-hunter2@", ""])
async def test_a_wrong_password_is_told_once_and_not_shown(
    given: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PROBE_SECONDS", 0.01)
    async with run_valkey("right") as server:
        with structlog.testing.capture_logs() as lines:
            cache = RedisCache(f"redis://{given}127.0.0.1:{server.port}")
            await nursery.start(cache.run)
            with server.client() as other:
                # Refused many times, told once.
                await until(lambda: other.info("stats")["total_connections_received"] > 10)
        assert not cache.connected
        assert events(lines) == ["redis_unreachable"]
        assert "Authentication" in str(lines[0]["reason"])
        assert "hunter2" not in repr(lines)
        with pytest.raises(UnavailableError):
            await cache.get("key")


async def test_tls_is_used_and_verified(
    server: Valkey, nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = trustme.CA()
    port = await serve_tls(nursery, server.port, authority)
    trusted = write_authority(authority, tmp_path)
    cache = await connected(f"rediss://localhost:{port}?ssl_ca_certs={trusted}", nursery)
    await cache.set("key", b"1", 60)
    assert await cache.get("key") is not None
    with server.client() as other:
        assert other.get("telemetry-cache:key") == b"\x011"


@pytest.mark.parametrize(
    "query", ["", "?ssl_ca_certs={other}", "?ssl_ca_certs={trusted}#host"], ids=str
)
async def test_a_certificate_that_does_not_verify_is_refused(
    query: str, server: Valkey, nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = trustme.CA()
    port = await serve_tls(nursery, server.port, authority)
    (tmp_path / "other").mkdir()
    query = query.format(
        trusted=write_authority(authority, tmp_path),
        other=write_authority(trustme.CA(), tmp_path / "other"),
    )
    # The certificate is for localhost.
    host = "127.0.0.1" if query.endswith("#host") else "localhost"
    with structlog.testing.capture_logs() as lines:
        cache = RedisCache(f"rediss://{host}:{port}{query}")
        await nursery.start(cache.run)
        await until(lambda: lines)
    assert not cache.connected
    assert lines[0]["reason"] == "SSLCertVerificationError"


async def test_a_refusal_is_told_apart_from_a_loss(server: Valkey, nursery: trio.Nursery) -> None:
    cache = await connected(server.url, nursery)
    before = errors("refused")
    with server.client() as other:
        other.config_set("maxmemory", 1)
        with pytest.raises(RefusedError):
            await cache.set("key", b"1", 60)
        other.config_set("maxmemory", 0)
    assert cache.connected
    assert errors("refused") == before + 1
    await cache.set("key", b"1", 60)


async def test_a_start_without_redis_is_no_slower_and_redis_is_used_once_it_is_there(
    nursery: trio.Nursery,
) -> None:
    async with run_valkey() as server:
        await server.kill()
        with structlog.testing.capture_logs() as lines:
            cache = RedisCache(server.url, 2.0)
            with trio.fail_after(1):
                await nursery.start(cache.run)
            with pytest.raises(UnavailableError):
                await cache.get("key")
            await until(lambda: lines)
            assert REGISTRY.get_sample_value("telemetry_cache_redis_connected") == 0
            await server.start()
            await until(lambda: cache.connected, 5)
        assert REGISTRY.get_sample_value("telemetry_cache_redis_connected") == 1
        assert events(lines) == ["redis_unreachable", "redis_connected"]
        await cache.set("key", b"1", 60)


@pytest.mark.parametrize(("lose", "restore"), [("kill", "start"), ("hang", "resume")])
async def test_a_lost_server_costs_one_short_wait_and_is_used_again_within_5_s(
    lose: str, restore: str, server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery, link.CALL_SECONDS)
    timeouts = errors("timeout")
    with structlog.testing.capture_logs() as lines:
        await getattr(server, lose)()
        waits = []
        for _ in range(100):
            began = time.perf_counter()
            with pytest.raises(UnavailableError):
                await cache.get("key")
            waits.append(time.perf_counter() - began)
        assert not cache.connected
        assert errors("timeout") - timeouts <= 1
        assert sorted(waits)[94] < 0.005
        await getattr(server, restore)()
        await until(lambda: cache.connected, 5)
    assert events(lines)[0] == "redis_lost"
    assert events(lines)[-1] == "redis_connected"
    assert events(lines).count("redis_lost") == 1
    assert await cache.get("key") is None


async def test_a_server_that_accepts_and_never_answers_is_not_waited_for(
    server: Valkey, nursery: trio.Nursery
) -> None:
    await server.hang()
    cache = RedisCache(server.url)
    with trio.fail_after(1):
        await nursery.start(cache.run)
    with structlog.testing.capture_logs() as lines:
        await until(lambda: lines)
    assert lines[0]["reason"] == "TimeoutError"
    assert not cache.connected
    await server.resume()
    await until(lambda: cache.connected, 5)


async def test_calls_in_flight_when_the_server_hangs_all_end_in_time(
    server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery, link.CALL_SECONDS)
    await server.hang()
    refused = 0

    async def use(number: int) -> None:
        nonlocal refused
        try:
            await cache.set(f"key-{number}", b"1" * 100_000, 60)
        except UnavailableError:
            refused += 1

    with trio.fail_after(2):
        async with trio.open_nursery() as users:
            for number in range(100):
                users.start_soon(use, number)
    assert refused == 100


async def test_a_process_that_stands_still_does_not_take_redis_for_lost(
    server: Valkey, nursery: trio.Nursery
) -> None:
    cache = await connected(server.url, nursery, link.CALL_SECONDS)

    async def stand_still() -> None:
        time.sleep(3 * link.CALL_SECONDS)  # noqa: ASYNC251 (it must block)

    for _ in range(5):
        async with trio.open_nursery() as both:
            both.start_soon(cache.get, "key")
            both.start_soon(stand_still)
    assert cache.connected


async def test_nothing_is_left_when_it_is_cancelled(server: Valkey) -> None:
    cache = RedisCache(server.url, 2.0)
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(cache.run)
            await until(lambda: cache.connected)
            nursery.cancel_scope.cancel()
    assert not cache.connected
    assert events(lines) == ["redis_connected"]
    with server.client() as other:
        await until(lambda: not [c for c in other.client_list() if c["lib-name"] == "coredis"])
    with pytest.raises(UnavailableError):
        await cache.get("key")
