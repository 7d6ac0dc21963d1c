"""Health of a running sidecar, with parts of it away."""

import time

import httpx2
import trio

from tests.collector import Answer, open_collector
from tests.process import SidecarProcess, sidecar_process
from tests.valkey import run_valkey


def test_alone_it_is_healthy() -> None:
    with sidecar_process({"TELEMETRY_CACHE_VERSION": "9.9"}) as sidecar:
        health = httpx2.get(f"{sidecar.metrics_url}/health").json()
    assert health.keys() == {"status", "version", "redis_connected", "loki_configured", "checks"}
    assert health["status"] == "healthy"
    assert health["version"] == "9.9"
    assert health["redis_connected"] is health["loki_configured"] is False


async def test_it_is_degraded_while_redis_is_away_and_caches_all_the_same() -> None:
    async with run_valkey() as server:
        with sidecar_process({"REDIS_URL": server.url}) as sidecar:
            status_becomes(sidecar, "healthy")
            assert cached(sidecar, "before") == "before"
            await server.kill()
            assert cached(sidecar, "while away") == "while away"
            status_becomes(sidecar, "degraded")
            await server.start()
            # It must be used again within 5 s of coming back.
            status_becomes(sidecar, "healthy", seconds=5)
            assert cached(sidecar, "after") == "after"


def status_becomes(sidecar: SidecarProcess, status: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while httpx2.get(f"{sidecar.url}/health").json()["status"] != status:
        assert time.monotonic() < deadline, status


def cached(sidecar: SidecarProcess, data: str) -> object:
    answer = httpx2.post(f"{sidecar.url}/cache/set", json={"key": "k", "data": data})
    assert answer.json().keys() == {"status", "key", "expires_at"}
    return httpx2.get(f"{sidecar.url}/cache/get", params={"key": "k"}).json()["data"]


async def test_it_is_degraded_while_an_exporter_fails() -> None:
    async with open_collector() as collector:
        collector.decide = lambda _: Answer(status=503, headers={"retry-after": "60"})

        def run() -> dict[str, object]:
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "SIDECAR_DRAIN_SECONDS": "0"}
            with sidecar_process(environ) as sidecar:
                httpx2.post(f"{sidecar.url}/log", json={"event": "e", "payload": {}})
                while True:
                    health: dict[str, object] = httpx2.get(f"{sidecar.url}/health").json()
                    if health["status"] == "degraded":
                        return health

        with trio.fail_after(10):
            health = await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    checks = health["checks"]
    assert isinstance(checks, dict)
    assert checks["exporter_otlp"]["ok"] is False
