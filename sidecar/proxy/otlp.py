"""Redacts OTLP/HTTP on its way to another backend (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Record by record, as what the receivers take in: a record that cannot be redacted is left out, and
so is what this version of OTLP does not know.
"""

from collections.abc import Generator
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from sidecar.proxy.unchecked import UncheckedError
from sidecar.receivers.otlp import (
    OTLP_SIGNALS,
    MalformedError,
    OtlpSignal,
    WrongShapeError,
    json_to_protobuf,
)
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_otlp import Outcome, redact_encoded

# OTLP/JSON writes these as hexadecimal, where protobuf's own JSON has base64.
_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
# The first byte of an answer that says something: its field 1, a message. In a `Status` that is
# a number.
_PARTIAL_SUCCESS = b"\x0a"


def otlp_signal(path: str) -> OtlpSignal | None:
    """Return the signal that is sent to a path, such as ``/api/public/otel/v1/traces``."""
    return next((otlp for otlp in OTLP_SIGNALS if path.rstrip("/").endswith(otlp.http_path)), None)


def redact_protobuf(
    otlp: OtlpSignal, body: bytes, redactor: Redactor, outcome: Outcome
) -> Generator[None, None, bytes]:
    """Redact an export request in protobuf; raises `UncheckedError` when it is none."""
    try:
        written, found = yield from redact_encoded(otlp.request, body, redactor)
    except DecodeError:
        raise UncheckedError(str(MalformedError.of_protobuf(otlp))) from None
    outcome.kept += found.kept
    outcome.changed += found.changed
    outcome.failed += found.failed
    outcome.dropped += found.dropped
    outcome.report.merge(found.report)
    return body if written == body else written


def redact_json_request(
    otlp: OtlpSignal, body: bytes, redactor: Redactor, outcome: Outcome
) -> Generator[None, None, bytes]:
    """Redact an export request in OTLP/JSON; raises `UncheckedError` when it is none."""
    try:
        encoded = json_to_protobuf(otlp, body)
    except (MalformedError, WrongShapeError) as error:
        raise UncheckedError(str(error)) from None
    yield
    written = yield from redact_protobuf(otlp, encoded, redactor, outcome)
    document = json_format.MessageToDict(
        otlp.request.FromString(written), use_integers_for_enums=True
    )
    yield
    _ids_to_hexadecimal(document)
    return msgspec.json.encode(document)


def redact_answer(otlp: OtlpSignal, body: bytes, redactor: Redactor, report: Report) -> bytes:
    """Redact what a backend answers in protobuf: an export response or a ``google.rpc.Status``.

    Raises:
        UncheckedError: it is neither.
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    try:
        if body.startswith(_PARTIAL_SUCCESS):
            answer: Message = otlp.response.FromString(body)
            holder: Any = answer.partial_success  # type: ignore[attr-defined]
            field = "error_message"
        else:
            answer = holder = Status.FromString(body)
            holder.ClearField("details")  # messages of any kind, which nobody here can look into
            field = "message"
    except DecodeError:
        raise UncheckedError("This is no answer of OTLP.") from None
    answer.DiscardUnknownFields()
    text = getattr(holder, field)
    changed = redactor.string(text, field, report, {}) or ""
    if changed is not text:
        setattr(holder, field, changed)
    written = answer.SerializeToString()
    return body if written == body else written


def _ids_to_hexadecimal(value: Any) -> None:
    # By name alone: attribute names are values of `key` in OTLP/JSON, never keys of an object.
    for item in value if isinstance(value, list) else ():
        _ids_to_hexadecimal(item)
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in _IDS:
            value[name] = msgspec.convert(item, bytes).hex()
        elif isinstance(item, dict | list):
            _ids_to_hexadecimal(item)
