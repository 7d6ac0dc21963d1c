"""Writes one JSON line for each record to standard output, for people and for jq."""

import errno
import os
import select
import time

import trio

from sidecar.exporters.jsonlines import lines
from sidecar.pipeline.batch import SIGNALS, Batch, Signal
from sidecar.pipeline.exporter import Retryable

STALLED_SECONDS = 10.0

# POSIX: a pipe that select or poll calls writable takes this much without blocking (PIPE_BUF).
_PIECE = select.PIPE_BUF
_POLL_MILLISECONDS = 50


class StdoutExporter:
    """Writes to a file descriptor that it does not own; nothing else should write lines to it.

    A failed write is `Retryable`, a closed pipe too: nobody can reopen it, but the health report
    names it, senders are told to wait once the queue is full, and cache and proxy go on. A batch
    that failed half-way is written again from its start, on a new line.

    Args:
        fd: the file descriptor.
        stalled_seconds: how long a reader may take nothing before the export counts as failed.
    """

    name = "stdout"
    signals: frozenset[Signal] = frozenset(SIGNALS)
    merge_bytes = 512 * 1024

    def __init__(self, fd: int = 1, *, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._fd = fd
        self._stalled_seconds = stalled_seconds
        self._torn = False

    async def export(self, batch: Batch) -> int:
        """Write the batch; nothing is left out."""
        # In a thread: making the lines takes the processor, and writing may block whatever kind
        # of file this is. O_NONBLOCK would change the file for every process that shares it.
        await trio.to_thread.run_sync(self._write_lines, batch)
        return 0

    async def aclose(self) -> None:
        """Do nothing: the descriptor belongs to the process."""

    def _write_lines(self, batch: Batch) -> None:
        data = lines(batch)
        torn, self._torn = self._torn, True
        try:
            _write(self._fd, b"\n" + data if torn else data, self._stalled_seconds)
        except OSError as error:
            raise Retryable(errno.errorcode.get(error.errno or 0, "OSError")) from None
        self._torn = False


def _write(fd: int, data: bytes, stalled_seconds: float) -> None:
    """Write all of it, never blocking for longer than a moment; for a Trio worker thread.

    Raises:
        OSError: as of ``os.write``, or `TimeoutError` when nothing was taken for too long.
        trio.Cancelled: the export was cancelled.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    rest = memoryview(data)
    deadline = time.monotonic() + stalled_seconds
    while rest:
        trio.from_thread.check_cancelled()
        written = 0
        # Errors of the descriptor are reported as readiness: os.write then raises them.
        if poll.poll(_POLL_MILLISECONDS):
            try:
                written = os.write(fd, rest[:_PIECE])
            except BlockingIOError:
                # Someone else made the file non-blocking, and someone else filled it.
                time.sleep(_POLL_MILLISECONDS / 1000)
        if written:
            rest = rest[written:]
            deadline = time.monotonic() + stalled_seconds
        elif time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "nobody reads")
