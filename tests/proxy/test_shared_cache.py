"""Several sidecars, each a process, one Valkey and one upstream."""

import itertools
import math
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
import trio

from tests.flood import quantile
from tests.process import SidecarProcess
from tests.upstream import Behaviour, Upstream, open_upstream
from tests.valkey import Valkey, run_valkey

_MISSES = 1000
_SIDECARS = 3
# Of one process, in calls per second, and how many of them are misses.
_RATE = 200
_SHARE_OF_MISSES = 0.2
_ATTEMPTS = 4


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


@asynccontextmanager
async def run_pods(folder: Path, count: int) -> AsyncIterator[Pods]:
    """Run so many sidecars."""
    async with run_valkey() as valkey, open_upstream() as upstream, AsyncExitStack() as stack:
        route = {
            "name": "up",
            "upstream": upstream.url,
            "redact": "none",
            "concurrency": 1000,
            "cache": {"post": [{"path": "/v1/embeddings"}]},
        }
        rules = {"version": 1, "rules": [{"id": "email", "find": "email"}], "routes": [route]}
        (folder / "rules.json").write_bytes(msgspec.json.encode(rules))
        running = Pods(valkey, upstream)
        settings = {"REDIS_URL": valkey.url, "SIDECAR_RULES": str(folder)}
        for _ in range(count):
            sidecar = SidecarProcess(settings)
            stack.callback(sidecar.close)
            running.sidecars.append(sidecar)
            running.urls.append(f"{sidecar.url}/proxy/up")
        for sidecar in running.sidecars:
            await trio.to_thread.run_sync(sidecar.wait_ready)
            await _connected(sidecar)
        yield running


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    """Run three sidecars."""
    async with run_pods(tmp_path, _SIDECARS) as running:
        yield running


async def _connected(sidecar: SidecarProcess, connected: bool = True) -> None:
    expected = b'"redis_connected":true' if connected else b'"redis_connected":false'
    with trio.fail_after(10):
        while expected not in await _ask(f"{sidecar.url}/health", _request("GET", "/health")):
            await trio.sleep(0.02)


