"""What moves between the receivers and the exporters: redacted records, already encoded."""

from typing import Literal

import msgspec
import zstandard

Signal = Literal["traces", "metrics", "logs", "events"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs", "events")

# Telemetry repeats itself so much that more effort saves little: level 1 takes twice the time for
# a tenth less.
_ZSTD_LEVEL = -3
# RFC 8878 section 3.1.1.
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Batch(msgspec.Struct, frozen=True):
    """Redacted records of one signal.

    Attributes:
        signal: what they are.
        body: for traces, metrics and logs a protobuf ``Export*ServiceRequest``; for events one
            JSON object a line (`sidecar.receivers.intake.Event`), lines joined by ``\\n``.
            Both forms can be joined: two bodies of one signal in a row are one body.
        records: how many spans, log records, datapoints or events the body holds.
    """

    signal: Signal
    body: bytes
    records: int


class PackedBatch(msgspec.Struct, frozen=True):
    """A batch as it waits.

    Attributes:
        signal, records: as of `Batch`.
        size: of the body, in bytes.
        body: compressed with zstd (RFC 8878), or as it is.
    """

    signal: Signal
    records: int
    size: int
    body: bytes

    def unpack(self, *, damageable: bool = True) -> Batch:
        """Return the batch.

        Args:
            damageable: whether it comes from a disk, where all are compressed.

        Raises:
            zstandard.ZstdError: the body is damaged.
        """
        body = self.body
        if damageable or body.startswith(_ZSTD_MAGIC):
            body = zstandard.decompress(body, max_output_size=self.size)
        return Batch(self.signal, body, self.records)


def pack(batch: Batch, *, compress: bool = True) -> PackedBatch:
    """Return a batch as it waits.

    Args:
        batch: what is to wait.
        compress: whether it is worth the time. On a disk it always is: the checksum that comes
            with it keeps a body that was damaged there from being sent on.
    """
    if not compress and not batch.body.startswith(_ZSTD_MAGIC):
        return PackedBatch(batch.signal, batch.records, len(batch.body), batch.body)
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
    return PackedBatch(
        batch.signal, batch.records, len(batch.body), compressor.compress(batch.body)
    )


def merge(batches: list[Batch]) -> Batch:
    """Return one batch that holds the records of all (one signal, at least one batch).

    Protobuf messages are merged by joining their bytes, since every field at their top is
    repeated (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    """
    if len(batches) == 1:
        return batches[0]
    joint = b"\n" if batches[0].signal == "events" else b""
    return Batch(
        batches[0].signal,
        joint.join(batch.body for batch in batches),
        sum(batch.records for batch in batches),
    )
