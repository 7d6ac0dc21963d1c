import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sidecar.metrics import REGISTRY
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.queue import BATCH_OVERHEAD, Fanout, Queue, QueueFull

ALL: frozenset[Signal] = frozenset({"traces", "metrics", "logs", "events"})


def batch(size: int = 100, signal: Signal = "traces", records: int = 1) -> Batch:
    return Batch(signal, b"x" * size, records)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"telemetry_cache_{name}", labels) or 0.0


async def test_put_goes_to_every_queue_that_takes_the_signal() -> None:
    every, events = Queue("every", ALL, 10_000), Queue("events", frozenset({"events"}), 10_000)
    fanout = Fanout([every, events])
    await fanout.put(batch(signal="events"))
    await fanout.put(batch(signal="traces", records=5))
    assert every.left() == {"events": 1, "traces": 5}
    assert events.left() == {"events": 1}


async def test_put_into_a_full_queue_raises_and_puts_nowhere() -> None:
    roomy, full = Queue("roomy", ALL, 10_000), Queue("full", ALL, 100 + BATCH_OVERHEAD)
    fanout = Fanout([roomy, full], retry_after_seconds=7)
    await fanout.put(batch(100))
    with pytest.raises(QueueFull) as refusal:
        await fanout.put(batch(1))
    assert refusal.value.retry_after_seconds == 7
    assert roomy.left() == full.left() == {"traces": 1}


async def test_full_queue_does_not_hold_up_signals_it_does_not_take() -> None:
    events = Queue("events", frozenset({"events"}), 300)
    fanout = Fanout([Queue("every", ALL, 10_000), events])
    await fanout.put(batch(100, signal="events"))
    await fanout.put(batch(100, signal="traces"))
    assert events.left() == {"events": 1}


async def test_empty_queue_takes_a_batch_larger_than_its_bound() -> None:
    queue = Queue("small", ALL, 1000)
    fanout = Fanout([queue])
    await fanout.put(batch(5000))
    with pytest.raises(QueueFull):
        await fanout.put(batch(1))
    await queue.remove(1)
    await fanout.put(batch(1))


async def test_signal_without_exporter_is_counted_as_dropped() -> None:
    before = sample("dropped_records_total", signal="metrics", reason="no_exporter")
    await Fanout([Queue("events", frozenset({"events"}), 1000)]).put(batch(1, "metrics", 3))
    after = sample("dropped_records_total", signal="metrics", reason="no_exporter")
    assert after - before == 3


async def test_cancelled_put_puts_nothing() -> None:
    queue = Queue("queue", ALL, 1000)
    with trio.CancelScope() as scope:
        scope.cancel()
        await Fanout([queue]).put(batch())
    assert scope.cancelled_caught
    assert queue.left() == {}


async def test_head_leaves_batches_in_the_queue_until_they_are_removed() -> None:
    queue = Queue("queue", ALL, 10_000)
    first, second = batch(10), batch(20)
    queue.put_nowait(first)
    queue.put_nowait(second)
    assert await queue.head(1000) == [first, second]
    assert await queue.head(1000) == [first, second]
    await queue.remove(1)
    assert await queue.head(1000) == [second]


async def test_head_is_a_row_of_one_signal_within_the_bounds() -> None:
    queue = Queue("queue", ALL, 10_000)
    for item in [batch(10), batch(10), batch(10), batch(10, "logs")]:
        queue.put_nowait(item)
    assert len(await queue.head(1000)) == 3
    assert len(await queue.head(25)) == 2
    assert len(await queue.head(1)) == 1
    assert len(await queue.head(1000, max_batches=2)) == 2


async def test_head_waits_for_a_batch_and_wait_empty_for_none(autojump_clock: object) -> None:
    queue = Queue("queue", ALL, 10_000)
    seen: list[str] = []

    async def take() -> None:
        await queue.head(1000)
        seen.append("head")
        await queue.wait_empty()
        seen.append("empty")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        assert seen == []
        queue.put_nowait(batch())
        await wait_all_tasks_blocked()
        assert seen == ["head"]
        await queue.remove(1)
    assert seen == ["head", "empty"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.booleans()), max_size=30))
def test_gauges_tell_what_waits(steps: list[tuple[int, int, bool]]) -> None:
    async def play() -> None:
        queue = Queue("gauged", ALL, 10**6)
        waiting: list[Batch] = []
        for size, records, remove in steps:
            if remove and waiting:
                await queue.remove(1)
                waiting.pop(0)
            else:
                waiting.append(batch(size, records=records))
                queue.put_nowait(waiting[-1])
            size_now = sum(len(b.body) + BATCH_OVERHEAD for b in waiting)
            assert sample("queue_bytes", exporter="gauged") == size_now
            assert sample("queue_records", exporter="gauged") == sum(b.records for b in waiting)

    trio.run(play)
