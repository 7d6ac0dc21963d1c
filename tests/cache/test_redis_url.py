import ssl
from pathlib import Path
from typing import Any

import coredis
import pytest
import trio
import trustme

from sidecar.cache.redis_url import RedisURLError, Server, open_client, parse_url
from tests.valkey import run_valkey, write_authority


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", Server(kind="single", nodes=(("cache", 6379),))),
        ("redis://cache:7000/3", Server(kind="single", nodes=(("cache", 7000),), db=3)),
        ("redis://cache?db=3", Server(kind="single", nodes=(("cache", 6379),), db=3)),
        ("redis://[::1]:7000", Server(kind="single", nodes=(("::1", 7000),))),
        (
            "redis://:p%40ss%2Fw%20ord@cache",
            Server(kind="single", nodes=(("cache", 6379),), password="p@ss/w ord"),
        ),
        (
            "redis://app:pass:word@cache",
            Server(kind="single", nodes=(("cache", 6379),), username="app", password="pass:word"),
        ),
        (
            "redis+sentinel://app:pass@a,b:26380/main/2?sentinel_password=other",
            Server(
                kind="sentinel",
                nodes=(("a", 26379), ("b", 26380)),
                service="main",
                db=2,
                username="app",
                password="pass",
                sentinel_password="other",
            ),
        ),
        (
            "redis+cluster://:pass@a:7000,b:7001",
            Server(kind="cluster", nodes=(("a", 7000), ("b", 7001)), password="pass"),
        ),
    ],
)
def test_a_url_says_where_redis_is(url: str, expected: Server) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://cache", "scheme"),
        ("redis://", "host"),
        ("redis://cache:port", "host:port"),
        ("redis://cache/main", "database"),
        ("redis://cache/1/2", "database"),
        ("redis://a,b", "one host"),
        ("redis://cache?max_connections=99", "its options may be"),
        ("redis://cache?ssl=maybe", "ssl must be"),
        ("rediss://cache?ssl_cert_reqs=optional", "ssl_cert_reqs"),
        ("rediss://cache?ssl_ca_certs=/nowhere/ca.pem", "cannot be used"),
        ("redis+sentinel://a", "service"),
        ("redis+cluster://a/1", "cluster"),
        ("redis://[cache", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(RedisURLError, match=reason) as refusal:
        parse_url(url.replace("://", "://user:hunter2@"))
    assert "hunter2" not in str(refusal.value)
    assert "nowhere" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tls_verifies_certificate_and_host_by_default() -> None:
    for url in ("rediss://cache", "redis+sentinel://a/s?ssl=true", "redis+cluster://a?ssl=true"):
        tls = parse_url(url).tls
        assert tls is not None
        assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_what_tls_verifies_can_be_set(tmp_path: Path) -> None:
    path = write_authority(trustme.CA(), tmp_path)
    tls = parse_url(f"rediss://cache?ssl_ca_certs={path}&ssl_check_hostname=false").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert len(tls.get_ca_certs()) == 1
    tls = parse_url("rediss://cache?ssl_cert_reqs=none").tls
    assert tls is not None
    assert tls.verify_mode == ssl.CERT_NONE


def pool_settings(client: Any) -> dict[str, Any]:
    pool = client.connection_pool
    kept = ("username", "password", "db", "ssl_context")
    return {name: pool.connection_kwargs.get(name) for name in kept} | {
        "max_connections": pool.max_connections
    }


async def test_sentinels_and_their_server_have_their_own_accounts_and_one_connection_each() -> None:
    server = parse_url("redis+sentinel://app:pass@a:1,b:2/main/2?sentinel_password=other&ssl=true")
    async with open_client(server) as client:
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


async def test_a_cluster_is_found_by_any_of_its_nodes() -> None:
    async with run_valkey("secret", cluster=True) as server:
        dead_node, node = "127.0.0.1:1", f"127.0.0.1:{server.port}"
        url = f"redis+cluster://:secret@{dead_node},{node}"
        with trio.fail_after(10):
            async with open_client(parse_url(url)) as client:
                await client.set("key", b"value")
                assert await client.get("key") == b"value"
        assert server.client().get("key") == b"value"
