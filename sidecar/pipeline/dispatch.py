"""Brings what waits in the queues to the exporters, one task for each exporter.

A batch that may be taken later is tried until it is: the bound of the queue is the pressure back
to the senders. A merged batch that is refused for good is halved until the refused part stands
alone, so that one bad record does not take others along.
"""

import random
import time
from collections.abc import Sequence

import msgspec
import structlog
import trio

from sidecar.metrics import DROPPED, EXPORT_RETRIES, EXPORT_SECONDS, EXPORTED
from sidecar.pipeline.batch import Batch, merge
from sidecar.pipeline.exporter import Exporter, Refused, Retryable
from sidecar.pipeline.queue import Fanout, Queue
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
    """Exports what waits in one queue through one exporter, for as long as `run` runs.

    Args:
        exporter: is used by this dispatcher alone.
        queue: is emptied by this dispatcher alone.
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
            await self._deliver(await self._queue.head(self._exporter.merge_bytes))

    def hurry(self) -> None:
        """End a wait between tries now, and keep further ones short: the process is stopping."""
        self._hurrying = True
        self._attempt = 0
        self._waiting.unpark_all()

    async def _deliver(self, batches: list[Batch]) -> None:
        dropped, reason = 0, ""
        # A stack with the first group on top: batches leave the queue in their order.
        groups = [batches]
        try:
            while groups:
                group = groups.pop()
                batch = merge(group)
                try:
                    await self._send(batch)
                except Refused as refusal:
                    if refusal.divisible and len(group) > 1:
                        middle = len(group) // 2
                        groups += [group[middle:], group[:middle]]
                        continue
                    dropped, reason = dropped + batch.records, refusal.reason
                    self._failed(reason)
                    DROPPED.labels(batch.signal, "rejected").inc(batch.records)
                await self._queue.remove(len(group))
        finally:
            # One line for all: a target that refuses everything must not flood the log.
            if dropped:
                _log.error(
                    "records_rejected",
                    exporter=self._exporter.name,
                    signal=batches[0].signal,
                    records=dropped,
                    error=reason,
                )

    async def _send(self, batch: Batch) -> None:
        """Export until the target has taken the batch; raises `Refused`."""
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
                self._succeeded(batch, left_out)
                return

    async def _export(self, batch: Batch) -> int:
        with EXPORT_SECONDS.labels(self._exporter.name).time():
            try:
                return await self._exporter.export(batch)
            except (Retryable, Refused):
                raise
            except Exception as error:
                # One batch that an exporter cannot cope with must not stop the process. Its
                # message is left out because it may quote the records.
                raise Refused(f"fault {type(error).__name__}") from None

    def _succeeded(self, batch: Batch, left_out: int) -> None:
        name = self._exporter.name
        EXPORTED.labels(name, batch.signal).inc(batch.records - left_out)
        if left_out:
            DROPPED.labels(batch.signal, "partial_success").inc(left_out)
            _log.warning("partial_success", exporter=name, signal=batch.signal, records=left_out)
        self.state = ExporterState(name)

    def _failed(self, reason: str) -> None:
        since = self.state.failing_since or time.time()
        self.state = ExporterState(self._exporter.name, since, reason)


class Pipeline:
    """The queues, the exporters behind them and the tasks between.

    Args:
        exporters: with different names; closed when `run` ends.
        queue_bytes: the bound of each exporter's queue.
        backoff: the waits between tries.
    """

    def __init__(
        self, exporters: Sequence[Exporter], *, queue_bytes: int, backoff: Backoff = _BACKOFF
    ) -> None:
        self._exporters = exporters
        self._queues = [Queue(e.name, e.signals, queue_bytes) for e in exporters]
        self._dispatchers = [
            Dispatcher(exporter, queue, backoff)
            for exporter, queue in zip(exporters, self._queues, strict=True)
        ]
        self._fanout = Fanout(self._queues)

    @property
    def states(self) -> list[ExporterState]:
        """How each exporter is doing."""
        return [dispatcher.state for dispatcher in self._dispatchers]

    async def put(self, batch: Batch) -> None:
        """Hand a batch over to every exporter that takes its signal, or raise `QueueFull`."""
        await self._fanout.put(batch)

    async def run(self) -> None:
        """Export until cancelled; then count and log what is left, and close the exporters."""
        try:
            async with trio.open_nursery() as nursery:
                for dispatcher in self._dispatchers:
                    nursery.start_soon(dispatcher.run)
        finally:
            self._count_left()
            with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                for exporter in self._exporters:
                    await exporter.aclose()

    async def drained(self) -> None:
        """Wait until everything is exported; failed exports are tried at once.

        The caller sets the time limit: ``with trio.move_on_after(seconds): await drained()``.
        """
        for dispatcher in self._dispatchers:
            dispatcher.hurry()
        for queue in self._queues:
            await queue.wait_empty()

    def _count_left(self) -> None:
        for queue in self._queues:
            for signal, records in queue.left().items():
                DROPPED.labels(signal, "shutdown").inc(records)
                _log.error("records_left", exporter=queue.name, signal=signal, records=records)
