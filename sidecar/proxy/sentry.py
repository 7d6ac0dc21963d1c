"""Redacts envelopes of Sentry (https://develop.sentry.dev/sdk/data-model/envelopes/).

An envelope is lines of JSON headers with payloads between them, so that one request can hold
events beside attachments. Where a payload changes its size, the header of its item says so.
"""

import re
from collections.abc import Generator
from typing import Any

import msgspec

from sidecar.proxy.documents import redact_document, redact_text
from sidecar.proxy.route import Unknown
from sidecar.proxy.sentry_attributes import CONTAINER, redact_container
from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_otlp import Outcome

# https://develop.sentry.dev/sdk/data-model/envelope-items/: what is always JSON.
_DOCUMENTS = frozenset(
    {
        "check_in",
        "client_report",
        "event",
        "feedback",
        "log",
        "profile",
        "replay_event",
        "session",
        "sessions",
        "span",
        "trace_metric",
        "transaction",
        "user_report",
    }
)
_TEXTS = frozenset({"statsd"})
_NO_BLANK = re.compile(rb"\S")


class _Item(msgspec.Struct):
    """An item as it came.

    Attributes:
        before: blank lines.
        header: the line, without its end.
        said: what it says.
        between: the end of that line, if it has one.
        payload: as it came.
        behind: the line end behind it, if there is one.
    """

    before: bytes
    header: bytes
    said: dict[str, Any]
    between: bytes
    payload: bytes
    behind: bytes


def redact_envelope(
    body: bytes, redactor: Redactor, outcome: Outcome, unknown: Unknown
) -> Generator[None, None, bytes]:
    """Redact the headers and the items of an envelope.

    Args:
        body: the envelope.
        redactor: the rules.
        outcome: takes the findings, and counts the items.
        unknown: what becomes of an item that is neither JSON nor text.

    Yields:
        After each item.

    Raises:
        UncheckedError: this is no envelope, or an item is not what its type says.
        UnknownTypeError: an item is unknown, and is to be blocked.
        UnstableError, DropRecordError: see `Redactor.string`; of an item that a rule drops, only
            that is left out.
    """
    at = _line_end(body, 0)
    _read_header(body[:at])
    written = [redact_document(body[:at], redactor, outcome.report), body[at : at + 1]]
    at += 1
    while _NO_BLANK.search(body, at):
        item, at = _next_item(body, at)
        try:
            changed = _redacted(item, redactor, outcome.report, unknown)
        except DropRecordError:
            changed = None
        if changed is None:
            outcome.dropped += 1
        else:
            outcome.kept += 1
            written += [item.before, changed[0], item.between, changed[1], item.behind]
        yield
    joined = b"".join([*written, body[at:]])
    return body if joined == body else joined


def _next_item(body: bytes, at: int) -> tuple[_Item, int]:
    """Return the item at a place, and the place behind it."""
    start, end = at, _line_end(body, at)
    while not body[start:end].strip():
        start = end + 1
        end = _line_end(body, start)
    said = _read_header(body[start:end])
    payload = min(end + 1, len(body))
    length = said.get("length")
    if length is None:
        stop = _line_end(body, payload)
    elif type(length) is int and 0 <= length <= len(body) - payload:
        stop = payload + length
    else:
        raise UncheckedError("The length of an item of the envelope is wrong.")
    behind = body[stop : stop + 1]
    if behind not in (b"\n", b""):
        raise UncheckedError("An item of the envelope does not end where its header says.")
    return (
        _Item(
            before=body[at:start],
            header=body[start:end],
            said=said,
            between=body[end:payload],
            payload=body[payload:stop],
            behind=behind,
        ),
        stop + len(behind),
    )


def _line_end(body: bytes, at: int) -> int:
    end = body.find(b"\n", at)
    return len(body) if end < 0 else end


def _read_header(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UncheckedError("A header of the envelope is no JSON object.") from None


def _redacted(
    item: _Item, redactor: Redactor, report: Report, unknown: Unknown
) -> tuple[bytes, bytes] | None:
    """Return the header and the payload of an item; None when it is left out."""
    try:
        payload = _payload(item, redactor, report)
    except UnknownTypeError:
        if unknown == "block":
            raise
        if unknown == "drop":
            return None
        payload = item.payload
    header = redact_document(item.header, redactor, report)
    said = _read_header(header)
    # How an envelope is read, so no list of allowed fields takes it out.
    structure: dict[str, Any] = {}
    if "type" not in said and item.said.get("type") in _DOCUMENTS | _TEXTS:
        structure["type"] = item.said["type"]
    if item.said.get("length") is not None or b"\n" in payload:
        structure["length"] = len(payload)
    if any(said.get(name) != value for name, value in structure.items()):
        header = msgspec.json.encode({**said, **structure})
    return header, payload


def _payload(item: _Item, redactor: Redactor, report: Report) -> bytes:
    kind, media_type = item.said.get("type"), str(item.said.get("content_type", ""))
    payload = item.payload
    if not payload:
        return payload
    if kind in _TEXTS or (kind == "attachment" and media_type.startswith("text/")):
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise UncheckedError("A text in the envelope is not UTF-8.") from None
        changed = redact_text(text, redactor, report)
        return payload if changed == text else changed.encode()
    if kind in _DOCUMENTS and media_type.startswith(CONTAINER):
        return redact_container(payload, redactor, report)
    try:
        return redact_document(payload, redactor, report)
    except UncheckedError:
        if kind in _DOCUMENTS:
            raise
        raise UnknownTypeError("An item of the envelope cannot be looked into.") from None
