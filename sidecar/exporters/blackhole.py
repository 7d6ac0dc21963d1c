"""Takes everything and keeps nothing, for load tests of what stands before the exporters."""

import trio

from sidecar.pipeline.batch import SIGNALS, Batch, Signal


class BlackholeExporter:
    """Forgets every batch."""

    name = "blackhole"
    signals: frozenset[Signal] = frozenset(SIGNALS)
    merge_bytes = 4 * 2**20

    async def export(self, batch: Batch) -> int:
        """Forget the batch; nothing is left out."""
        await trio.lowlevel.checkpoint()
        return 0

    async def aclose(self) -> None:
        """Do nothing: there is no connection."""
