"""Health of a running sidecar, with parts of it away."""

import re
import time
from pathlib import Path

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


def test_a_refused_change_of_the_rules_is_told_while_the_last_good_ones_serve(
    tmp_path: Path,
) -> None:
    rule = "version: 1\nrules:\n  - {id: x, find: email}\n"
    (tmp_path / "10.yaml").write_text(rule)
    with sidecar_process({"SIDECAR_RULES": str(tmp_path)}) as sidecar:
        (tmp_path / "20.yaml").write_text("version: 1\nrules:\n  - id: y\n    patern: a\n")
        status_becomes(sidecar, "degraded")
        health = httpx2.get(f"{sidecar.url}/health").json()
        assert re.fullmatch(
            r"1 rules in force; the change of \d\d:\d\d:\d\dZ was refused: "
            r"20\.yaml:4: rule 'y': unknown field `patern`: did you mean `pattern`\?",
            health["checks"]["rules"]["detail"],
        )
        assert httpx2.get(f"{sidecar.metrics_url}/readyz").status_code == 200
        refused = 'telemetry_cache_rules_reloads_total{result="refused"} 1.0'
        applied = 'telemetry_cache_rules_reloads_total{result="applied"} %.1f'
        good = "telemetry_cache_rules_last_reload_successful %.1f"
        assert metrics(sidecar) >= {"telemetry_cache_rules 1.0", refused, applied % 0, good % 0}
        (tmp_path / "20.yaml").write_text(rule.replace("x", "y"))
        status_becomes(sidecar, "healthy")
        assert metrics(sidecar) >= {"telemetry_cache_rules 2.0", refused, applied % 1, good % 1}


def metrics(sidecar: SidecarProcess) -> set[str]:
    return set(httpx2.get(f"{sidecar.metrics_url}/metrics").text.splitlines())


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
