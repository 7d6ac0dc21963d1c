"""What every receiver does with what it has decoded: redact it, queue it, count it.

Only what comes back without an exception may be acknowledged.
"""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import msgspec
import structlog
import trio
from google.protobuf.message import Message

from sidecar import metrics
from sidecar.http.messages import HTTPError
from sidecar.pipeline.batch import Batch, PackedBatch, Signal, pack
from sidecar.pipeline.queue import QueueFull
from sidecar.receivers.otlp import OtlpSignal
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.reload import RulesInForce
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


QUEUE_FULL = "The queue is full; try again later."
STOPPING = "The sidecar is shutting down; try again."


def try_later(error: QueueFull | StoppingError) -> HTTPError:
    """Return the answer to an HTTP request that may succeed later."""
    headers = {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, QueueFull):
        return HTTPError(429, QUEUE_FULL, headers)
    return HTTPError(503, STOPPING, headers)


class Intake:
    """The way from the receivers to the queue.

    Args:
        rules: taken once for each OTLP request and each event, so that a change falls between.
        put: hands a batch to the exporters and calls its second argument in the moment in which
            the batch counts as waiting, or raises `QueueFull`.
        redactions: takes what was found.
        stopping: tells whether new requests are to be sent away.
    """

    def __init__(
        self,
        rules: RulesInForce,
        put: Callable[[PackedBatch, Callable[[], None]], Awaitable[None]],
        redactions: Redactions,
        stopping: Callable[[], bool],
    ) -> None:
        self._rules = rules
        self._put = put
        self._redactions = redactions
        self._stopping = stopping
        self._admitted = 0
        self._idle = trio.lowlevel.ParkingLot()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold the stop up while a request is being taken in; raises `StoppingError`."""
        if self._stopping():
            raise StoppingError
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._idle.unpark_all()

    async def idle(self) -> None:
        """Wait until no request is being taken in."""
        await trio.lowlevel.checkpoint()
        while self._admitted:
            await self._idle.park()

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

        def redact() -> tuple[PackedBatch, Outcome]:
            request = decode(otlp, body)
            outcome = redact_otlp(request, self._rules.redactor(otlp.signal))
            batch = Batch(otlp.signal, request.SerializeToString(), outcome.kept)
            return pack(batch), outcome

        batch, outcome = await work(len(body), redact)
        await self._put(batch, partial(self._count, otlp.signal, transport, outcome))
        return outcome.failed

    def redact_event(self, event: Event, outcome: Outcome) -> None:
        """Redact one event in place, and add what came of it; safe in a thread.

        Raises:
            NotRedactedError: it must not be taken.
            DropRecordError: a rule says that it is not passed on.
        """
        report = Report()
        redactor = self._rules.redactor("events")
        try:
            event.event = redactor.string(event.event, "event", report, {}) or ""
            event.timestamp = redactor.string(event.timestamp, "timestamp", report, {}) or ""
            event.payload = redact_json(event.payload, redactor, report)
        except DropRecordError:
            outcome.dropped += 1
            raise
        except TooDeepError:
            outcome.failed += 1
            raise NotRedactedError("The payload is nested deeper than 64 levels.") from None
        except Exception as error:
            # Fails closed. The error's text may hold a piece of the event.
            _log.error("record_not_redacted", signal="events", error=type(error).__name__)
            outcome.failed += 1
            raise NotRedactedError(
                "The event could not be redacted, so it was not taken."
            ) from None
        finally:
            outcome.report.merge(report)
        outcome.kept += 1
        outcome.changed += bool(report)

    async def events(self, events: list[Event], outcome: Outcome) -> None:
        """Queue redacted events, all or none, and count what came of them and of the others.

        Raises:
            QueueFull: nothing was queued, nor counted.
        """
        body = b"\n".join(map(msgspec.json.encode, events))

        def count() -> None:
            metrics.LOG_EVENTS.inc(outcome.kept + outcome.dropped)
            for event in events:
                _observe(event)
            self._count("events", "http", outcome)

        batch = Batch("events", body, len(events))
        await self._put(await work(len(body), partial(pack, batch)), count)

    def _count(self, signal: Signal, transport: Transport, outcome: Outcome) -> None:
        received = outcome.kept + outcome.failed + outcome.dropped
        metrics.RECEIVED.labels(signal, transport).inc(received)
        metrics.REDACTED.labels(signal).inc(outcome.changed)
        if outcome.failed:
            metrics.DROPPED.labels("", signal, "not_redacted").inc(outcome.failed)
        if outcome.dropped:
            metrics.DROPPED.labels("", signal, "rule").inc(outcome.dropped)
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
