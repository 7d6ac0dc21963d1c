"""OTLP messages from bytes, in both encodings (OTLP 1.x, https://opentelemetry.io/docs/specs/otlp/)."""

import re
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from sidecar.pipeline.batch import Signal

NOT_REDACTED = "Some records could not be redacted, so they were dropped."


class OtlpSignal(msgspec.Struct, frozen=True):
    """One OTLP signal: its messages, and its name in paths of both transports."""

    signal: Signal
    request: type[Message]
    response: type[Message]
    rejected: str
    http_path: str
    grpc_path: str


OTLP_SIGNALS = (
    OtlpSignal(
        "traces",
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
        "rejected_spans",
        "/v1/traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ),
    OtlpSignal(
        "metrics",
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
        "rejected_data_points",
        "/v1/metrics",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    ),
    OtlpSignal(
        "logs",
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
        "rejected_log_records",
        "/v1/logs",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ),
)


class MalformedError(Exception):
    """The bytes are not of the encoding at all; the message is for their sender."""

    @classmethod
    def of_protobuf(cls, otlp: OtlpSignal) -> "MalformedError":
        """Return this for a body in protobuf."""
        return cls(f"The body is not a protobuf {otlp.request.DESCRIPTOR.name}.")


class WrongShapeError(Exception):
    """The document is valid, but not an OTLP request; the message names the field."""


def protobuf_as_it_is(otlp: OtlpSignal, body: bytes) -> bytes:
    """Return an export request in protobuf."""
    return body


def json_to_protobuf(otlp: OtlpSignal, body: bytes) -> bytes:
    """Decode an export request in OTLP/JSON; unknown fields are ignored, as the OTLP says.

    Raises:
        MalformedError: not JSON.
        WrongShapeError: JSON of another shape.
    """
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise MalformedError("The JSON is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise MalformedError("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise WrongShapeError("The body must be a JSON object.")
    message = otlp.request()
    try:
        _ids_to_base64(document)
        json_format.ParseDict(document, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise WrongShapeError(_without_values(str(error))) from None
    except WrongShapeError:
        raise
    except Exception:
        # The library lets other errors through for shapes it does not expect.
        raise WrongShapeError(f"This is no {otlp.request.DESCRIPTOR.name}.") from None
    return message.SerializeToString()


def response(otlp: OtlpSignal, failed: int) -> Message:
    """Return the response to a request of which ``failed`` records were dropped."""
    message = otlp.response()
    if failed:
        partial: Any = message.partial_success  # type: ignore[attr-defined]
        setattr(partial, otlp.rejected, failed)
        partial.error_message = NOT_REDACTED
    return message


# OTLP/JSON writes these as hexadecimal, where protobuf's own JSON has base64
# (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def _ids_to_base64(value: Any) -> None:
    # By name alone: attribute names are values of `key` in OTLP/JSON, never keys of an object.
    if isinstance(value, list):
        for item in value:
            _ids_to_base64(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _IDS and isinstance(item, str):
                value[name] = _id_to_base64(name, item)
            elif isinstance(item, dict | list):
                _ids_to_base64(item)


def _id_to_base64(name: str, text: str) -> str:
    try:
        # msgspec writes bytes as base64.
        return str(msgspec.to_builtins(bytes.fromhex(text)))
    except ValueError:
        raise WrongShapeError(f"{name} is not hexadecimal.") from None


_FAILED_FIELD = re.compile(r"Failed to parse (\w+) field: ")


def _without_values(message: str) -> str:
    """Return json_format's message as a path of fields; the rest of it quotes the payload."""
    place, names = 0, []
    while match := _FAILED_FIELD.match(message, place):
        names.append(match[1])
        place = match.end()
    return f"{'.'.join(names) or 'The document'}: the value is of the wrong type or out of range."
