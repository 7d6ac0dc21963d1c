"""A disk that is full, slow or read-only: a real file system, and a sidecar that stays up on it."""

import base64
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import trio

from tests.collector import Answer, accept, open_collector
from tests.load import Acknowledged, Arrived, load, metric, wait_until
from tests.process import SidecarProcess, sidecar_process


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def post_event(sidecar: SidecarProcess, name: str, draw: random.Random) -> int:
    """Post an event of 200 kB that cannot be compressed much; return the status."""
    noise = base64.b64encode(draw.randbytes(150_000)).decode()
    event = {"event": "load", "payload": {"name": name, "noise": noise}}
    return httpx2.post(f"{sidecar.url}/log", json=event, timeout=30).status_code


async def test_a_full_disk_refuses_and_recovers_without_a_restart(disk: Path) -> None:
    draw = random.Random(2)
    arrived = Arrived()
    async with open_collector() as collector:
        collector.decide = lambda _: Answer(status=503)
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "SIDECAR_QUEUE_DIR": str(disk)}

        def fill() -> None:
            with sidecar_process(settings) as sidecar:
                names = [f"record-{number}" for number in range(300)]
                taken = [name for name in names if post_event(sidecar, name, draw) == 200]
                assert 10 < len(taken) < 300
                assert post_event(sidecar, "one more", draw) == 429
                (line,) = [line for line in sidecar.log.splitlines() if "queue_failing" in line]
                assert "database or disk is full" in line
                health = httpx2.get(f"{sidecar.url}/health").json()
                assert health["status"] == "degraded"
                assert "disk is full" in health["checks"]["queue"]["detail"]
                # The target is back: what is exported makes room, on the same disk.
                collector.decide = accept
                wait_until(lambda: not metric(sidecar, "queue_records"), 60, "not drained")
                wait_until(lambda: "queue_recovered" in sidecar.log, 10, "not recovered")
                assert post_event(sidecar, "afterwards", draw) == 200
                wait_until(lambda: not metric(sidecar, "queue_records"), 60, "not drained")
                expected.update(taken, ["afterwards"])

        expected: set[str] = set()
        await trio.to_thread.run_sync(fill)
        arrived.add([r for r in collector.requests if b"record-" in r.body or b"after" in r.body])
    assert arrived.counts.keys() >= expected


async def test_a_read_only_disk_refuses_until_it_can_be_written(disk: Path) -> None:
    mount("-o", "remount,ro", str(disk))
    settings = {"SIDECAR_QUEUE_DIR": str(disk), "SIDECAR_EXPORTERS": "blackhole"}

    def run() -> None:
        draw = random.Random(3)
        with sidecar_process(settings) as sidecar:
            assert post_event(sidecar, "a", draw) == 429
            assert '"error": "Read-only file system"' in sidecar.log
            mount("-o", "remount,rw", str(disk))
            wait_until(lambda: post_event(sidecar, "a", draw) == 200, 10, "not recovered")

    await trio.to_thread.run_sync(run)


async def test_a_slow_disk_slows_acknowledgements_and_nothing_else(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace, which makes fsync slow, is not installed")
    acknowledged, arrived = Acknowledged(), Arrived()
    async with open_collector() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "SIDECAR_QUEUE_DIR": str(tmp_path),
        }

        def run() -> None:
            with sidecar_process(settings) as sidecar:
                slow = subprocess.Popen(
                    [
                        *("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync,fsync"),
                        *("-e", "inject=fdatasync,fsync:delay_exit=200000"),
                        *("-p", str(sidecar.process.pid)),
                    ],
                    stderr=subprocess.PIPE,
                )
                try:
                    with load(sidecar, acknowledged):
                        wait_until(lambda: len(acknowledged.names) > 200, 60, "too slow")
                        for _ in range(50):
                            answer = httpx2.get(f"{sidecar.url}/livez", timeout=30)
                            seconds.append(answer.elapsed.total_seconds())
                finally:
                    slow.terminate()
                    slow.wait()
                wait_until(lambda: not metric(sidecar, "queue_records"), 60, "not drained")

        seconds: list[float] = []
        await trio.to_thread.run_sync(run)
        arrived.add(collector.requests)
    assert acknowledged.names <= arrived.counts.keys()
    assert sorted(seconds)[25] < 0.2
