"""What every receiver does with what it has decoded: redact it, queue it, count it.

Only what comes back without an exception may be acknowledged.
"""

import math
from array import array
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import msgspec
import structlog
import trio
from google.protobuf.message import DecodeError

from sidecar import metrics
from sidecar.http.messages import HTTPError, overloaded
from sidecar.pipeline.batch import Batch, PackedBatch, Signal
from sidecar.pipeline.queue import QueueFull
from sidecar.pressure import Held, Overloaded, Pressure
from sidecar.receivers.otlp import MalformedError, OtlpSignal, protobuf_as_it_is
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Redactions, Report
from sidecar.redaction.walk_json import TooDeepError, redact_json
from sidecar.redaction.walk_otlp import Outcome, redact_encoded
from sidecar.work import work, work_in_turns

_log = structlog.get_logger(__name__)

Transport = Literal["http", "grpc"]

# What is done by then needs no thread, which costs a tenth of that.
_AT_ONCE_SECONDS = 0.002

# The body of an export request → the same as protobuf.
ToProtobuf = Callable[[OtlpSignal, bytes], bytes]


class Event(msgspec.Struct):
    """One event as it is passed on: redacted, one line of JSON."""

    event_id: str
    event: str
    timestamp: str
    payload: dict[str, Any]


class EventLines:
    """Redacted events as they are queued, and what dashboards show from them.

    Attributes:
        body: one JSON object a line, lines joined by ``\\n``.
        count: of the lines.
    """

    def __init__(self) -> None:
        self.body = bytearray()
        self.count = 0
        self._repairs = 0
        self._drift_incidents = 0
        self._ttfb = array("d")
        self._speed: float | None = None

    def add(self, event: Event) -> None:
        """Add an event at the end."""
        if self.count:
            self.body += b"\n"
        self.body += msgspec.json.encode(event)
        self.count += 1
        self._repairs += event.event == "content_repair"
        self._drift_incidents += event.event == "policy_drift"
        latency = _measurement(event.payload.get("latency_ms"))
        if latency is not None:
            self._ttfb.append(latency / 1000)
        speed = _measurement(event.payload.get("tokens_per_second"))
        if speed is not None:
            self._speed = speed

    def observe(self) -> None:
        """Feed the metrics that existing dashboards show from events."""
        metrics.REPAIRS.inc(self._repairs)
        metrics.DRIFT_INCIDENTS.inc(self._drift_incidents)
        for seconds in self._ttfb:
            metrics.TTFB.observe(seconds)
        if self._speed is not None:
            metrics.TOKENS_PER_SECOND.set(self._speed)


class NotRedactedError(Exception):
    """The event could not be redacted, so it was not taken; the message is for its sender."""


class StoppingError(Exception):
    """The process is on its way out and takes nothing new."""

    retry_after_seconds = 1


QUEUE_FULL = "The queue is full; try again later."
STOPPING = "The sidecar is shutting down; try again."


# What `Intake` raises when the same request may succeed later.
TRY_LATER = (QueueFull, StoppingError, Overloaded)


def try_later(error: QueueFull | StoppingError | Overloaded) -> HTTPError:
    """Return the answer to an HTTP request that may succeed later."""
    if isinstance(error, Overloaded):
        return overloaded(error)
    headers = {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, QueueFull):
        return HTTPError(429, QUEUE_FULL, headers)
    return HTTPError(503, STOPPING, headers)


def _reason(error: QueueFull | StoppingError | Overloaded) -> str:
    if isinstance(error, Overloaded):
        return error.reason
    return "queue_full" if isinstance(error, QueueFull) else "stopping"


