"""What moves between the receivers and the exporters: redacted records, already encoded."""

from typing import Literal

import msgspec

Signal = Literal["traces", "metrics", "logs", "events"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs", "events")


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