async def _ask(url: str, request: bytes) -> bytes:
    """Send a request over a connection of its own; return the whole answer."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
        await stream.send_all(request)
        return b"".join([piece async for piece in stream])


def _request(method: str, url: str, body: bytes = b"") -> bytes:
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


def _says(control: str, body: str, *headers: tuple[str, str], delay: float = 0.0) -> Behaviour:
    told = (("cache-control", control), *headers)
    return Behaviour(headers=told, pieces=(body.encode(),), head_delay=delay)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as one:
        yield one


async def test_what_one_pod_stored_another_gives_with_its_age(
    pods: Pods, client: httpx2.AsyncClient
) -> None:
    pods.upstream.behaviour = _says("max-age=600", "one", ("age", "100"))
    began = time.time()
    first = await client.get(f"{pods.urls[0]}/echo")
    for url in pods.urls[1:]:
        again = await client.get(f"{url}/echo")
        assert again.text == first.text == "one"
        assert again.headers["cache-status"].startswith("sidecar; hit; ttl=49")
        assert 100 <= int(again.headers["age"]) <= 100 + math.ceil(time.time() - began)
    assert pods.upstream.calls["/echo"] == 1


async def test_a_client_that_leaves_hands_on_to_another_pod(
    pods: Pods, client: httpx2.AsyncClient
) -> None:
    pods.upstream.answers.append(_says("max-age=60", "one", delay=math.inf))
    pods.upstream.behaviour = _says("max-age=60", "two")
    answers: list[str] = []
    leaving = trio.CancelScope()

    async def lead() -> None:
        with leaving:
            await client.get(f"{pods.urls[0]}/echo")

    async def ask(url: str) -> None:
        answers.append((await client.get(f"{url}/echo")).text)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead)
            await pods.upstream.received(1)
            for url in pods.urls[1:] * 20:
                nursery.start_soon(ask, url)
            while await _under_way(pods) < 41:
                await trio.sleep(0.02)
            assert pods.upstream.calls["/echo"] == 1
            leaving.cancel()
    assert answers == ["two"] * 40
    assert pods.upstream.calls["/echo"] == 2


async def test_one_of_all_pods_fetches_a_stale_answer_anew(
    pods: Pods, client: httpx2.AsyncClient
) -> None:
    control = "max-age=60, stale-while-revalidate=600"
    pods.upstream.answers.append(_says(control, "one", ("age", "90")))
    pods.upstream.behaviour = _says("max-age=60", "two", delay=1)
    await client.get(f"{pods.urls[0]}/echo")
    answers: list[str] = []

    async def ask(url: str) -> None:
        answers.append((await client.get(f"{url}/echo")).text)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for url in pods.urls * 20:
                nursery.start_soon(ask, url)
        assert answers == ["one"] * 60
        for url in pods.urls:
            while (await client.get(f"{url}/echo")).text == "one":
                pass
    assert pods.upstream.calls["/echo"] == 2


async def test_what_one_pod_changes_is_fresh_in_another_within_50_ms(
    pods: Pods, client: httpx2.AsyncClient
) -> None:
    changed_here, read_there = pods.urls[:2]
    took = []
    for number in range(20):
        pods.upstream.behaviour = _says("max-age=60", str(number))
        assert (await client.get(f"{read_there}/echo")).text == str(number)
        again = await client.get(f"{read_there}/echo")
        assert again.headers["cache-status"].startswith("sidecar; hit")
        pods.upstream.behaviour = _says("max-age=60", str(number + 1))
        await client.put(f"{changed_here}/echo", content=b"")
        changed = time.perf_counter()
        with trio.fail_after(5):
            while (await client.get(f"{read_there}/echo")).text == str(number):
                pass
        took.append(time.perf_counter() - changed)
    assert statistics.median(took) < 0.05


class _Load:
    """Calls at a rate: most of them hits, some of them misses.

    Attributes:
        took: seconds from when a call was due to the end of its answer.
        failed: answers that are none, or are not whole.
    """

    def __init__(self, url: str) -> None:
        self.took: list[float] = []
        self.failed: list[object] = []
        self._url = url
        self._new = itertools.count()
        self._free: list[trio.SocketStream] = []

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Go on for the length of the block, then until all have ended."""
        async with trio.open_nursery() as calls, trio.open_nursery() as pace:
            pace.start_soon(self._call_at_rate, calls)
            yield
            pace.cancel_scope.cancel()
        for stream in self._free:
            await stream.aclose()

    def percentile(self, share: float) -> float:
        """Return how long so many of the calls took at most."""
        return quantile(sorted(self.took), share)

    async def _call_at_rate(self, calls: trio.Nursery) -> None:
        began = trio.current_time()
        for number in itertools.count():
            due = began + number / _RATE
            await trio.sleep_until(due)
            miss = number % round(1 / _SHARE_OF_MISSES) == 0
            path = f"/echo/new/{next(self._new)}" if miss else f"/echo/{number % 8}"
            calls.start_soon(self._call, path, due)

    async def _call(self, path: str, due: float) -> None:
        parts = urlsplit(self._url)
        head = f"GET {parts.path}{path} HTTP/1.1\r\nhost: h\r\n\r\n"
        try:
            if not self._free:
                opened = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
                self._free.append(opened)
            stream = self._free.pop()
            await stream.send_all(head.encode())
            answer = b""
            while not answer.endswith(b"answer"):
                piece = await stream.receive_some()
                if not piece:
                    raise EOFError
                answer += piece
        except (OSError, EOFError, trio.BrokenResourceError) as error:
            self.failed.append(error)
            return
        if not answer.startswith(b"HTTP/1.1 200 OK\r\n"):
            self.failed.append(answer)
        self.took.append(trio.current_time() - due)
        self._free.append(stream)


async def test_redis_is_killed_and_started_again_under_load(tmp_path: Path) -> None:
    """What that costs is told by the same load without it: the machine may be busy."""
    async with run_pods(tmp_path, 1) as pods:
        pods.upstream.recording = False
        pods.upstream.behaviour = Behaviour(
            headers=(("cache-control", "max-age=60"), ("content-length", "6")), pieces=(b"answer",)
        )
        costs = [math.inf]
        while len(costs) <= _ATTEMPTS and min(costs) >= 0.05:
            quiet, killed = _Load(pods.urls[0]), _Load(pods.urls[0])
            async with quiet.run():
                await trio.sleep(2)
            async with killed.run():
                await trio.sleep(0.5)
                await pods.valkey.kill()
                await _connected(pods.sidecars[0], False)
                await trio.sleep(0.5)
                await pods.valkey.start()
                await _connected(pods.sidecars[0])
                await trio.sleep(0.5)
            assert not quiet.failed
            assert not killed.failed
            costs.append(killed.percentile(0.99) - quiet.percentile(0.99))
    assert min(costs) < 0.05
