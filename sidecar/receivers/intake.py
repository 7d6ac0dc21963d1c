"""What every receiver does with what it has decoded: redact it, queue it, count it.

Only what comes back without an exception may be acknowledged.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import structlog
from google.protobuf.message import Message

from sidecar import metrics
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.queue import QueueFull
from sidecar.receivers.otlp import OtlpSignal
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Redactions, Report
from sidecar.redaction.walk_json import TooDeepError, redact_json
from sidecar.redaction.walk_otlp import Outcome, redact_otlp
from sidecar.work import work

_log = structlog.get_logger(__name__)

Transport = Literal["http", "grpc"]

Decoder = Callable[[OtlpSignal, bytes], Message]


class Event(msgspec.Struct):
    """One event as it is passed on: redacted, one line of JSON."""

    event_id: str
    event: str
    timestamp: str
    payload: dict[str, Any]


class NotRedactedError(Exception):
    """The event could not be redacted, so it was not taken; the message is for its sender."""


class StoppingError(Exception):
    """The process is on its way out and takes nothing new."""

    retry_after_seconds = 1


class Intake:
    """The way from the receivers to the queue.

    Args:
        engine: the rules in force.
        put: hands a batch to the exporters, or raises `QueueFull`.
        redactions: takes what was found.
        stopping: tells whether new requests are to be sent away.
    """

    def __init__(
        self,
        engine: Engine,
        put: Callable[[Batch], Awaitable[None]],
        redactions: Redactions,
        stopping: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._put = put
        self._redactions = redactions
        self._stopping = stopping

    def check_open(self) -> None:
        """Raise `StoppingError` when a new request is to be sent away."""
        if self._stopping():
            raise StoppingError

    async def otlp(
        self, otlp: OtlpSignal, body: bytes, decode: Decoder, transport: Transport
    ) -> int:
        """Decode, redact and queue one OTLP request.

        Returns:
            How many records were taken out because they could not be redacted.

        Raises:
            MalformedError, WrongShapeError: as ``decode`` does.
            QueueFull: nothing was queued.
        """

        def redact() -> tuple[Batch, Outcome]:
            request = decode(otlp, body)
            outcome = redact_otlp(request, self._engine.redactor(otlp.signal))
            return Batch(otlp.signal, request.SerializeToString(), outcome.kept), outcome

        batch, outcome = await work(len(body), redact)
        await self._queue(batch)
        self._count(otlp.signal, transport, outcome)
        return outcome.failed

    def redact_event(self, event: Event) -> Report:
        """Redact one event in place; safe in a thread.

        Raises:
            NotRedactedError: it must not be taken.
            DropRecordError: a rule says that it is not passed on.
        """
        report = Report()
        redactor = self._engine.redactor("events")
        try:
            event.event = redactor.string(event.event, "event", report, {}) or ""
            event.timestamp = redactor.string(event.timestamp, "timestamp", report, {}) or ""
            event.payload = redact_json(event.payload, redactor, report)
        except DropRecordError:
            metrics.DROPPED.labels("events", "rule").inc()
            raise
        except TooDeepError:
            metrics.DROPPED.labels("events", "not_redacted").inc()
            raise NotRedactedError("The payload is nested deeper than 64 levels.") from None
        except Exception as error:
            # Fails closed. The error's text may hold a piece of the event.
            _log.error("record_not_redacted", signal="events", error=type(error).__name__)
            metrics.DROPPED.labels("events", "not_redacted").inc()
            raise NotRedactedError(
                "The event could not be redacted, so it was not taken."
            ) from None
        return report

    async def events(self, events: list[Event], reports: list[Report]) -> None:
        """Queue redacted events, all or none.

        Raises:
            QueueFull: nothing was queued.
        """
        await self._queue(
            Batch("events", b"\n".join(map(msgspec.json.encode, events)), len(events))
        )
        metrics.RECEIVED.labels("events", "http").inc(len(events))
        metrics.LOG_EVENTS.inc(len(events))
        for event in events:
            _observe(event)
        for report in filter(None, reports):
            metrics.REDACTED.labels("events").inc()
            self._redactions.add("events", report)

    async def _queue(self, batch: Batch) -> None:
        try:
            await self._put(batch)
        except QueueFull:
            metrics.REFUSED_REQUESTS.labels(batch.signal, "queue_full").inc()
            raise

    def _count(self, signal: Signal, transport: Transport, outcome: Outcome) -> None:
        received = outcome.kept + outcome.failed + outcome.dropped
        metrics.RECEIVED.labels(signal, transport).inc(received)
        metrics.REDACTED.labels(signal).inc(outcome.changed)
        if outcome.failed:
            metrics.DROPPED.labels(signal, "not_redacted").inc(outcome.failed)
        if outcome.dropped:
            metrics.DROPPED.labels(signal, "rule").inc(outcome.dropped)
        self._redactions.add(signal, outcome.report)


def _observe(event: Event) -> None:
    """Feed the metrics that existing dashboards show from events."""
    if event.event == "content_repair":
        metrics.REPAIRS.inc()
    elif event.event == "policy_drift":
        metrics.DRIFT_INCIDENTS.inc()
    latency = _measurement(event.payload.get("latency_ms"))
    if latency is not None:
        metrics.TTFB.observe(latency / 1000)
    speed = _measurement(event.payload.get("tokens_per_second"))
    if speed is not None:
        metrics.TOKENS_PER_SECOND.set(speed)


def _measurement(value: Any) -> float | None:
    if type(value) not in {int, float} or not 0 <= value < math.inf:
        return None
    try:
        return float(value)
    except OverflowError:
        return None
