"""The OTLP/HTTP receiver (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Errors are a ``google.rpc.Status`` in the encoding of the request, as the specification asks.
"""

from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from sidecar.http.body import media_type, read_body
from sidecar.http.messages import HTTPError, Problem, Request, Response
from sidecar.http.routing import Body, Route
from sidecar.receivers.intake import TRY_LATER, Intake, try_later
from sidecar.receivers.otlp import (
    OTLP_SIGNALS,
    MalformedError,
    OtlpSignal,
    WrongShapeError,
    json_to_protobuf,
    protobuf_as_it_is,
    response,
)

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_TO_PROTOBUF = {_PROTOBUF: protobuf_as_it_is, _JSON: json_to_protobuf}
_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    408: code_pb2.DEADLINE_EXCEEDED,
    413: code_pb2.RESOURCE_EXHAUSTED,
    415: code_pb2.UNIMPLEMENTED,
    422: code_pb2.INVALID_ARGUMENT,
    429: code_pb2.RESOURCE_EXHAUSTED,
    503: code_pb2.UNAVAILABLE,
}


class StatusBody(msgspec.Struct):
    """A ``google.rpc.Status`` as JSON, for the documentation."""

    code: int
    message: str


class ExportAnswer(msgspec.Struct, rename="camel"):
    """An ``Export*ServiceResponse`` as JSON, for the documentation."""

    partial_success: dict[str, str] | None = None


def routes(intake: Intake, max_body_bytes: int) -> list[Route]:
    """Return the routes of the three signals."""
    return [_route(otlp, intake, max_body_bytes) for otlp in OTLP_SIGNALS]


def _route(otlp: OtlpSignal, intake: Intake, limit: int) -> Route:
    async def handle(request: Request) -> Response:
        kind = media_type(request)
        if kind not in _TO_PROTOBUF:
            raise HTTPError(
                415,
                f"The body must be {_PROTOBUF} or {_JSON}.",
                {"accept": f"{_PROTOBUF}, {_JSON}"},
            )
        try:
            failed = await _receive(otlp, intake, request, kind, limit)
        except HTTPError as error:
            return _status_response(error, kind)
        return _encoded(response(otlp, failed), kind, 200)

    errors = {
        400: "Malformed.",
        408: "The body did not arrive in time.",
        413: "Too large.",
        415: "Unknown media type or coding.",
        422: "Valid JSON of another shape.",
        429: "The queue is full, or there is no room; Retry-After says when to come back.",
        503: "Shutting down.",
    }
    return Route(
        method="POST",
        path=otlp.http_path,
        handler=handle,
        summary=f"Take in OTLP {otlp.signal}",
        tag="OTLP/HTTP",
        request=Body(
            f"An {otlp.request.DESCRIPTOR.name}.",
            {_JSON: dict[str, Any], _PROTOBUF: bytes},
            example={f"resource{otlp.signal.capitalize()}".replace("Traces", "Spans"): []},
        ),
        responses={
            200: Body("Redacted and queued.", {_JSON: ExportAnswer, _PROTOBUF: bytes}),
            **{
                status: Body(
                    text,
                    {
                        _JSON: StatusBody,
                        _PROTOBUF: bytes,
                        "application/problem+json": Problem,
                    },
                )
                for status, text in errors.items()
            },
        },
    )


async def _receive(
    otlp: OtlpSignal, intake: Intake, request: Request, kind: str, limit: int
) -> int:
    try:
        with intake.admitted(request.held):
            body = await read_body(request, limit)
            return await intake.otlp(otlp, body, _TO_PROTOBUF[kind], "http", request.held)
    except MalformedError as error:
        raise HTTPError(400, str(error)) from None
    except WrongShapeError as error:
        raise HTTPError(422, str(error)) from None
    except TRY_LATER as error:
        raise try_later(error) from None


def _status_response(error: HTTPError, kind: str) -> Response:
    """Return a refusal as a ``google.rpc.Status``, with the error's own headers."""
    status = Status(code=_CODES.get(error.status, code_pb2.UNKNOWN), message=error.detail)
    answer = _encoded(status, kind, error.status)
    answer.headers.update(error.headers)
    return answer


def _encoded(message: Message, kind: str, status: int) -> Response:
    body = (
        message.SerializeToString()
        if kind == _PROTOBUF
        else json_format.MessageToJson(message, indent=None).encode()
    )
    return Response(status, {"content-type": kind}, body)
