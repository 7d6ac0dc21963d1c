from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from sidecar.exporters.blackhole import BlackholeExporter
from sidecar.exporters.loki import LokiExporter
from sidecar.exporters.otlp import OtlpExporter
from sidecar.metrics import REGISTRY
from sidecar.pipeline.batch import Batch, pack
from sidecar.pipeline.dispatch import Dispatcher, Pipeline
from sidecar.pipeline.exporter import Exporter, Retryable
from sidecar.pipeline.queue import Queue, QueueFull, cost
from sidecar.pipeline.retry import Backoff
from tests.collector import NEVER, Answer, Collector, Received, accept, open_collector, unused_port

FAST = Backoff(first=0.01, ceiling=0.02)
SLOW = Backoff(first=1e6, ceiling=1e6)
MIB = 2**20


def span_batch(name: str) -> Batch:
    spans = ScopeSpans(spans=[Span(name=name)])
    request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[spans])])
    return Batch("traces", request.SerializeToString(), 1)


def event_batch(name: str) -> Batch:
    event = {"event_id": "1", "event": name, "timestamp": "", "payload": {}}
    return Batch("events", msgspec.json.encode(event), 1)


def names(body: bytes) -> list[str]:
    return [
        span.name
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def accepted(collector: Collector, decide: Callable[[Received], Answer]) -> list[str]:
    taken = [r.body for r in collector.requests if decide(r).status == 200]
    return [name for body in taken for name in names(body)]


def otlp(url: str, seconds: float = 10.0) -> OtlpExporter:
    return OtlpExporter({"traces": f"{url}/v1/traces"}, {}, seconds=seconds)


class Watched(OtlpExporter):
    """Tells when an export has failed."""

    def __init__(self, url: str) -> None:
        super().__init__({"traces": f"{url}/v1/traces"}, {})
        self.failed = trio.Event()

    async def export(self, batch: Batch) -> int:
        try:
            return await super().export(batch)
        except Retryable:
            self.failed.set()
            raise


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"telemetry_cache_{name}", labels) or 0.0


def queue_for(
    exporters: Sequence[Exporter], max_bytes: int = MIB, directory: Path | None = None
) -> Queue:
    signals = {exporter.name: exporter.signals for exporter in exporters}
    return Queue(signals, max_bytes=max_bytes, directory=directory, fsync=False)


@asynccontextmanager
async def running(
    *exporters: Exporter,
    backoff: Backoff = FAST,
    max_bytes: int = MIB,
    directory: Path | None = None,
) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(exporters, queue_for(exporters, max_bytes, directory), backoff=backoff)
    async with trio.open_nursery() as nursery:
        await nursery.start(pipeline.run)
        yield pipeline
        nursery.cancel_scope.cancel()


async def put(pipeline: Pipeline | Queue, *batches: Batch) -> None:
    for batch in batches:
        await pipeline.put(pack(batch))


async def put_before(directory: Path, exporter: Exporter, *batches: Batch) -> None:
    """Leave batches in a queue's file, for a pipeline that starts afterwards."""
    queue = queue_for([exporter], directory=directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        await put(queue, *batches)
        nursery.cancel_scope.cancel()


async def drained(pipeline: Pipeline) -> None:
    with trio.fail_after(10):
        await pipeline.drained()


async def test_what_is_put_arrives_and_is_counted() -> None:
    before = sample("exported_records_total", exporter="otlp", signal="traces")
    async with open_collector() as collector:
        async with running(otlp(collector.url)) as pipeline:
            await put(pipeline, span_batch("a"))
            await drained(pipeline)
        assert names(collector.traces().SerializeToString()) == ["a"]
    after = sample("exported_records_total", exporter="otlp", signal="traces")
    assert after - before == 1
    assert sample("queue_bytes", exporter="otlp") == 0
    assert pipeline.states[0].ok


async def test_waiting_batches_go_out_merged_and_in_order(tmp_path: Path) -> None:
    async with open_collector() as collector:
        exporter = otlp(collector.url)
        expected = [f"span {i}" for i in range(100)]
        await put_before(tmp_path, exporter, *map(span_batch, expected))
        async with running(exporter, directory=tmp_path) as pipeline:
            await drained(pipeline)
        assert len(collector.requests) == 1
        assert names(collector.requests[0].body) == expected


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retryable_status_is_tried_until_it_is_taken(status: int) -> None:
    retries = sample("export_retries_total", exporter="otlp")
    async with open_collector() as collector:
        collector.answers.extend([Answer(status=status)] * 3)
        async with running(otlp(collector.url)) as pipeline:
            await put(pipeline, span_batch("a"))
            await collector.received(4)
            await drained(pipeline)
        assert [names(r.body) for r in collector.requests] == [["a"]] * 4
    assert sample("export_retries_total", exporter="otlp") - retries == 3
    assert pipeline.states[0].ok


async def test_retry_after_is_waited_for() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=503, headers={"retry-after": "1"}))
        async with running(otlp(collector.url)) as pipeline:
            await put(pipeline, span_batch("a"))
            await collector.received(1)
            start = trio.current_time()
            await collector.received(2)
            assert trio.current_time() - start >= 0.9


