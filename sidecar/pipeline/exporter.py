"""What an exporter is, and the two ways in which an export fails."""

from typing import Protocol

from sidecar.pipeline.batch import Batch, Signal


class Retryable(Exception):  # noqa: N818 (the name says what to do, as the specification does)
    """The target did not take the batch but may take it later.

    Args:
        reason: of a small fixed vocabulary, such as ``status 503`` or ``timeout``; it goes into
            the log and the health report, so nothing of the records may stand in it.
        retry_after: seconds that the target asked to be left alone, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Refused(Exception):  # noqa: N818 (as above)
    """The target will never take the batch as it is.

    Args:
        reason: as of `Retryable`.
        divisible: False when the refusal does not depend on what the batch holds, so that its
            parts need not be tried alone.
    """

    def __init__(self, reason: str, *, divisible: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.divisible = divisible


class Exporter(Protocol):
    """Brings batches to one target. Needs no care after a cancelled `export`."""

    @property
    def name(self) -> str:
        """The name in metrics, in the log and in the health report."""

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that it takes."""

    @property
    def merge_bytes(self) -> int:
        """The size up to which waiting batches are merged into one export."""

    async def export(self, batch: Batch) -> int:
        """Bring one batch to the target; return how many of its records were left out there.

        Raises:
            Retryable: it may be taken later.
            Refused: it never will.
        """

    async def aclose(self) -> None:
        """Close connections."""
