"""The queue between the receivers and the exporters: bounded, and durable where it has a directory.

A put returns when the batch is committed; all that wait at a time share one commit. A batch waits
until its export is settled, so a cancelled export, or a killed process, loses nothing; what was
under way is exported again. What was not committed was not acknowledged to its sender.

While the disk fails, nothing is taken in and nothing is lost: puts are refused, what an exporter is
done with is kept in mind, and the disk is tried again every second.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import trio
import zstandard

from sidecar import metrics
from sidecar.pipeline.batch import SIGNALS, Batch, PackedBatch, Signal, pack
from sidecar.pipeline.store import (
    ROW_OVERHEAD,
    ForeignFileError,
    Lost,
    Settled,
    Store,
    Total,
    is_damaged,
    set_aside,
)

_log = structlog.get_logger(__name__)

T = TypeVar("T")

RETRY_AFTER_SECONDS = 5
# A put that the disk has not taken by then is refused; it may be there all the same.
_COMMIT_SECONDS = 30.0
_UPKEEP_SECONDS = 1.0
# How much is written in one commit: it holds up all that wait for it.
_MOST_ADDED, _MOST_BYTES = 512, 2 * 2**20
_MOST_BATCHES = 1024
# Of the bound of what waits, what may wait in memory uncompressed.
_PLAIN_SHARE = 8
# Of the bound of what waits, what dead letters may take on top.
_DEAD_SHARE = 4


class QueueFull(Exception):  # noqa: N818 (named as in asyncio and queue)
    """There is no room, or the disk does not take it; nothing was put anywhere.

    Args:
        retry_after_seconds: when the sender may try again.
    """

    def __init__(self, retry_after_seconds: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(f"queue full, try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class Waiting(msgspec.Struct, frozen=True):
    """A batch that waits, by its place in the queue, as it is kept and as it is sent."""

    id: int
    packed: PackedBatch
    batch: Batch


class _Put(msgspec.Struct, eq=False):
    batch: PackedBatch
    exporters: list[str]
    accepted: Callable[[], None]
    refused: bool = False
    done: trio.Event = msgspec.field(default_factory=trio.Event)


class _Settle(msgspec.Struct, eq=False):
    settled: Settled
    rows: list[Waiting]
    counted: Callable[[], None]
    done: trio.Event = msgspec.field(default_factory=trio.Event)


class _Counts:
    """What waits for one exporter, and what it has in dead letters."""

    def __init__(self, name: str) -> None:
        self.records = dict.fromkeys(SIGNALS, 0)
        self.dead = dict.fromkeys(SIGNALS, 0)
        self.batches = self.size = self.bytes = 0
        self.since: float | None = None  # Unix time
        # The last id that `head` has returned, by signal.
        self.under_way: dict[Signal, int] = {}
        self.filled = trio.lowlevel.ParkingLot()
        metrics.QUEUE_BYTES.labels(name).set_function(lambda: self.bytes)
        metrics.QUEUE_OLDEST.labels(name).set_function(self.age)
        for signal in SIGNALS:
            waiting = metrics.QUEUE_RECORDS.labels(name, signal)
            waiting.set_function(partial(self.records.__getitem__, signal))
            dead = metrics.DEAD_LETTER_RECORDS.labels(name, signal)
            dead.set_function(partial(self.dead.__getitem__, signal))

    def age(self) -> float:
        """Return for how many seconds the oldest has waited."""
        return 0.0 if self.since is None else max(0.0, time.time() - self.since)

    def add(self, batch: PackedBatch) -> None:
        self.records[batch.signal] += batch.records
        self.batches += 1
        self.size += batch.size
        self.bytes += cost(batch)
        if self.since is None:
            self.since = time.time()
        self.filled.unpark_all()

    def remove(self, row: Waiting, *, dead: bool) -> None:
        batch = row.packed
        self._remove(batch.signal, 1, batch.records, batch.size, cost(batch))
        if dead:
            self.dead[batch.signal] += batch.records

    def expire(self, total: Total) -> None:
        self._remove(total.signal, total.batches, total.records, total.size, total.bytes)

    def _remove(self, signal: Signal, batches: int, records: int, size: int, bytes: int) -> None:
        self.records[signal] -= records
        self.batches -= batches
        self.size -= size
        self.bytes -= bytes
        if not self.batches:
            self.since = None


class Queue:
    """The batches that wait, for each exporter in the order in which they came.

    Args:
        exporters: name → the signals that it takes.
        max_bytes: the bound of what waits for any of them: bodies as they are kept, and overhead.
            An empty queue takes any batch, or one larger than the bound would be sent in vain for
            ever. Dead letters may take a quarter of it on top.
        max_age: seconds; what waits for longer is given up.
        directory: for the file; None: in memory.
        fsync: whether what was put is on the device, or safe from the end of the process only.
        linger: seconds for which an exporter waits for more to take along.

    Attributes:
        failing: why nothing can be taken in now, or None.
    """

    def __init__(
        self,
        exporters: Mapping[str, frozenset[Signal]],
        *,
        max_bytes: int,
        max_age: float = math.inf,
        directory: Path | None = None,
        fsync: bool = True,
        linger: float = 0.0,
    ) -> None:
        self.failing: str | None = None
        self._takers: dict[Signal, list[str]] = {
            signal: [name for name, signals in exporters.items() if signal in signals]
            for signal in SIGNALS
        }
        # Others that the file knows of come to these.
        self._counts = {name: _Counts(name) for name in exporters}
        self._own = frozenset(exporters)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._directory = directory
        self._fsync = fsync
        self._linger = linger
        self._hurrying = False
        self._store: Store | None = None
        self._version = 0
        # The greatest id that `head` has returned.
        self._last_id = 0
        # Whoever has it may use the store, and must count what that changes before it lets go.
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._puts: list[_Put] = []
        self._settles: list[_Settle] = []
        self._reserved = 0
        self._work = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()

    # What receivers do.

    async def put(self, batch: PackedBatch, accepted: Callable[[], None] = lambda: None) -> None:
        """Hand a batch over to every exporter that takes its signal.

        A signal that no exporter takes is dropped and counted: its sender can do nothing about
        that. What a cancelled put has handed over may be taken in all the same.

        Args:
            batch: what to put.
            accepted: is called in the moment from which it counts as waiting.

        Raises:
            QueueFull: no exporter has the batch, or not for sure.
        """
        exporters = self._takers[batch.signal]
        if not batch.records or not exporters:
            await trio.lowlevel.checkpoint()
            if batch.records:
                metrics.DROPPED.labels("", batch.signal, "no_exporter").inc(batch.records)
            accepted()
            return
        if self._store is None or self.failing or not self._has_room(batch, exporters):
            raise QueueFull
        put = _Put(batch, exporters, accepted)
        self._puts.append(put)
        self._reserved += cost(batch)
        if not self.durable and not self._turn.locked():
            await self._commit()  # there is no disk to wait for
        else:
            self._work.unpark_all()
            with trio.move_on_after(_COMMIT_SECONDS):
                await put.done.wait()
        if put.refused or not put.done.is_set():
            raise QueueFull

    def pack(self, batch: Batch) -> PackedBatch:
        """Return a batch as it is to be put: compressed when it may have to wait for long.

        Safe in a thread.
        """
        if self.durable:
            return pack(batch)
        waiting = max((counts.bytes for counts in self._counts.values()), default=0)
        plain = self._reserved + waiting + len(batch.body)
        return pack(batch, compress=plain > self._max_bytes // _PLAIN_SHARE)

    def _has_room(self, batch: PackedBatch, exporters: list[str]) -> bool:
        # Of those that take it: one that is full holds up no signal that it does not take.
        used = self._reserved + max(self._counts[name].bytes for name in exporters)
        return not used or used + cost(batch) <= self._max_bytes

    # What dispatchers do.

    async def head(
        self, name: str, max_bytes: int, max_batches: int = _MOST_BATCHES
    ) -> list[Waiting]:
        """Wait until a batch is there; return those that have waited longest for an exporter.

        They stay until they are settled, are of the signal of the oldest, at most ``max_batches``,
        and their bodies at most ``max_bytes`` together unless the first alone is larger.
        """
        counts = self._counts[name]
        while True:
            await trio.lowlevel.checkpoint()
            while not counts.batches or self._store is None:
                await counts.filled.park()
            with trio.move_on_after(max(0.0, self._linger - counts.age())):
                while counts.size < max_bytes and not self._hurrying:
                    await counts.filled.park()
            if rows := await self._read(name, max_bytes, max_batches):
                return rows
            # The disk failed, or the counts are to be put right: both are looked after as often.
            with trio.move_on_after(_UPKEEP_SECONDS):
                await counts.filled.park()

    async def _read(self, name: str, max_bytes: int, max_batches: int) -> list[Waiting]:
        async with self._turn:
            store = self._store
            if store is None:
                return []
            try:
                rows = await self._call(
                    partial(_read, store, self.durable, name, max_bytes, max_batches)
                )
            except (sqlite3.Error, zstandard.ZstdError) as error:
                await self._fail(error)
                return []
            # A cancelled `settle` is still to be done: what it is about does not go out again.
            settled = {
                id
                for settle in self._settles
                if settle.settled.exporter == name
                for id in settle.settled.ids
            }
            rows = [row for row in rows if row[0].id not in settled] if settled else rows
            if rows:
                counts = self._counts[name]
                counts.since, last = rows[0][1], rows[-1][0]
                counts.under_way = {last.packed.signal: last.id}
                self._last_id = max(self._last_id, last.id)
        return [row for row, _ in rows]

    async def settle(
        self,
        name: str,
        rows: list[Waiting],
        counted: Callable[[], None] = lambda: None,
        *,
        refused: str | None = None,
    ) -> None:
        """Take batches out for good, and return once they are.

        Where it is cancelled, it is done all the same.

        Args:
            name: of the exporter.
            rows: what `head` returned, or some of it; at least one.
            counted: is called in the moment from which they no longer count as waiting.
            refused: why the target will never take them; then they become dead letters.
        """
        signal = rows[0].batch.signal
        settled = Settled(name, signal, [row.id for row in rows], refused)
        settle = _Settle(settled, rows, counted)
        self._settles.append(settle)
        self._work.unpark_all()
        await settle.done.wait()

    def hurry(self) -> None:
        """Let no exporter wait for more to take along: the process is stopping."""
        self._hurrying = True
        for counts in self._counts.values():
            counts.filled.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until every export is settled."""
        await trio.lowlevel.checkpoint()
        while self._reserved or any(self._counts[name].batches for name in self._own):
            await self._emptied.park()

    def left(self) -> dict[str, dict[Signal, int]]:
        """Return how many records wait, by exporter and signal; what is empty is left out."""
        left = {
            name: {signal: records for signal, records in counts.records.items() if records}
            for name, counts in self._counts.items()
        }
        return {name: records for name, records in left.items() if records}

    def age(self, name: str) -> float:
        """Return for how many seconds the oldest batch has waited for an exporter."""
        return self._counts[name].age()

    @property
    def durable(self) -> bool:
        """Whether what waits outlives the process."""
        return self._directory is not None

    # What it does by itself.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled; then what is settled, and close.

        Has started once the file was tried; while it cannot be used, puts are refused.
        """
        async with self._turn:
            await self._open()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_all)
                nursery.start_soon(self._keep_up)
        finally:
            # Bounded by the disk: what was exported is not to be exported again.
            with trio.CancelScope(shield=True):
                async with self._turn:
                    await self._close()

    async def _commit_all(self) -> None:
        while True:
            while self.failing or not (self._puts or self._settles):
                await self._work.park()
            async with self._turn:
                await self._commit()

    async def _commit(self) -> None:
        """Write what is put and settled; what the disk does not take is refused, or tried again."""
        store = self._store
        if store is None:
            return
        puts, size = [], 0
        for put in self._puts[:_MOST_ADDED]:
            if size > _MOST_BYTES:
                break
            puts.append(put)
            size += len(put.batch.body)
        del self._puts[: len(puts)]
        settles, self._settles = self._settles, []
        added = [(put.batch, put.exporters) for put in puts]
        try:
            # What was taken out of the lists must be written or put back.
            with trio.CancelScope(shield=True):
                removed, lost = await self._call(
                    partial(store.write, added, [settle.settled for settle in settles])
                )
        except sqlite3.Error as error:
            self._settles = settles + self._settles
            self._refuse(puts)
            await self._fail(error)
            return
        for put in puts:
            self._reserved -= cost(put.batch)
            for name in put.exporters:
                self._counts[name].add(put.batch)
            put.accepted()
            put.done.set()
        for settle, count in zip(settles, removed, strict=True):
            self._count_settled(settle, count)
        for one in lost:
            self._counts[one.exporter].dead[one.signal] -= one.records
            self._drop(one, "dead_letters_full")

    def _refuse(self, puts: list[_Put]) -> None:
        for put in puts:
            self._reserved -= cost(put.batch)
            put.refused = True
            put.done.set()
        self._emptied.unpark_all()

    def _count_settled(self, settle: _Settle, removed: int) -> None:
        # None was there any more when the file was set aside meanwhile: they count as lost then.
        if removed:
            counts = self._counts[settle.settled.exporter]
            for row in settle.rows:
                counts.remove(row, dead=settle.settled.reason is not None)
            settle.counted()
        settle.done.set()
        self._emptied.unpark_all()

    async def _keep_up(self) -> None:
        while True:
            await trio.sleep(_UPKEEP_SECONDS)
            async with self._turn:
                if self._store is None:
                    await self._open()
                elif self.failing:
                    await self._try_again(self._store)
                else:
                    await self._tidy(self._store)

    async def _try_again(self, store: Store) -> None:
        self._refuse(self._puts)
        self._puts = []
        await self._commit()
        if self._store is not store:
            return
        try:
            await self._expire(store)
            await self._call(store.probe)
        except sqlite3.Error as error:
            await self._fail(error)
        else:
            self._recovered()

    async def _tidy(self, store: Store) -> None:
        """Give up what is too old, and take notice of what another process has changed."""
        try:
            await self._expire(store)
            if await self._call(store.version) != self._version:
                await self._count(store, "removed")
            oldest = await self._call(store.oldest)
        except (sqlite3.Error, ForeignFileError) as error:
            await self._fail(error)
            return
        for name, counts in self._counts.items():
            counts.since = oldest.get(name)

    async def _expire(self, store: Store) -> None:
        behind = {
            (name, signal): last
            for name, counts in self._counts.items()
            for signal, last in counts.under_way.items()
        }
        for total in await self._call(partial(store.expire, time.time() - self._max_age, behind)):
            self._counts[total.exporter].expire(total)
            self._drop(Lost(total.exporter, total.signal, total.records), "expired")
        self._emptied.unpark_all()

    async def _count(self, store: Store, reason: str) -> None:
        """Take over what the file says; what is missing counts as dropped, what is more as found.

        Raises:
            sqlite3.Error, ForeignFileError: the file cannot be read.
        """
        waiting, dead, self._version = await self._call(store.totals)
        for one in (*waiting, *dead):
            if one.exporter not in self._counts:
                self._counts[one.exporter] = _Counts(one.exporter)
        before = {
            (name, signal): counts.records[signal] + counts.dead[signal]
            for name, counts in self._counts.items()
            for signal in SIGNALS
        }
        for counts in self._counts.values():
            counts.batches = counts.size = counts.bytes = 0
            counts.records.update(dict.fromkeys(SIGNALS, 0))
            counts.dead.update(dict.fromkeys(SIGNALS, 0))
        for one in waiting:
            counts = self._counts[one.exporter]
            counts.batches += one.batches
            counts.size += one.size
            counts.bytes += one.bytes
            counts.records[one.signal] += one.records
            counts.filled.unpark_all()
        for one in dead:
            self._counts[one.exporter].dead[one.signal] += one.records
        for (name, signal), records in before.items():
            counts = self._counts[name]
            more = counts.records[signal] + counts.dead[signal] - records
            if more > 0:
                metrics.RECOVERED.labels(name, signal).inc(more)
            elif more < 0:
                self._drop(Lost(name, signal, -more), reason)
        self._emptied.unpark_all()

    def _drop(self, lost: Lost, reason: str) -> None:
        metrics.DROPPED.labels(lost.exporter, lost.signal, reason).inc(lost.records)
        _log.error(
            "records_dropped",
            exporter=lost.exporter,
            signal=lost.signal,
            records=lost.records,
            reason=reason,
        )

    async def _open(self) -> None:
        """Open the file, setting one aside that is none of a queue."""
        try:
            store = await self._call(self._opened)
        except (sqlite3.Error, OSError, ForeignFileError) as error:
            if not is_damaged(error) or not await self._set_aside(error):
                self._say_failing(error)
                return
            try:
                store = await self._call(self._opened)
            except (sqlite3.Error, OSError) as again:
                self._say_failing(again)
                return
        try:
            await self._count(store, "damaged")
        except (sqlite3.Error, ForeignFileError) as error:
            await self._call(store.close)
            await self._fail(error)
            return
        self._store = store
        self._recovered()
        for name, records in self.left().items():
            if name not in self._own:
                _log.warning("records_wait_for_no_exporter", exporter=name, records=records)

    def _opened(self) -> Store:
        return Store(
            self._directory,
            fsync=self._fsync,
            max_dead_bytes=self._max_bytes // _DEAD_SHARE,
            # What is under way may be of a file that was set aside: to settle it must not take
            # another batch out.
            after=self._last_id,
        )

    async def _close(self) -> None:
        await self._commit()
        store, self._store = self._store, None
        self._refuse(self._puts)
        if store is not None:
            await self._call(store.close)

    async def _fail(self, error: Exception) -> None:
        """Set a damaged file aside; say of other faults that they are there."""
        if not is_damaged(error) or self._directory is None:
            self._say_failing(error)
            return
        store, self._store = self._store, None
        if store is not None:
            await self._call(store.close)
        if await self._set_aside(error):
            await self._open()
        else:
            self._say_failing(error)

    async def _set_aside(self, error: Exception) -> bool:
        assert self._directory is not None, "what is in memory is no file"
        try:
            aside = await self._call(partial(set_aside, self._directory))
        except OSError:
            return False
        _log.error("queue_set_aside", error=_reason(error), file=aside.name)
        return True

    def _say_failing(self, error: Exception) -> None:
        reason = _reason(error)
        if reason != self.failing:
            self.failing = reason
            _log.error("queue_failing", error=reason, retried="every second")

    def _recovered(self) -> None:
        if self.failing is not None:
            _log.info("queue_recovered")
            self.failing = None
        self._work.unpark_all()
        for counts in self._counts.values():
            counts.filled.unpark_all()

    async def _call(self, function: Callable[[], T]) -> T:
        """Call what waits for the disk, in a thread; what is in memory waits for nothing."""
        if self._directory is None:
            return function()
        return await trio.to_thread.run_sync(function, limiter=self._limiter)


def cost(batch: PackedBatch) -> int:
    """Return what a batch takes of the bound, in bytes."""
    return len(batch.body) + ROW_OVERHEAD


def _read(
    store: Store, damageable: bool, name: str, max_bytes: int, max_batches: int
) -> list[tuple[Waiting, float]]:
    return [
        (Waiting(row.id, row.batch, row.batch.unpack(damageable=damageable)), row.added)
        for row in store.head(name, max_bytes, max_batches)
    ]


def _reason(error: Exception) -> str:
    """Name a fault, by no word of what is in the file."""
    if isinstance(error, sqlite3.Error):
        return str(error)
    if isinstance(error, zstandard.ZstdError):
        return "the body of a batch is damaged"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
