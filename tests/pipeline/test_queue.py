"""The queue in memory and on disk: what it promises, and what it does when the disk fails."""

import math
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sidecar.metrics import REGISTRY
from sidecar.pipeline.batch import SIGNALS, Batch, PackedBatch, Signal, pack
from sidecar.pipeline.queue import Queue, QueueFull, Waiting, cost
from sidecar.pipeline.store import FILE_NAME, Settled, Store

ALL: frozenset[Signal] = frozenset(SIGNALS)
EVENTS: frozenset[Signal] = frozenset({"events"})
MIB = 2**20


def batch(body: bytes = b"x", signal: Signal = "traces", records: int = 1) -> PackedBatch:
    return pack(Batch(signal, body, records))


def bodies(rows: list[Waiting]) -> list[bytes]:
    return [row.batch.body for row in rows]


def set_aside(directory: Path) -> list[Path]:
    return list(directory.glob(f"{FILE_NAME}.set-aside-*Z"))


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"telemetry_cache_{name}", labels) or 0.0


@pytest.fixture(params=["memory", "disk"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "queue" if request.param == "disk" else None


@asynccontextmanager
async def opened(
    directory: Path | None = None,
    *,
    max_bytes: int = MIB,
    max_age: float = math.inf,
    linger: float = 0.0,
    **exporters: frozenset[Signal],
) -> AsyncIterator[Queue]:
    queue = Queue(
        exporters or {"one": ALL},
        max_bytes=max_bytes,
        max_age=max_age,
        directory=directory,
        linger=linger,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        yield queue
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


def fail(monkeypatch: pytest.MonkeyPatch, method: str, *codes: int) -> list[int]:
    """Let calls of a method of the store fail, one for each code of SQLite; return the failed."""
    real = getattr(Store, method)
    left, failed = list(codes), []

    def call(*arguments: object) -> object:
        if not left:
            return real(*arguments)
        error = sqlite3.OperationalError("a fault")
        error.sqlite_errorcode = left.pop(0)
        failed.append(error.sqlite_errorcode)
        raise error

    monkeypatch.setattr(Store, method, call)
    return failed


async def put_again(queue: Queue, batch: PackedBatch) -> None:
    """Put as soon as the queue takes it."""
    with trio.fail_after(10):
        while True:
            try:
                return await queue.put(batch)
            except QueueFull:
                await trio.sleep(0.02)


def fill_disk(queue: Queue) -> None:
    """Let the file grow no more, as if the disk were full."""
    assert queue._store is not None
    (pages,) = queue._store._db.execute("PRAGMA page_count").fetchone()
    queue._store._db.execute(f"PRAGMA max_page_count = {pages}")


async def test_put_goes_to_every_exporter_that_takes_the_signal(directory: Path | None) -> None:
    async with opened(directory, every=ALL, events=EVENTS) as queue:
        await queue.put(batch(signal="events"))
        await queue.put(batch(signal="traces", records=5))
        assert queue.left() == {"every": {"events": 1, "traces": 5}, "events": {"events": 1}}


async def test_put_into_a_full_queue_raises_and_puts_nowhere(directory: Path | None) -> None:
    one = batch(b"x" * 100)
    async with opened(directory, max_bytes=cost(one), every=ALL, logs=frozenset({"logs"})) as queue:
        await queue.put(one)
        with pytest.raises(QueueFull) as refusal:
            await queue.put(batch(signal="logs"))
        assert refusal.value.retry_after_seconds == 5
        assert queue.left() == {"every": {"traces": 1}}
        await queue.settle("every", await queue.head("every", MIB))
        await queue.put(one)


async def test_one_that_is_full_holds_up_no_signal_that_it_does_not_take() -> None:
    one = batch(b"x" * 100, "events")
    async with opened(max_bytes=cost(one), every=ALL, events=EVENTS) as queue:
        await queue.put(one)
        await queue.settle("every", await queue.head("every", MIB))
        await queue.put(batch(b"1", "traces"))
        await queue.settle("every", await queue.head("every", MIB))
        with pytest.raises(QueueFull):
            await queue.put(one)


async def test_empty_queue_takes_a_batch_larger_than_its_bound(directory: Path | None) -> None:
    async with opened(directory, max_bytes=10) as queue:
        await queue.put(batch(b"x" * 5000))
        with pytest.raises(QueueFull):
            await queue.put(batch())


async def test_what_hardly_waits_is_not_compressed_unless_a_disk_keeps_it(
    directory: Path | None,
) -> None:
    one = Batch("traces", b"repeated " * 2000, 1)
    async with opened(directory) as queue:
        first = queue.pack(one)
        assert (first.body == one.body) is (directory is None)
        await queue.put(first)
        while len(queue.pack(one).body) == len(one.body):
            await queue.put(queue.pack(one))
        await queue.put(queue.pack(one))
        rows = await queue.head("one", 100 * MIB)
        assert {row.batch for row in rows} == {one}
        assert len(rows) >= (8 if directory is None else 2)


async def test_signal_without_exporter_is_counted_as_dropped() -> None:
    labels = {"exporter": "", "signal": "metrics", "reason": "no_exporter"}
    before = sample("dropped_records_total", **labels)
    accepted: list[bool] = []
    async with opened(events=EVENTS) as queue:
        await queue.put(batch(signal="metrics", records=3), lambda: accepted.append(True))
    assert sample("dropped_records_total", **labels) - before == 3
    assert accepted == [True]


async def test_a_batch_stays_until_it_is_settled(directory: Path | None) -> None:
    async with opened(directory) as queue:
        for body in (b"1", b"2"):
            await queue.put(batch(body))
        rows = await queue.head("one", MIB)
        assert bodies(rows) == bodies(await queue.head("one", MIB)) == [b"1", b"2"]
        await queue.settle("one", rows[:1])
        assert bodies(await queue.head("one", MIB)) == [b"2"]


async def test_head_is_a_row_of_one_signal_within_the_bounds(directory: Path | None) -> None:
    async with opened(directory) as queue:
        for signal in ("traces", "traces", "traces", "logs"):
            await queue.put(batch(b"x" * 10, signal))
        assert len(await queue.head("one", 1000)) == 3
        assert len(await queue.head("one", 25)) == 2
        assert len(await queue.head("one", 1)) == 1
        assert len(await queue.head("one", 1000, max_batches=2)) == 2


async def test_each_exporter_goes_its_own_way(directory: Path | None) -> None:
    async with opened(directory, fast=ALL, slow=ALL) as queue:
        for body in (b"1", b"2"):
            await queue.put(batch(body))
        await queue.settle("fast", await queue.head("fast", MIB))
        assert queue.left() == {"slow": {"traces": 2}}
        await queue.put(batch(b"3"))
        assert bodies(await queue.head("fast", MIB)) == [b"3"]
        assert bodies(await queue.head("slow", MIB)) == [b"1", b"2", b"3"]


async def test_head_waits_for_a_batch_and_wait_empty_for_none(directory: Path | None) -> None:
    seen: list[str] = []
    async with opened(directory) as queue, trio.open_nursery() as nursery:

        async def take() -> None:
            rows = await queue.head("one", MIB)
            seen.append("head")
            await queue.settle("one", rows)

        async def wait() -> None:
            await queue.put(batch())
            await queue.wait_empty()
            seen.append("empty")

        nursery.start_soon(take)
        await wait_all_tasks_blocked(0.01)
        assert seen == []
        nursery.start_soon(wait)
    assert seen == ["head", "empty"]


async def test_an_exporter_waits_for_more_to_take_along() -> None:
    async with opened(linger=60.0) as queue, trio.open_nursery() as nursery:
        found: list[list[bytes]] = []

        async def take() -> None:
            found.append(bodies(await queue.head("one", 25)))

        nursery.start_soon(take)
        await queue.put(batch(b"x" * 10))
        await wait_all_tasks_blocked(0.01)
        assert found == []
        await queue.put(batch(b"x" * 20))
        await until(lambda: bool(found))
        assert found == [[b"x" * 10]]
        queue.hurry()
        assert len(await queue.head("one", MIB)) == 2


async def test_accepted_and_counted_are_called_with_the_gauges() -> None:
    """The counts balance at any moment, so both change in one step."""
    seen: list[float] = []
    async with opened(balance=ALL) as queue:

        def note() -> None:
            seen.append(sample("queue_records", exporter="balance", signal="logs"))

        await queue.put(batch(signal="logs", records=7), note)
        await queue.settle("balance", await queue.head("balance", MIB), note)
    assert seen == [7, 0]


async def test_a_cancelled_put_is_there_or_not_but_counts_right(directory: Path | None) -> None:
    accepted: list[bool] = []
    async with opened(directory) as queue:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue.put(batch(), lambda: accepted.append(True))
        # In memory there is nothing to wait for.
        assert scope.cancelled_caught is (directory is not None)
        await queue.put(batch())
        assert queue.left() == {"one": {"traces": 1 + len(accepted)}}


async def test_what_a_cancelled_settle_is_about_does_not_go_out_again(
    directory: Path | None,
) -> None:
    counted: list[bool] = []
    async with opened(directory) as queue:
        await queue.put(batch(b"1"))
        rows = await queue.head("one", MIB)
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue.settle("one", rows, lambda: counted.append(True))
        await queue.put(batch(b"2"))
        with trio.fail_after(5):
            assert bodies(await queue.head("one", MIB)) == [b"2"]
        await until(lambda: bool(counted))
        assert queue.left() == {"one": {"traces": 1}}


async def test_what_is_refused_for_good_is_a_dead_letter(directory: Path | None) -> None:
    async with opened(directory) as queue:
        await queue.put(batch(b"bad", records=4))
        await queue.settle("one", await queue.head("one", MIB), refused="status 400")
        assert queue.left() == {}
        assert sample("dead_letter_records", exporter="one", signal="traces") == 4
    if directory is not None:
        with closing(Store(directory)) as store:
            (letter,) = store.dead_letters()
            assert (letter.exporter, letter.reason, letter.records) == ("one", "status 400", 4)
            assert store.dead_body(letter.id) == batch(b"bad", records=4)


async def test_dead_letters_are_bounded() -> None:
    labels = {"exporter": "one", "signal": "traces", "reason": "dead_letters_full"}
    before = sample("dropped_records_total", **labels)
    async with opened(max_bytes=4 * 2 * cost(batch(b"0"))) as queue:
        for body in (b"1", b"2", b"3"):
            await queue.put(batch(body))
            await queue.settle("one", await queue.head("one", MIB), refused="status 400")
        assert sample("dead_letter_records", exporter="one", signal="traces") == 2
    assert sample("dropped_records_total", **labels) - before == 1


async def test_what_waits_for_too_long_is_given_up(directory: Path | None) -> None:
    labels = {"exporter": "one", "signal": "traces", "reason": "expired"}
    before = sample("dropped_records_total", **labels)
    async with opened(directory, max_age=0.5) as queue:
        await queue.put(batch(records=3))
        await until(lambda: not queue.left())
        await queue.wait_empty()
    assert sample("dropped_records_total", **labels) - before == 3


async def test_what_is_on_disk_waits_for_the_next_process(tmp_path: Path) -> None:
    async with opened(tmp_path, one=ALL, gone=ALL) as queue:
        await queue.put(batch(b"1"))
        await queue.put(batch(b"2", records=5))
        await queue.settle("one", (await queue.head("one", MIB))[:1])
    before = sample("recovered_records_total", exporter="one", signal="traces")
    async with opened(tmp_path, one=ALL, new=ALL) as queue:
        after = sample("recovered_records_total", exporter="one", signal="traces")
        assert after - before == 5
        assert bodies(await queue.head("one", MIB)) == [b"2"]
        # What waits for an exporter that is gone from the settings waits for its return.
        assert queue.left() == {"one": {"traces": 5}, "gone": {"traces": 6}}
        await queue.settle("one", await queue.head("one", MIB))
        with trio.fail_after(5):
            await queue.wait_empty()


async def test_what_another_process_puts_back_is_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"bad"))
        await queue.settle("one", await queue.head("one", MIB), refused="status 400")
        before = sample("recovered_records_total", exporter="one", signal="traces")
        with closing(Store(tmp_path, alone=False)) as store:
            assert store.replay([letter.id for letter in store.dead_letters()]) == 1
        with trio.fail_after(10):
            assert bodies(await queue.head("one", MIB)) == [b"bad"]
        assert sample("dead_letter_records", exporter="one", signal="traces") == 0
        assert sample("recovered_records_total", exporter="one", signal="traces") == before


@pytest.mark.parametrize("kind", ["text", "empty journal", "another database", "older version"])
async def test_a_foreign_file_is_set_aside(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE_NAME
    if kind == "text":
        path.write_bytes(b"This is no database, and is kept as it is.")
    elif kind == "empty journal":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE something (a)")
            if kind == "older version":
                db.execute("PRAGMA application_id = 1413698385")
    content = path.read_bytes()
    async with opened(tmp_path) as queue:
        assert queue.failing is None
        await queue.put(batch(b"1"))
        assert bodies(await queue.head("one", MIB)) == [b"1"]
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == content


async def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    labels = {"exporter": "one", "signal": "traces", "reason": "damaged"}
    before = sample("dropped_records_total", **labels)
    async with opened(tmp_path) as queue:
        for number in range(50):
            await queue.put(batch(bytes([number]) * 3000))
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    # All pages but the first, which holds the header and the schema.
    data[4096:] = b"\x55" * (len(data) - 4096)
    path.write_bytes(data)
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"new"))
        with trio.fail_after(10):
            assert bodies(await queue.head("one", MIB)) == [b"new"]
        assert queue.left() == {"one": {"traces": 1}}
    assert len(set_aside(tmp_path)) == 1
    # They were not counted as found, so they do not count as lost.
    assert sample("dropped_records_total", **labels) == before


