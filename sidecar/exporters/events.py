"""Events of ``POST /log`` as other formats need them.

An event is one line of JSON: ``{"event_id": "<uuid>", "event": str, "timestamp": "<ISO 8601>",
"payload": {…}}``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from sidecar import __version__
from sidecar.pipeline.exporter import Refused

SERVICE_NAME = "telemetry-cache-sidecar"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_UNIX_NANO = 2**63 - 1
# Each JSON level is up to three protobuf levels, of which decoders allow 100 as a rule.
_MAX_DEPTH = 24


class EncodedEvent(msgspec.Struct):
    """One event, its payload still encoded."""

    event_id: str
    event: str
    payload: msgspec.Raw
    timestamp: str = ""


_decoder = msgspec.json.Decoder(EncodedEvent)
_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode(body: bytes) -> list[EncodedEvent]:
    """Return the events of a batch's body; raises `Refused` when they are none."""
    try:
        return _decoder.decode_lines(body)
    except _MALFORMED:
        raise Refused("malformed event") from None


def unix_nano(timestamp: str) -> int | None:
    """Return an RFC 3339 timestamp (UTC unless it says otherwise) as Unix nanoseconds.

    None for what is no such timestamp, or does not fit (before 1970, after 2262).
    """
    try:
        moment = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return None
    try:
        since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
    except OverflowError:
        return None
    nanoseconds = since // _MICROSECOND * 1000
    return nanoseconds if 0 <= nanoseconds <= _MAX_UNIX_NANO else None


def to_otlp(body: bytes, now: int) -> bytes:
    """Return events as an ``ExportLogsServiceRequest``.

    Each is a log record with an event name, the payload as its body
    (https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-eventname) and its id as
    ``log.record.uid``, by which receivers may remove what was sent twice
    (https://opentelemetry.io/docs/specs/semconv/registry/attributes/log/).

    Args:
        body: of a batch of events.
        now: the observed time, Unix nanoseconds.

    Raises:
        Refused: the body holds no events.
    """
    try:
        records = [_log_record(event, now) for event in decode(body)]
    except _MALFORMED:
        raise Refused("malformed event") from None
    resource = Resource(
        attributes=[
            KeyValue(key="service.name", value=AnyValue(string_value=SERVICE_NAME)),
            KeyValue(key="service.version", value=AnyValue(string_value=__version__)),
        ]
    )
    scope = InstrumentationScope(name=SERVICE_NAME, version=__version__)
    logs = ResourceLogs(resource=resource, scope_logs=[ScopeLogs(scope=scope, log_records=records)])
    return ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()


def _log_record(event: EncodedEvent, now: int) -> LogRecord:
    return LogRecord(
        time_unix_nano=unix_nano(event.timestamp) or 0,
        observed_time_unix_nano=now,
        event_name=event.event,
        body=_any_value(msgspec.json.decode(event.payload), 0),
        attributes=[
            KeyValue(key="log.record.uid", value=AnyValue(string_value=event.event_id)),
        ],
    )


def _any_value(value: Any, depth: int) -> AnyValue:
    """Return a JSON value; what lies too deep, or is no 64-bit number, stays as its JSON text."""
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, int) or depth >= _MAX_DEPTH:
        return AnyValue(string_value=msgspec.json.encode(value).decode())
    if isinstance(value, list):
        items = [_any_value(item, depth + 1) for item in value]
        return AnyValue(array_value=ArrayValue(values=items))
    pairs = [KeyValue(key=key, value=_any_value(item, depth + 1)) for key, item in value.items()]
    return AnyValue(kvlist_value=KeyValueList(values=pairs))
