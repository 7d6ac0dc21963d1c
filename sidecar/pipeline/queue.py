"""The bounded queues between the receivers and the exporters: one for each exporter, in memory.

A batch is at the head of its queue until its export is settled, so a cancelled export loses
nothing. What is not in a queue was not acknowledged to its sender.
"""

from collections import deque

import trio

from sidecar.metrics import DROPPED, QUEUE_BYTES, QUEUE_RECORDS
from sidecar.pipeline.batch import SIGNALS, Batch, Signal

# What a batch costs beside its body: the Struct, the head of the bytes and the place in the deque.
BATCH_OVERHEAD = 200


class QueueFull(Exception):  # noqa: N818 (named as in asyncio and queue)
    """There is no room; nothing was put anywhere.

    Args:
        retry_after_seconds: when the sender may try again.
    """

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"queue full, try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class Queue:
    """The batches that wait for one exporter, in the order in which they came.

    Args:
        name: of the exporter.
        signals: that the exporter takes.
        max_bytes: the bound on bodies and overhead together. An empty queue takes any batch, or
            one larger than the bound would be sent in vain for ever.
    """

    def __init__(self, name: str, signals: frozenset[Signal], max_bytes: int) -> None:
        self.name = name
        self.signals = signals
        self._max_bytes = max_bytes
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._filled = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self._bytes_gauge = QUEUE_BYTES.labels(name)
        self._records_gauge = QUEUE_RECORDS.labels(name)
        self._bytes_gauge.set(0)
        self._records_gauge.set(0)

    def has_room(self, batch: Batch) -> bool:
        """Tell whether the batch can be put now."""
        return not self._batches or self._bytes + _cost(batch) <= self._max_bytes

    def put_nowait(self, batch: Batch) -> None:
        """Add a batch for which there is room."""
        self._batches.append(batch)
        self._account(_cost(batch), batch.records)
        self._filled.unpark_all()

    async def head(self, max_bytes: int, max_batches: int = 1024) -> list[Batch]:
        """Wait until a batch is there; return the batches in front, which stay in the queue.

        They are of one signal, at most ``max_batches``, and their bodies at most ``max_bytes``
        together unless the first alone is larger.
        """
        await trio.lowlevel.checkpoint()
        while not self._batches:
            await self._filled.park()
        first = self._batches[0]
        row: list[Batch] = []
        room = max_bytes
        for batch in self._batches:
            room -= len(batch.body)
            if row and (batch.signal != first.signal or room < 0 or len(row) == max_batches):
                break
            row.append(batch)
        return row

    async def remove(self, count: int) -> None:
        """Take the first batches out for good.

        No checkpoint: a cancellation here would leave behind what was exported already. It is
        async because a queue on disk has to wait for its commit.
        """
        for _ in range(count):
            batch = self._batches.popleft()
            self._account(-_cost(batch), -batch.records)
        if not self._batches:
            self._emptied.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until every export is settled."""
        await trio.lowlevel.checkpoint()
        while self._batches:
            await self._emptied.park()

    def left(self) -> dict[Signal, int]:
        """Return how many records wait, by signal; signals without any are left out."""
        left = dict.fromkeys(SIGNALS, 0)
        for batch in self._batches:
            left[batch.signal] += batch.records
        return {signal: records for signal, records in left.items() if records}

    def _account(self, size: int, records: int) -> None:
        self._bytes += size
        self._bytes_gauge.set(self._bytes)
        self._records_gauge.inc(records)


class Fanout:
    """Puts each batch into the queue of every exporter that takes its signal, or into none.

    Args:
        queues: one for each exporter.
        retry_after_seconds: what a sender is told when there is no room.
    """

    def __init__(self, queues: list[Queue], retry_after_seconds: int = 5) -> None:
        self._queues: dict[Signal, list[Queue]] = {
            signal: [queue for queue in queues if signal in queue.signals] for signal in SIGNALS
        }
        self._retry_after_seconds = retry_after_seconds

    async def put(self, batch: Batch) -> None:
        """Hand a batch over to the exporters.

        A signal that no exporter takes is dropped and counted: its sender can do nothing about
        that.

        Raises:
            QueueFull: a queue has no room; no queue has the batch.
        """
        # Before the first queue is touched: a cancelled put is in none.
        await trio.lowlevel.checkpoint()
        if not batch.records:
            return
        queues = self._queues[batch.signal]
        if not queues:
            DROPPED.labels(batch.signal, "no_exporter").inc(batch.records)
        if not all(queue.has_room(batch) for queue in queues):
            raise QueueFull(self._retry_after_seconds)
        for queue in queues:
            queue.put_nowait(batch)


def _cost(batch: Batch) -> int:
    return len(batch.body) + BATCH_OVERHEAD