async def test_a_damaged_body_takes_the_file_aside_and_counts_as_lost(tmp_path: Path) -> None:
    labels = {"exporter": "one", "signal": "traces", "reason": "damaged"}
    before = sample("dropped_records_total", **labels)
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"1", records=3))
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
            db.execute("UPDATE batch SET body = x'00'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.head, "one", MIB)
            await until(lambda: not queue.left())
            await queue.put(batch(b"2"))
        assert queue.left() == {"one": {"traces": 1}}
    assert sample("dropped_records_total", **labels) - before == 3


async def test_what_was_under_way_in_a_file_set_aside_takes_nothing_else_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"old"))
        rows = await queue.head("one", MIB)
        fail(monkeypatch, "write", sqlite3.SQLITE_CORRUPT)
        with pytest.raises(QueueFull):
            await queue.put(batch(b"refused"))
        await until(lambda: not queue.left())
        await queue.put(batch(b"new"))
        await queue.settle("one", rows)
        assert queue.left() == {"one": {"traces": 1}}
        assert bodies(await queue.head("one", MIB)) == [b"new"]


async def test_damage_that_a_second_try_finds_sets_the_file_aside_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as queue:
        await queue.put(batch())
        rows = await queue.head("one", MIB)
        fail(monkeypatch, "write", sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)
        await queue.settle("one", rows)
        await wait_all_tasks_blocked(0.05)
        assert queue.failing is None
    assert len(set_aside(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "damaged"),
    [(b"onelogs", b"onelogx"), (b"onelogs", b"onelog\xff"), (b"REAL", b"RE\xffL")],
)
async def test_a_file_with_a_damaged_text_is_set_aside(
    tmp_path: Path, text: bytes, damaged: bytes
) -> None:
    async with opened(tmp_path) as queue:
        await queue.put(batch(signal="logs"))
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    assert text in content
    path.write_bytes(content.replace(text, damaged))
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"1"))
        assert bodies(await queue.head("one", MIB)) == [b"1"]
    assert len(set_aside(tmp_path)) == 1


