"""Asking the redaction directly: ``POST /redact`` and ``GET /redactions``."""

from functools import partial
from typing import Any

import msgspec

from sidecar.http.body import decode_json, media_type, read_body
from sidecar.http.messages import HTTPError, Request, Response, json_response
from sidecar.http.routing import Body, Route, problems
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Finding, RedactionCount, Redactions, Report
from sidecar.redaction.walk_json import redact_json
from sidecar.work import work


class RedactResponse(msgspec.Struct):
    """The redacted text or JSON, and what was found in it."""

    redacted: Any
    findings: list[Finding]


def routes(rules: RulesInForce, redactions: Redactions, max_body_bytes: int) -> list[Route]:
    """Return the two routes."""

    async def redact(request: Request) -> Response:
        kind = media_type(request)
        if kind not in {"text/plain", "application/json"}:
            accepted = "text/plain, application/json"
            raise HTTPError(415, f"The body must be one of {accepted}.", {"accept": accepted})
        body = await read_body(request, max_body_bytes)
        value = _text(body) if kind == "text/plain" else decode_json(body, object)
        report = Report(detailed=True)
        try:
            redacted = await work(
                len(body), partial(redact_json, value, rules.redactor("http"), report)
            )
        except DropRecordError:
            redacted = None
        except Exception:
            # Fails closed: what could not be redacted does not come back.
            raise HTTPError(422, "This could not be redacted.") from None
        return json_response(RedactResponse(redacted, report.findings))

    async def counts(_: Request) -> Response:
        return json_response(redactions.rows())

    return [
        Route(
            method="POST",
            path="/redact",
            handler=redact,
            summary="Redact a text or JSON; nothing is stored or forwarded",
            tag="Redaction",
            request=Body(
                "What to redact.",
                {"application/json": Any, "text/plain": str},
                {"note": "mail alice@example.com"},
            ),
            responses={
                200: Body(
                    "Offsets are in characters of the string at `path`, a JSON Pointer.",
                    {"application/json": RedactResponse},
                ),
                **problems(
                    _400="Malformed JSON, or text that is not UTF-8.",
                    _408="The body did not arrive in time.",
                    _413="Too large.",
                    _415="Unknown media type or coding.",
                    _422="It could not be redacted.",
                ),
            },
        ),
        Route(
            method="GET",
            path="/redactions",
            handler=counts,
            summary="What was redacted since the start; counts, no values",
            tag="Redaction",
            responses={200: Body("The counts.", {"application/json": list[RedactionCount]})},
            direct=False,
        ),
    ]


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "The text is not UTF-8.") from None