class Intake:
    """The way from the receivers to the queue.

    Args:
        rules: taken once for each OTLP request and each event, so that a change falls between.
        pack: makes a batch ready to wait; safe in a thread.
        put: hands a batch to the exporters and calls its second argument in the moment in which
            the batch counts as waiting, or raises `QueueFull`.
        redactions: takes what was found.
        pressure: bounds what is taken in at a time.
        stopping: tells whether new requests are to be sent away.
    """

    def __init__(
        self,
        rules: RulesInForce,
        pack: Callable[[Batch], PackedBatch],
        put: Callable[[PackedBatch, Callable[[], None]], Awaitable[None]],
        redactions: Redactions,
        pressure: Pressure,
        stopping: Callable[[], bool],
    ) -> None:
        self._rules = rules
        self._pack = pack
        self._put = put
        self._redactions = redactions
        self._pressure = pressure
        self._stopping = stopping
        self._admitted = 0
        self._idle = trio.lowlevel.ParkingLot()

    @contextmanager
    def admitted(self, held: Held) -> Iterator[None]:
        """Take a request in, which holds the stop up; count it if it is to come back.

        Args:
            held: what the request's body takes; the limit of memory counts for it from here on.

        Raises:
            StoppingError: the process is on its way out.
            Overloaded: there is no room.
        """
        try:
            if self._stopping():
                raise StoppingError
            with self._pressure.intake(held), self._holding_up():
                yield
        except TRY_LATER as error:
            metrics.REFUSED.labels(_reason(error)).inc()
            raise

    @contextmanager
    def _holding_up(self) -> Iterator[None]:
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
        self,
        otlp: OtlpSignal,
        body: bytes,
        to_protobuf: ToProtobuf,
        transport: Transport,
        held: Held,
    ) -> int:
        """Decode, redact and queue one OTLP request.

        Returns:
            How many records were taken out because they could not be redacted.

        Raises:
            MalformedError: the body is no such request.
            WrongShapeError: as ``to_protobuf`` does.
            Overloaded: there is no room for what is to be written.
            QueueFull: nothing was queued.
        """

        def redact() -> Generator[None, None, tuple[PackedBatch, Outcome]]:
            redactor = self._rules.redactor(otlp.signal)
            encoded = to_protobuf(otlp, body)
            try:
                redacted, outcome = yield from redact_encoded(otlp.request, encoded, redactor)
            except DecodeError:
                raise MalformedError.of_protobuf(otlp) from None
            yield
            return self._pack(Batch(otlp.signal, redacted, outcome.kept)), outcome

        held.promise(len(body))
        # JSON is decoded in one step.
        at_once = _AT_ONCE_SECONDS if to_protobuf is protobuf_as_it_is else 0.0
        batch, outcome = await work_in_turns(len(body), redact(), at_once=at_once)
        await self._put(batch, partial(self._count, otlp.signal, transport, outcome))
        return outcome.failed

    def redact_event(self, event: Event, outcome: Outcome) -> None:
        """Redact one event in place, and add what came of it; safe in a thread.

        One without a timestamp gets that of now.

        Raises:
            NotRedactedError: it must not be taken.
            DropRecordError: a rule says that it is not passed on.
        """
        report = Report()
        redactor = self._rules.redactor("events")
        try:
            event.event = redactor.string(event.event, "event", report, {}) or ""
            event.timestamp = redactor.string(event.timestamp, "timestamp", report, {}) or _now()
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

    async def events(self, events: EventLines, outcome: Outcome) -> None:
        """Queue redacted events, all or none, and count what came of them and of the others.

        Raises:
            QueueFull: nothing was queued, nor counted.
        """

        def count() -> None:
            metrics.LOG_EVENTS.inc(outcome.kept + outcome.dropped)
            events.observe()
            self._count("events", "http", outcome)

        batch = Batch("events", bytes(events.body), events.count)
        await self._put(await work(len(batch.body), partial(self._pack, batch)), count)

    def _count(self, signal: Signal, transport: Transport, outcome: Outcome) -> None:
        received = outcome.kept + outcome.failed + outcome.dropped
        metrics.RECEIVED.labels(signal, transport).inc(received)
        metrics.REDACTED.labels(signal).inc(outcome.changed)
        if outcome.failed:
            metrics.DROPPED.labels("", signal, "not_redacted").inc(outcome.failed)
        if outcome.dropped:
            metrics.DROPPED.labels("", signal, "rule").inc(outcome.dropped)
        self._redactions.add(signal, outcome.report)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _measurement(value: Any) -> float | None:
    if type(value) not in {int, float} or not 0 <= value < math.inf:
        return None
    try:
        return float(value)
    except OverflowError:
        return None
