import ssl
from pathlib import Path

import pytest
import trustme

from sidecar.cache.redis_url import RedisURLError, Server, parse_url
from tests.valkey import write_authority


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
