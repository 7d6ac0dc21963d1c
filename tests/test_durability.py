"""What was acknowledged arrives: a real process, killed and stopped for real, under real load.

The long form of these is ``python -m bench durability``.
"""

import random
from collections import Counter
from pathlib import Path

import httpx2
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from prometheus_client.parser import text_string_to_metric_families

from sidecar.pipeline.batch import SIGNALS
from tests.collector import Answer, open_collector, unused_port
from tests.durability import survive
from tests.load import Acknowledged, Arrived, load, metric, wait_until
from tests.process import SidecarProcess, sidecar_process


@pytest.mark.parametrize("sync", ["full", "normal"])
async def test_no_acknowledged_record_is_lost_by_kill_9(tmp_path: Path, sync: str) -> None:
    async with open_collector() as collector:
        survival = await survive(
            collector, tmp_path, 4, "kill", {"SIDECAR_QUEUE_SYNC": sync}, seed=len(sync)
        )
    assert survival.acknowledged > 100
    assert survival.missing == 0
    assert survival.not_under_way == 0


async def test_no_acknowledged_record_is_lost_by_a_stop(tmp_path: Path) -> None:
    async with open_collector() as collector:
        survival = await survive(collector, tmp_path, 3, "stop", {})
    assert survival.exit_codes == [0, 0, 0]
    assert survival.acknowledged > 100
    assert survival.missing == 0
    assert survival.repeated == 0


async def test_a_second_signal_ends_the_drain_and_loses_nothing(tmp_path: Path) -> None:
    async with open_collector() as collector:
        collector.decide = lambda _: Answer(delay=0.3)
        survival = await survive(collector, tmp_path, 3, "stop twice", {})
    assert survival.exit_codes == [0, 0, 0]
    assert survival.acknowledged > 100
    assert survival.missing == 0
    assert survival.not_under_way == 0


async def test_what_came_while_the_collector_was_down_arrives(tmp_path: Path) -> None:
    port = await unused_port()
    acknowledged, arrived = Acknowledged(), Arrived()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "SIDECAR_QUEUE_DIR": str(tmp_path),
    }
    with sidecar_process(settings) as sidecar:

        def come() -> None:
            with load(sidecar, acknowledged):
                wait_until(lambda: len(acknowledged.names) > 1000, 60, "too slow")

        def drain() -> None:
            wait_until(lambda: not metric(sidecar, "queue_records"), 60, "not drained")

        await trio.to_thread.run_sync(come)
        async with open_collector(port) as collector:
            await trio.to_thread.run_sync(drain)
            arrived.add(collector.requests)
    assert acknowledged.names <= arrived.counts.keys()
    assert not arrived.repeated()


async def test_the_counts_balance_at_any_moment(tmp_path: Path) -> None:
    """What came in is exported, waits, is dead or was dropped: in every scrape, for each signal."""
    draw = random.Random(5)
    partial = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=1)
    ).SerializeToString()
    protobuf = {"content-type": "application/x-protobuf"}
    answers = [
        Answer(headers=protobuf),
        Answer(headers=protobuf, body=partial),
        Answer(status=400),
        Answer(status=503),
        Answer(reset=True),
    ]
    async with open_collector() as collector:
        collector.decide = lambda _: draw.choices(answers, [6, 2, 2, 1, 1])[0]
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "SIDECAR_EXPORTERS": "otlp,blackhole",
            "SIDECAR_QUEUE_DIR": str(tmp_path),
            "SIDECAR_QUEUE_BYTES": "100000",
            "SIDECAR_DRAIN_SECONDS": "0",
        }

        def all_seen(sidecar: SidecarProcess) -> bool:
            for _ in range(20):
                check_balance(httpx2.get(f"{sidecar.metrics_url}/metrics").text)
            return bool(
                metric(sidecar, "rejected_records_total")
                and metric(sidecar, "export_retries_total")
                and metric(sidecar, "dropped_records_total", reason="partial_success")
                and metric(sidecar, "received_records_total") > 500
            )

        def scrape() -> None:
            for _ in range(2):
                with sidecar_process(settings) as sidecar, load(sidecar, Acknowledged()):
                    wait_until(lambda: all_seen(sidecar), 60, "some of each")

        await trio.to_thread.run_sync(scrape)


def check_balance(text: str) -> None:
    counts = Counter[tuple[str, str, str]]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("telemetry_cache_")
            labels = sample.labels
            counts[name, labels.get("exporter", ""), labels.get("signal", "")] += int(sample.value)
    for exporter in ("otlp", "blackhole"):
        for signal in SIGNALS:
            came = (
                counts["received_records_total", "", signal]
                + counts["recovered_records_total", exporter, signal]
            )
            went = (
                counts["exported_records_total", exporter, signal]
                + counts["queue_records", exporter, signal]
                + counts["dead_letter_records", exporter, signal]
                + counts["dropped_records_total", exporter, signal]
                + counts["dropped_records_total", "", signal]
            )
            assert came == went, (exporter, signal)
