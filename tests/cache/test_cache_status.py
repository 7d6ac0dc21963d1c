"""RFC 9211; its own examples are in section 3."""

import pytest

from sidecar.cache.cache_status import with_forward, with_hit
from sidecar.http.headers import HeaderList
from tests.cache.http import h

CASES: list[tuple[str, HeaderList, str]] = [
    ("2.1", with_hit([], 376), "sidecar; hit; ttl=376"),
    ("2.4", with_hit([], 376.9), "sidecar; hit; ttl=376"),
    ("2.4", with_hit([], -412), "sidecar; hit; ttl=-412"),
    ("2.4", with_hit([], 0.5), "sidecar; hit; ttl=0"),
    ("2.8", with_hit([], -5, detail="if-error"), "sidecar; hit; ttl=-5; detail=if-error"),
    ("2.2", with_forward([], "uri-miss"), "sidecar; fwd=uri-miss"),
    ("2.2", with_forward([], "vary-miss"), "sidecar; fwd=vary-miss"),
    ("2.2", with_forward([], "bypass"), "sidecar; fwd=bypass"),
    ("2.2", with_forward([], "method"), "sidecar; fwd=method"),
    ("2.2", with_forward([], "request"), "sidecar; fwd=request"),
    ("2.3", with_forward([], "stale", fwd_status=304), "sidecar; fwd=stale; fwd-status=304"),
    (
        "2.5",
        with_forward([], "uri-miss", ttl=60, stored=True),
        "sidecar; fwd=uri-miss; ttl=60; stored",
    ),
    ("2.6", with_forward([], "uri-miss", collapsed=True), "sidecar; fwd=uri-miss; collapsed"),
    (
        "2",
        with_forward([], "stale", fwd_status=304, ttl=9, stored=True, collapsed=True),
        "sidecar; fwd=stale; fwd-status=304; ttl=9; stored; collapsed",
    ),
    (
        "3",
        with_hit(h(cache_status="OriginCache; hit; ttl=1100"), 545),
        "OriginCache; hit; ttl=1100, sidecar; hit; ttl=545",
    ),
    (
        "2",
        with_forward(h(cache_status=["A; hit", '"B c"; fwd=uri-miss']), "uri-miss"),
        'A; hit, "B c"; fwd=uri-miss, sidecar; fwd=uri-miss',
    ),
]


@pytest.mark.parametrize(("section", "headers", "value"), CASES)
def test_cache_status(section: str, headers: HeaderList, value: str) -> None:
    assert headers == [(b"cache-status", value.encode())], section


def test_other_headers_stay() -> None:
    headers = with_hit(h(etag='"1"', cache_status="A; hit", x="1"), 5)
    assert headers[:2] == h(etag='"1"', x="1")