async def test_one_refused_batch_does_not_take_merged_ones_along(tmp_path: Path) -> None:
    def decide(request: Received) -> Answer:
        return Answer(status=400) if b"poison" in request.body else accept(request)

    before = sample("rejected_records_total", exporter="otlp", signal="traces")
    sent = [f"span {i}" for i in range(20)]
    async with open_collector() as collector:
        collector.decide = decide
        exporter = otlp(collector.url)
        batches = [span_batch(name) for name in [*sent[:7], "poison", *sent[7:]]]
        await put_before(tmp_path, exporter, *batches)
        async with running(exporter, directory=tmp_path) as pipeline:
            await drained(pipeline)
            assert sample("dead_letter_records", exporter="otlp", signal="traces") == 1
        assert accepted(collector, decide) == sent
        assert len(collector.requests) <= 11  # halving, not one by one
    after = sample("rejected_records_total", exporter="otlp", signal="traces")
    assert after - before == 1


async def test_refused_credential_is_not_tried_again_for_each_part(tmp_path: Path) -> None:
    async with open_collector() as collector:
        collector.decide = lambda request: Answer(status=401)
        exporter = otlp(collector.url)
        await put_before(tmp_path, exporter, *[span_batch("a")] * 10)
        async with running(exporter, directory=tmp_path) as pipeline:
            await drained(pipeline)
        assert len(collector.requests) == 1
    assert pipeline.states[0].error == "status 401"


async def test_what_waits_of_a_signal_without_an_endpoint_becomes_dead_letters(
    tmp_path: Path,
) -> None:
    async with open_collector() as collector:
        before = OtlpExporter({"logs": collector.url, "traces": collector.url}, {})
        await put_before(tmp_path, before, span_batch("a"), span_batch("b"))
        exporter = OtlpExporter({"logs": collector.url}, {})
        async with running(exporter, directory=tmp_path) as pipeline:
            await drained(pipeline)
            assert sample("dead_letter_records", exporter="otlp", signal="traces") == 2
        assert not collector.requests
    assert pipeline.states[0].error == "no endpoint for traces"


async def test_malformed_batch_does_not_stop_the_exporter() -> None:
    async with open_collector() as collector:
        async with running(LokiExporter(collector.url)) as pipeline:
            broken = Batch("events", b"{broken", 1)
            await put(pipeline, event_batch("a"), broken, event_batch("b"))
            await drained(pipeline)
        entries = [e for stream in collector.loki_streams() for e in stream["values"]]
    assert [entry[2]["event"] for entry in entries] == ["a", "b"]


async def test_exporter_with_a_fault_refuses_the_batch_and_goes_on() -> None:
    class Faulty(BlackholeExporter):
        async def export(self, batch: Batch) -> int:
            if b"fault" in batch.body:
                raise ZeroDivisionError(batch.body)
            return await super().export(batch)

    before = sample("exported_records_total", exporter="blackhole", signal="traces")
    async with running(Faulty()) as pipeline:
        await put(pipeline, *(Batch("traces", body, 1) for body in [b"a", b"fault", b"b"]))
        await drained(pipeline)
    after = sample("exported_records_total", exporter="blackhole", signal="traces")
    assert after - before == 2


