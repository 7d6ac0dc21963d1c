"""Brings what waits in the queue to the exporters, one task for each exporter.

A batch that may be taken later is tried until it is: the bound of the queue is the pressure back
to the senders. A merged batch that is refused for good is halved until the refused part stands
alone, so that one bad record does not take others along; that part becomes a dead letter.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog
import trio

from sidecar.metrics import DROPPED, EXPORT_RETRIES, EXPORT_SECONDS, EXPORTED, REJECTED
from sidecar.pipeline.batch import Batch, PackedBatch, merge
from sidecar.pipeline.exporter import Exporter, Refused, Retryable
from sidecar.pipeline.queue import Queue, Waiting
from sidecar.pipeline.retry import Backoff

_log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 1.0
_BACKOFF = Backoff()


class ExporterState(msgspec.Struct, frozen=True):
    """How an exporter is doing, for the health report.

    Attributes:
        name: the exporter's.
        failing_since: Unix time (seconds) of the first failure after the last success, or None.
        error: the kind of the last failure since then, or None.
    """

    name: str
    failing_since: float | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the last export succeeded, or none was tried yet."""
        return self.failing_since is None


class Dispatcher:
    """Exports what waits for one exporter, for as long as `run` runs.

    Args:
        exporter: is used by this dispatcher alone.
        queue: where it waits.
        backoff: the waits between tries.
    """

    def __init__(self, exporter: Exporter, queue: Queue, backoff: Backoff) -> None:
        self.state = ExporterState(exporter.name)
        self._exporter = exporter
        self._queue = queue
        self._backoff = backoff
        self._attempt = 0
        self._hurrying = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await self._deliver(
                await self._queue.head(self._exporter.name, self._exporter.merge_bytes)
            )

    def hurry(self) -> None:
        """End a wait between tries now, and keep further ones short: the process is stopping."""
        self._hurrying = True
        self._attempt = 0
        self._waiting.unpark_all()

    async def _deliver(self, rows: list[Waiting]) -> None:
        name = self._exporter.name
        rejected, reason = 0, ""
        # A stack with the first group on top: batches leave the queue in their order.
        groups = [rows]
        try:
            while groups:
                group = groups.pop()
                batch = merge([row.batch for row in group])
                try:
                    left_out = await self._send(batch)
                except Refused as refusal:
                    if refusal.divisible and len(group) > 1:
                        middle = len(group) // 2
                        groups += [group[middle:], group[:middle]]
                        continue
                    rejected, reason = rejected + batch.records, refusal.reason
                    self._failed(reason)
                    counted = partial(REJECTED.labels(name, batch.signal).inc, batch.records)
                    await self._queue.settle(name, group, counted, refused=reason)
                else:
                    counted = partial(self._count_exported, batch, left_out)
                    await self._queue.settle(name, group, counted)
        finally:
            # One line for all: a target that refuses everything must not flood the log.
            if rejected:
                _log.error(
                    "records_rejected",
                    exporter=name,
                    signal=rows[0].batch.signal,
                    records=rejected,
                    error=reason,
                )

    async def _send(self, batch: Batch) -> int:
        """Export until the target has taken the batch; return how many records it left out.

        Raises:
            Refused: it never will.
        """
        self._attempt = 0
        reason = ""
        while True:
            try:
                left_out = await self._export(batch)
            except Retryable as failure:
                if failure.reason != reason:
                    reason = failure.reason
                    _log.warning("export_failing", exporter=self._exporter.name, error=reason)
                self._failed(reason)
                retry_after = None if self._hurrying else failure.retry_after
                delay = self._backoff.delay(self._attempt, random.random(), retry_after)
                self._attempt += 1
                with trio.move_on_after(delay):
                    await self._waiting.park()
                EXPORT_RETRIES.labels(self._exporter.name).inc()
            else:
                if reason:
                    _log.info("export_recovered", exporter=self._exporter.name)
                self.state = ExporterState(self._exporter.name)
                return left_out

    async def _export(self, batch: Batch) -> int:
        if batch.signal not in self._exporter.signals:
            # An earlier process, with other settings, queued it.
            raise Refused(f"no endpoint for {batch.signal}", divisible=False)
        with EXPORT_SECONDS.labels(self._exporter.name).time():
            try:
                return await self._exporter.export(batch)
            except (Retryable, Refused):
                raise
            except Exception as error:
                # One batch that an exporter cannot cope with must not stop the process. Its
                # message is left out because it may quote the records.
                raise Refused(f"fault {type(error).__name__}") from None

    def _count_exported(self, batch: Batch, left_out: int) -> None:
        name = self._exporter.name
        EXPORTED.labels(name, batch.signal).inc(batch.records - left_out)
        if left_out:
            DROPPED.labels(name, batch.signal, "partial_success").inc(left_out)
            _log.warning("partial_success", exporter=name, signal=batch.signal, records=left_out)

    def _failed(self, reason: str) -> None:
        since = self.state.failing_since or time.time()
        self.state = ExporterState(self._exporter.name, since, reason)


class Pipeline:
    """The queue, the exporters behind it and the tasks between.

    Args:
        exporters: with different names; closed when `run` ends.
        queue: with the names of these.
        backoff: the waits between tries.
    """

    def __init__(
        self, exporters: Sequence[Exporter], queue: Queue, *, backoff: Backoff = _BACKOFF
    ) -> None:
        self.queue = queue
        self._exporters = exporters
        self._dispatchers = [Dispatcher(exporter, queue, backoff) for exporter in exporters]

    @property
    def states(self) -> list[ExporterState]:
        """How each exporter is doing."""
        return [dispatcher.state for dispatcher in self._dispatchers]

    async def put(self, batch: PackedBatch, accepted: Callable[[], None] = lambda: None) -> None:
        """Hand a batch over to every exporter that takes its signal; see `Queue.put`."""
        await self.queue.put(batch, accepted)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Export until cancelled; then say what is left, and close the exporters.

        Has started once the queue was tried; see `Queue.run`.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.queue.run)
                task_status.started()
                for dispatcher in self._dispatchers:
                    nursery.start_soon(dispatcher.run)
        finally:
            self._say_left()
            with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                for exporter in self._exporters:
                    await exporter.aclose()

    async def drained(self) -> None:
        """Wait until everything is exported; failed exports are tried at once.

        The caller sets the time limit: ``with trio.move_on_after(seconds): await drained()``.
        """
        for dispatcher in self._dispatchers:
            dispatcher.hurry()
        self.queue.hurry()
        await self.queue.wait_empty()

    def _say_left(self) -> None:
        """Count what the end of the process takes along; what is on disk waits for the next."""
        for name, left in self.queue.left().items():
            for signal, records in left.items():
                if self.queue.durable:
                    _log.info("records_kept", exporter=name, signal=signal, records=records)
                else:
                    DROPPED.labels(name, signal, "shutdown").inc(records)
                    _log.error("records_left", exporter=name, signal=signal, records=records)