async def test_a_file_in_which_a_batch_is_missing_is_set_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.put(batch(b"1"))
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
            db.execute("DELETE FROM batch")
        await until(lambda: bool(set_aside(tmp_path)))
        await put_again(queue, batch(b"2"))
        assert bodies(await queue.head("one", MIB)) == [b"2"]


async def test_a_disk_that_cannot_be_read_is_tried_every_second(
    directory: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as queue:
        await queue.put(batch(b"1"))
        tries = fail(monkeypatch, "head", *[sqlite3.SQLITE_IOERR] * 1000)
        with trio.move_on_after(0.5):
            await queue.head("one", MIB)
        assert len(tries) == 1
        monkeypatch.undo()
        with trio.fail_after(10):
            assert bodies(await queue.head("one", MIB)) == [b"1"]


async def test_what_is_too_old_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    async with opened(tmp_path, max_age=2.0) as queue:
        await queue.put(batch(random.randbytes(400_000)))
        fill_disk(queue)
        with pytest.raises(QueueFull):
            await queue.put(batch(random.randbytes(20_000)))
        assert queue.left()
        assert queue.failing == "database or disk is full"
        await until(lambda: not queue.left() and queue.failing is None)


async def test_dead_letters_for_which_the_disk_has_no_room_are_dropped(tmp_path: Path) -> None:
    labels = {"exporter": "one", "signal": "traces", "reason": "dead_letters_full"}
    before = sample("dropped_records_total", **labels)
    async with opened(tmp_path, one=ALL, other=ALL) as queue, trio.open_nursery() as nursery:
        await queue.put(batch(random.randbytes(400_000), records=3))
        rows = await queue.head("one", MIB)
        fill_disk(queue)
        nursery.start_soon(partial(queue.settle, "one", rows, refused="status 400"))
        with trio.fail_after(10):
            await queue.settle("other", await queue.head("other", MIB))
            await queue.wait_empty()
        await until(lambda: queue.failing is None)
        assert sample("dead_letter_records", exporter="one", signal="traces") == 0
    assert sample("dropped_records_total", **labels) - before == 3


def test_to_take_a_large_batch_out_needs_little_room(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.write([(batch(random.randbytes(8 * MIB)), ["one"])], [])
        log = tmp_path / f"{FILE_NAME}-wal"
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (row,) = store.head("one", MIB, 1)
        store.write([], [Settled("one", "traces", [row.id])])
        assert not store.totals()[0]
        assert log.stat().st_size < MIB


async def test_what_is_under_way_keeps_no_other_signal_from_growing_too_old() -> None:
    async with opened(max_age=0.5) as queue:
        await queue.put(batch(signal="traces"))
        await queue.put(batch(signal="logs"))
        await queue.put(batch(signal="traces"))
        await queue.head("one", MIB)
        await until(lambda: queue.left() == {"one": {"traces": 2}})


async def test_a_queue_that_another_process_has_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    async with opened(tmp_path) as queue:
        assert queue.failing == "another process uses it"
        with pytest.raises(QueueFull):
            await queue.put(batch())
        store.close()
        await until(lambda: queue.failing is None)
        await queue.put(batch())


async def test_a_directory_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.write_text("a file")
    async with opened(directory) as queue:
        assert queue.failing == "File exists"
        with pytest.raises(QueueFull):
            await queue.put(batch())
        directory.unlink()
        await until(lambda: queue.failing is None)
        await queue.put(batch())


async def test_a_directory_that_goes_away_loses_nothing_that_is_still_there(tmp_path: Path) -> None:
    async with opened(tmp_path / "queue") as queue:
        await queue.put(batch(b"1"))
        # SQLite goes on with the file that it has open.
        shutil.move(tmp_path / "queue", tmp_path / "moved")
        rows = await queue.head("one", MIB)
        assert bodies(rows) == [b"1"]
        await queue.settle("one", rows)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from(SIGNALS), st.integers(1, 9)),
            st.tuples(st.sampled_from(["export", "refuse"]), st.sampled_from(["a", "b"])),
        ),
        max_size=40,
    )
)
def test_what_was_put_waits_or_was_settled(steps: list[tuple[object, ...]]) -> None:
    """The records of a model are those of the queue, after every step, for each exporter."""

    async def play() -> None:
        takes = {"a": ALL, "b": EVENTS}
        waiting: dict[str, list[tuple[Signal, int]]] = {"a": [], "b": []}
        async with opened(None, a=ALL, b=EVENTS) as queue:
            for step in steps:
                if step[0] == "put":
                    signal, records = step[1], step[2]
                    assert isinstance(signal, str) and isinstance(records, int)
                    await queue.put(batch(signal=signal, records=records))  # type: ignore[arg-type]
                    for name, signals in takes.items():
                        if signal in signals:
                            waiting[name].append((signal, records))
                elif waiting[name := str(step[1])]:
                    rows = await queue.head(name, MIB)
                    refused = "status 400" if step[0] == "refuse" else None
                    await queue.settle(name, rows, refused=refused)
                    # All of the signal of the one that has waited longest.
                    oldest = waiting[name][0][0]
                    assert len(rows) == sum(signal == oldest for signal, _ in waiting[name])
                    waiting[name] = [one for one in waiting[name] if one[0] != oldest]
                expected = {
                    name: {
                        signal: records
                        for signal in SIGNALS
                        if (records := sum(n for one, n in rows if one == signal))
                    }
                    for name, rows in waiting.items()
                }
                assert queue.left() == {name: left for name, left in expected.items() if left}

    trio.run(play)
