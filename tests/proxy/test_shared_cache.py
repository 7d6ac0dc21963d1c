"""Several sidecars, each a process, one Valkey and one upstream."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
import trio

from tests.process import SidecarProcess
from tests.upstream import Behaviour, Upstream, open_upstream
from tests.valkey import Valkey, run_valkey

_MISSES = 1000
_SIDECARS = 3


class Pods:
    """Sidecars that share a Valkey.

    Attributes:
        valkey, upstream: what they share.
        sidecars: the processes, and
        urls: of the route ``up`` of each.
    """

    def __init__(self, valkey: Valkey, upstream: Upstream) -> None:
        self.valkey = valkey
        self.upstream = upstream
        self.sidecars: list[SidecarProcess] = []
        self.urls: list[str] = []


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    """Run three sidecars."""
    async with run_valkey() as valkey, open_upstream() as upstream, AsyncExitStack() as stack:
        route = {
            "name": "up",
            "upstream": upstream.url,
            "redact": "none",
            "concurrency": 1000,
            "cache": {"post": [{"path": "/v1/embeddings"}]},
        }
        rules = {"version": 1, "rules": [{"id": "email", "find": "email"}], "routes": [route]}
        (tmp_path / "rules.json").write_bytes(msgspec.json.encode(rules))
        running = Pods(valkey, upstream)
        settings = {"REDIS_URL": valkey.url, "SIDECAR_RULES": str(tmp_path)}
        for _ in range(_SIDECARS):
            sidecar = await trio.to_thread.run_sync(_started, settings)
            stack.callback(sidecar.close)
            running.sidecars.append(sidecar)
            running.urls.append(f"{sidecar.url}/proxy/up")
            await _connected(sidecar)
        yield running


def _started(settings: dict[str, str]) -> SidecarProcess:
    sidecar = SidecarProcess(settings)
    sidecar.wait_ready()
    return sidecar


async def _connected(sidecar: SidecarProcess) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        with trio.fail_after(10):
            while not (await client.get(f"{sidecar.url}/health")).json()["redis_connected"]:
                await trio.sleep(0.02)


async def _ask(url: str, request: bytes) -> bytes:
    """Send a request over a connection of its own; return the whole answer."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
        await stream.send_all(request)
        return b"".join([piece async for piece in stream])


def _request(method: str, url: str, body: bytes) -> bytes:
    head = (
        f"{method} {urlsplit(url).path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _under_way(pods: Pods) -> int:
    """Return how many calls the sidecars have under way."""
    count = 0
    async with httpx2.AsyncClient(trust_env=False) as client:
        for sidecar in pods.sidecars:
            text = (await client.get(f"{sidecar.metrics_url}/metrics")).text
            sample = re.search(r'telemetry_cache_proxy_calls\{route="up"\} (\S+)', text)
            count += int(float(sample[1])) if sample else 0
    return count


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", b""),
        ("POST", "/v1/embeddings", b'{"model":"m","input":"hello"}'),
    ],
)
async def test_a_thousand_misses_in_three_pods_are_one_call(
    pods: Pods, method: str, path: str, body: bytes
) -> None:
    pods.upstream.behaviour = Behaviour(head_delay=8)
    answers: list[bytes] = []

    async def ask(url: str) -> None:
        answers.append(await _ask(url, _request(method, url, body)))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(_MISSES):
                nursery.start_soon(ask, pods.urls[number % len(pods.urls)] + path)
            while await _under_way(pods) < _MISSES:
                assert not answers
                await trio.sleep(0.05)
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert len({answer.partition(b"\r\n\r\n")[2] for answer in answers}) == 1
    assert len(answers) == _MISSES
    assert pods.upstream.calls[path] == 1
