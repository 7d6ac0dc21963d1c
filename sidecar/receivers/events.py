"""The receiver of events: ``POST /log`` and ``POST /log/batch``."""

import io
import re
import uuid
from collections.abc import Generator, Iterator
from functools import partial
from typing import Annotated, Any

import msgspec

from sidecar.http.body import check_json_type, decode_json, media_type, read_body
from sidecar.http.messages import Handler, HTTPError, Request, Response, json_response
from sidecar.http.routing import Body, Route, problems
from sidecar.receivers.intake import (
    TRY_LATER,
    Event,
    EventLines,
    Intake,
    NotRedactedError,
    try_later,
)
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.walk_otlp import Outcome
from sidecar.work import work, work_in_turns

_MAX_RECORDS = 100_000
_BATCH_TYPES = frozenset({"", "application/json", "application/x-ndjson", "application/jsonl"})


class LogRequest(msgspec.Struct):
    """One event as a client sends it."""

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    payload: dict[str, Any]
    timestamp: str | None = None


class LogResponse(msgspec.Struct, kw_only=True):
    """The acknowledgement of one event."""

    status: str = "logged"
    event_id: str
    redacted_fields: list[str]


class Rejection(msgspec.Struct):
    """A record of a batch that was not taken: its place, counted from 0, and why."""

    index: int
    detail: str


class BatchResponse(msgspec.Struct):
    """The acknowledgement of a batch."""

    accepted: int
    rejected: list[Rejection]


_EXAMPLE = {"event": "chat_completed", "payload": {"model": "gpt-mini", "user_id": "u-42"}}


def routes(intake: Intake, max_body_bytes: int) -> list[Route]:
    """Return the routes of this receiver."""

    async def log(request: Request) -> Response:
        check_json_type(request)
        outcome = Outcome()
        lines = EventLines()
        try:
            with intake.admitted(request.held):
                body = await read_body(request, max_body_bytes)
                request.held.promise(len(body))
                event = _event(decode_json(body, LogRequest))
                try:
                    await work(len(body), partial(intake.redact_event, event, outcome))
                except (NotRedactedError, DropRecordError):
                    await intake.events(lines, outcome)
                    raise
                lines.add(event)
                await intake.events(lines, outcome)
        except NotRedactedError as error:
            raise HTTPError(422, str(error)) from None
        except DropRecordError:
            pass  # as the rule says; the client need not know
        except TRY_LATER as error:
            raise try_later(error) from None
        fields = list(outcome.report.fields)
        return json_response(LogResponse(event_id=event.event_id, redacted_fields=fields))

    async def log_batch(request: Request) -> Response:
        if media_type(request) not in _BATCH_TYPES:
            raise HTTPError(
                415,
                "The body must be application/json or application/x-ndjson.",
                {"accept": "application/json, application/x-ndjson"},
            )
        try:
            with intake.admitted(request.held):
                body = await read_body(request, max_body_bytes)
                if not body:
                    raise HTTPError(400, "The body is empty.")
                request.held.promise(len(body))
                outcome = Outcome()
                lines, rejected = await work_in_turns(
                    len(body), _redact_records(intake, body, outcome)
                )
                await intake.events(lines, outcome)
                answer = BatchResponse(lines.count + outcome.dropped, rejected)
                return await work(len(body), partial(json_response, answer))
        except TRY_LATER as error:
            raise try_later(error) from None

    return _table(log, log_batch)


def _table(log: Handler, log_batch: Handler) -> list[Route]:
    refusals = problems(
        _400="Malformed JSON.",
        _408="The body did not arrive in time.",
        _413="Too large.",
        _415="Unknown media type or coding.",
        _422="Valid JSON of another shape; the detail names the field.",
        _429="The queue is full, or there is no room; Retry-After says when to come back.",
        _503="Shutting down.",
    )
    return [
        Route(
            method="POST",
            path="/log",
            handler=log,
            summary="Log one event, redacted",
            tag="Events",
            request=Body("The event.", {"application/json": LogRequest}, _EXAMPLE),
            responses={200: Body("Logged.", {"application/json": LogResponse}), **refusals},
        ),
        Route(
            method="POST",
            path="/log/batch",
            handler=log_batch,
            summary="Log many events, as NDJSON or a JSON array",
            tag="Events",
            request=Body(
                # Any value: what is faulty is told record by record in the answer. Clients send
                # NDJSON as application/json too.
                "The events, each as POST /log takes it.",
                {"application/json": Any, "application/x-ndjson": str},
                [_EXAMPLE],
            ),
            responses={
                200: Body("The good ones are logged.", {"application/json": BatchResponse}),
                **{status: body for status, body in refusals.items() if status != 422},
            },
        ),
    ]


def _event(given: LogRequest) -> Event:
    payload_timestamp = given.payload.get("timestamp")
    timestamp = given.timestamp or (payload_timestamp if isinstance(payload_timestamp, str) else "")
    return Event(str(uuid.uuid4()), given.event, timestamp, given.payload)


def _redact_records(
    intake: Intake, body: bytes, outcome: Outcome
) -> Generator[None, None, tuple[EventLines, list[Rejection]]]:
    lines = EventLines()
    rejected: list[Rejection] = []
    for index, record in enumerate(_records(body)):
        if index == _MAX_RECORDS:
            raise HTTPError(413, f"The batch has more than {_MAX_RECORDS} records.")
        try:
            event = _event(decode_json(record, LogRequest))
            intake.redact_event(event, outcome)
            lines.add(event)
        except HTTPError as error:
            rejected.append(Rejection(index, error.detail.replace("The body", "The record")))
        except NotRedactedError as error:
            rejected.append(Rejection(index, str(error)))
        except DropRecordError:
            pass  # accepted, and dropped as the rule says
        yield
    return lines, rejected


def _records(body: bytes) -> Iterator[bytes]:
    """Yield each record of a JSON array or of NDJSON, still encoded; blank lines are none."""
    if body.lstrip()[:1] != b"[":
        for line in io.BytesIO(body):
            if record := line.strip():
                yield record
        return
    decode_json(body, msgspec.Raw)  # raises where it is no JSON; from here on it is
    start = body.index(b"[") + 1
    depth = 0
    for token in _STRUCTURE.finditer(body, start):
        if token[0] in b"[{":
            depth += 1
        elif token[0] in b"]}":
            depth -= 1
        elif token[0] != b"," or depth:
            continue
        if depth < 0 or (depth == 0 and token[0] == b","):
            if record := body[start : token.start()].strip():
                yield record
            start = token.end()


# What tells the elements of valid JSON apart; a string is one token, so that none is found in it.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]', re.DOTALL)
