"""Pressure: large and slow bodies hold up nobody, and memory has a bound."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import httpx2
import msgspec
import pytest
import trio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from bench.process import memory_bytes
from sidecar.http import http1, listening
from sidecar.http.application import Application
from sidecar.http.listening import bind
from sidecar.pressure import (
    MAX_REQUESTS,
    Held,
    Overloaded,
    Pressure,
    cgroup_limit,
    memory_limit,
)
from sidecar.receivers.otlp import OTLP_SIGNALS
from tests.collector import open_collector
from tests.flood import (
    JSON,
    NDJSON,
    PROTOBUF,
    answer_times,
    events,
    flood,
    post,
    quantile,
    traces,
    trickle,
)
from tests.process import SidecarProcess, sidecar_process

MIB = 2**20
BLACKHOLE = {"SIDECAR_EXPORTERS": "blackhole"}
EVENT = b'{"event":"e","payload":{}}'
EXPORT = next(otlp.grpc_path for otlp in OTLP_SIGNALS if otlp.signal == "traces")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/v1/traces", PROTOBUF), ("/log/batch", NDJSON), ("/log/batch", JSON)],
)
def test_livez_answers_within_50_ms_while_16_mib_of_findings_are_redacted(
    path: str, media_type: str
) -> None:
    body = traces(prose=2000) if media_type == PROTOBUF else events(prose=2000)
    if media_type == JSON:
        body = b"[%b]" % body.replace(b"\n", b",")
    with sidecar_process(BLACKHOLE) as sidecar:
        with flood(sidecar.url + path, body, media_type) as statuses:
            times = answer_times(f"{sidecar.url}/livez", seconds=12)
        assert len(statuses) > 1
        assert set(statuses) == {200}
    assert len(times) > 100
    assert quantile(times, 0.99) <= 0.05


def test_a_large_body_does_not_hold_up_others(sidecar: SidecarProcess) -> None:
    small = traces(64 * 1024)
    with flood(f"{sidecar.otlp_http_url}/v1/traces", traces(4 * MIB), PROTOBUF) as statuses:
        time.sleep(0.5)
        started = time.monotonic()
        assert post(f"{sidecar.otlp_http_url}/v1/traces", small, PROTOBUF) == 200
        taken = time.monotonic() - started
        assert not statuses, "the large one was done before"
    assert taken < 2


def test_slow_bodies_hold_up_nobody() -> None:
    body = traces(64 * 1024)
    with sidecar_process(BLACKHOLE) as sidecar, ExitStack() as stack:
        url = f"{sidecar.url}/v1/traces"
        clients = [stack.enter_context(client) for client in trickle(url, 200)]
        for _ in range(5):
            for client in clients:
                client.sendall(b"\n")
            started = time.monotonic()
            assert post(url, body, PROTOBUF) == 200
            assert time.monotonic() - started < 2
            times = answer_times(f"{sidecar.url}/livez", seconds=1)
            assert quantile(times, 0.99) <= 0.05


async def test_memory_is_bounded_and_nothing_acknowledged_is_lost() -> None:
    size = 8 * MIB
    body = traces(size, prose=20_000)
    with sidecar_process(BLACKHOLE) as sidecar:
        post(f"{sidecar.url}/log", EVENT, JSON)
        limit = memory_bytes(sidecar.process.pid) + 30 * MIB
    async with open_collector() as collector:
        flood_it = partial(_flood_under_limit, collector.url, body, size, limit)
        acknowledged = await trio.to_thread.run_sync(flood_it)
        sent = body.count(_NAME)
        received = sum(body.count(_NAME) for body in collector.bodies("/v1/traces"))
    assert received == acknowledged * sent


# A span's name as it is encoded: field 5, 4 bytes.
_NAME = b"\x2a\x04chat"


def _flood_under_limit(collector: str, body: bytes, size: int, limit: int) -> int:
    """Return how many bodies were acknowledged."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "SIDECAR_MEMORY_LIMIT": str(limit)}
    with sidecar_process(environ) as sidecar:
        url, most = f"{sidecar.url}/v1/traces", 0
        with flood(url, body, PROTOBUF, senders=8) as statuses:
            end = time.monotonic() + 8
            while time.monotonic() < end:
                most = max(most, memory_bytes(sidecar.process.pid))
                time.sleep(0.002)
        seen = Counter(statuses)
        assert set(seen) == {200, 429}
        assert _counted(sidecar, "intake_refused_total", reason="memory") > 0
        # One body is being redacted when the limit is reached: what is written of it comes on top.
        assert most <= limit + 2 * size, f"{most / MIB:.0f} MiB, limit {limit / MIB:.0f} MiB"
        deadline = time.monotonic() + 10
        while (status := post(url, body, PROTOBUF)) != 200 and time.monotonic() < deadline:
            assert status == 429
            time.sleep(0.2)
        assert status == 200
        assert sidecar.stop() == 0
        return seen[200] + 1