async def test_collector_that_comes_up_later_gets_everything() -> None:
    port = await unused_port()
    exporter = Watched(f"http://127.0.0.1:{port}")
    async with running(exporter) as pipeline:
        await put(pipeline, span_batch("a"))
        with trio.fail_after(10):
            await exporter.failed.wait()
        assert pipeline.states[0].error == "cannot connect"
        async with open_collector(port) as collector:
            await put(pipeline, span_batch("b"))
            await drained(pipeline)
            assert [name for r in collector.requests for name in names(r.body)] == ["a", "b"]
    assert pipeline.states[0].ok


async def test_export_after_a_reset_connection_is_repeated() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(reset=True))
        async with running(otlp(collector.url)) as pipeline:
            await put(pipeline, span_batch("a"))
            await collector.received(2)
            await drained(pipeline)


async def test_collector_that_never_answers_is_given_up_and_tried_again() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(delay=NEVER))
        async with running(otlp(collector.url, seconds=0.1)) as pipeline:
            await put(pipeline, span_batch("a"))
            await collector.received(2)
            await drained(pipeline)


async def test_cancelled_export_leaves_the_batch_in_the_queue() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(delay=NEVER))
        exporter = otlp(collector.url)
        queue = queue_for([exporter])
        async with trio.open_nursery() as queues:
            await queues.start(queue.run)
            await put(queue, span_batch("a"))
            for count in (1, 2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(Dispatcher(exporter, queue, FAST).run)
                    await collector.received(count)
                    if count == 2:
                        with trio.fail_after(10):
                            await queue.wait_empty()
                    nursery.cancel_scope.cancel()
                assert queue.left() == ({"otlp": {"traces": 1}} if count == 1 else {})
            queues.cancel_scope.cancel()
        await exporter.aclose()


async def test_full_pipeline_refuses_until_the_exporter_catches_up() -> None:
    async with open_collector() as collector:
        batch = span_batch("a")
        collector.answers.append(Answer(status=503, headers={"retry-after": "300"}))
        exporter = Watched(collector.url)
        async with running(exporter, max_bytes=cost(pack(batch)), backoff=SLOW) as pipeline:
            await put(pipeline, batch)
            with trio.fail_after(10):
                await exporter.failed.wait()
            with pytest.raises(QueueFull):
                await put(pipeline, batch)
            await drained(pipeline)
            await put(pipeline, batch)
            await drained(pipeline)
        assert len(collector.requests) == 3


async def test_drain_tries_at_once_what_waits_for_its_next_try() -> None:
    async with open_collector() as collector:
        answer = Answer(status=503, headers={"retry-after": "300"})
        collector.answers.append(answer)
        exporter = Watched(collector.url)
        async with running(exporter, backoff=SLOW) as pipeline:
            await put(pipeline, span_batch("a"))
            with trio.fail_after(10):
                await exporter.failed.wait()
            await drained(pipeline)
        assert len(collector.requests) == 2


@pytest.mark.parametrize("durable", [False, True])
async def test_what_is_left_at_the_end_is_counted_or_kept(tmp_path: Path, durable: bool) -> None:
    directory = tmp_path if durable else None
    before = sample("dropped_records_total", exporter="otlp", signal="traces", reason="shutdown")
    async with open_collector() as collector:
        collector.decide = lambda request: Answer(status=503)
        async with running(otlp(collector.url), directory=directory) as pipeline:
            await put(pipeline, span_batch("a"), span_batch("b"))
            with trio.move_on_after(0.2) as scope:
                await pipeline.drained()
            assert scope.cancelled_caught
        after = sample("dropped_records_total", exporter="otlp", signal="traces", reason="shutdown")
        assert after - before == (0 if durable else 2)
        assert len(collector.requests) < 200  # no hot loop
        collector.requests.clear()
        collector.decide = accept
        async with running(otlp(collector.url), directory=directory) as pipeline:
            await drained(pipeline)
        assert [name for r in collector.requests for name in names(r.body)] == (
            ["a", "b"] if durable else []
        )


async def test_exporter_that_is_down_does_not_hold_up_another() -> None:
    port = await unused_port()
    async with open_collector() as collector:
        down, up = otlp(f"http://127.0.0.1:{port}"), LokiExporter(collector.url)
        async with running(down, up) as pipeline:
            await put(pipeline, span_batch("a"), event_batch("b"))
            await collector.received(1)
        assert collector.requests[0].path == "/loki/api/v1/push"