@pytest.fixture(scope="module")
def full() -> Iterator[SidecarProcess]:
    """Run a sidecar that is over its limit of memory."""
    with sidecar_process({**BLACKHOLE, "SIDECAR_MEMORY_LIMIT": "1024"}) as sidecar:
        yield sidecar


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/log", JSON, EVENT),
        ("/log/batch", NDJSON, EVENT),
        ("/v1/traces", PROTOBUF, b""),
        ("/v1/logs", JSON, b"{}"),
    ],
)
def test_above_the_limit_intake_says_when_to_come_back(
    full: SidecarProcess, path: str, media_type: str, body: bytes
) -> None:
    before = _counted(full, "intake_refused_total", reason="memory")
    answer = httpx2.post(full.url + path, content=body, headers={"content-type": media_type})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert b"memory limit" in answer.content
    assert _counted(full, "intake_refused_total", reason="memory") == before + 1


def test_above_the_limit_grpc_says_when_to_come_back(full: SidecarProcess) -> None:
    with (
        grpc.insecure_channel(full.grpc_target) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(EXPORT)(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds == 1


def test_above_the_limit_everything_else_answers(full: SidecarProcess) -> None:
    for call in ("/health", "/livez", "/readyz", "/cache/stats", "/redactions", "/docs"):
        assert httpx2.get(full.url + call).status_code == 200, call
    large = msgspec.json.encode({"key": "k", "data": "x" * (MIB // 2)})
    assert post(f"{full.url}/cache/set", large, JSON) == 200
    assert httpx2.get(f"{full.url}/cache/get?key=k").json()["hit"]
    assert post(f"{full.url}/redact", b"mail ada@example.com", "text/plain") == 200
    assert _counted(full, "memory_limit_bytes") == 1024


def _counted(sidecar: SidecarProcess, name: str, **labels: str) -> float:
    sample = f"telemetry_cache_{name}"
    if labels:
        sample += "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
    lines = httpx2.get(f"{sidecar.metrics_url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " "))


# The bounds by themselves.


async def test_connections_above_the_bound_wait_until_others_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 2)
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    stopping = trio.Event()
    serve = partial(http1.serve, Application([]), sock, stopping=stopping, grace_seconds=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        first, second, third = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for stream in (first, second, third):
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert b"404" in await first.receive_some() and b"404" in await second.receive_some()
        with trio.move_on_after(0.2) as waiting:
            await third.receive_some()
        assert waiting.cancelled_caught
        await first.aclose()
        with trio.fail_after(5):
            assert b"404" in await third.receive_some()
        stopping.set()


def test_large_bodies_are_bounded_together_and_small_ones_still_have_room() -> None:
    pressure = Pressure(MIB, None)
    with Held(pressure) as first:
        first.take(4 * MIB)
        with Held(pressure) as second:
            with pytest.raises(Overloaded, match="at once"):
                second.take(MIB)
            second.take(1000)
    assert pressure.bytes == 0
    with Held(pressure) as third:
        third.expect(4 * MIB)
        with pytest.raises(Overloaded):
            third.expect(4 * MIB + 1)


def test_requests_are_bounded() -> None:
    pressure = Pressure(MIB, None)
    entered = [pressure.intake(Held(pressure)) for _ in range(MAX_REQUESTS)]
    for one in entered:
        one.__enter__()
    with pytest.raises(Overloaded), pressure.intake(Held(pressure)):
        pass
    entered.pop().__exit__(None, None, None)
    with pressure.intake(Held(pressure)):
        pass


def test_one_body_may_always_be_written_and_others_only_if_they_fit() -> None:
    now = memory_bytes_of_this()
    pressure = Pressure(64 * MIB, now + 32 * MIB)
    with Held(pressure) as first, pressure.intake(first):
        first.promise(64 * MIB)
        with Held(pressure) as second, pressure.intake(second), pytest.raises(Overloaded):
            second.promise(64 * MIB)
    with Held(pressure) as third, pressure.intake(third):
        third.promise(64 * MIB)
    assert pressure.promised == pressure.bytes == 0


def memory_bytes_of_this() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000\n"}, 1000),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/pod/own\n", {"pod/memory.max": "500", "pod/own/memory.max": "max"}, 500),
        ("0::/on/the/host\n", {"memory.max": "700"}, 700),
        ("4:cpu:/a\n3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "300"}, 300),
        ("3:memory:/on/host\n0::/\n", {"memory/memory.limit_in_bytes": "400"}, 400),
        ("3:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("", {}, None),
        (None, {}, None),
    ],
)
def test_the_limit_of_the_cgroup(
    tmp_path: Path, own: str | None, files: dict[str, str], expected: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert cgroup_limit(tmp_path / "own", tmp_path / "cgroup") == expected


def test_a_given_limit_is_taken_and_zero_means_none() -> None:
    assert memory_limit(5000) == 5000
    assert memory_limit(0) is None
