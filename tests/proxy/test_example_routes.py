"""The routes that the rules folder shows: each, uncommented, does for its product what it says."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.envelope import Envelope

from sidecar.proxy.heads import redact_headers, redact_target
from sidecar.proxy.route import ProxyRoute
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.settings import default_rules_dir
from tests.captured import PLANTED, leaks
from tests.captured import readings as readings_of
from tests.proxy.rules import redact
from tests.proxy.test_sentry import DSN, everything_a_client_sends
from tests.redaction.test_properties import PLANTED as SENT_TO_SENTRY
from tests.redaction.test_properties import holds

FILE = "50-routes.yaml"
EMAIL, PASSWORD, JWT, TOKEN = PLANTED[1], PLANTED[3], PLANTED[5], PLANTED[6]
CARD, PHONE, ADDRESS = PLANTED[8], PLANTED[9], PLANTED[11]
NOTE = f"I am {EMAIL}, card {CARD}, call {PHONE} from {ADDRESS}; password={PASSWORD} {JWT} {TOKEN}"
SESSION = "0198c1de-7a3e-7c61-b0f0-1f2d3c4b5a69"


class Example:
    """A route of the file, and the rules for it."""

    def __init__(self, route: ProxyRoute, redactor: Redactor) -> None:
        self.route = route
        self.redactor = redactor

    def __call__(self, body: bytes, content_type: str, path: str) -> bytes:
        written = redact(body, content_type, path, self.redactor, unknown=self.route.unknown)
        assert redact(written, content_type, path, self.redactor, unknown="block") is written
        return written

    def json(self, value: Any, path: str, content_type: str = "application/json") -> Any:
        """Return what arrives of a document, in which nothing personal may be left."""
        written = self(json.dumps(value).encode(), content_type, path)
        check(written.decode())
        return json.loads(written)


def check(text: str) -> None:
    for reading in (reading for part in _parts(text) for reading in readings_of(part)):
        assert not any(planted in reading for planted in PLANTED), reading


def _parts(text: str) -> Iterator[str]:
    yield text
    yield from re.findall(r"[\w+/=-]{8,}", text)


def uncommented(text: str) -> str:
    """Take the # away from `routes:` and from the lines of the routes, as the file says."""
    return re.sub(r"(?m)^#(?=routes:|  )", "", text)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    folder = tmp_path_factory.mktemp("rules") / "rules"
    shutil.copytree(default_rules_dir(), folder)
    path = folder / FILE
    path.write_text(uncommented(path.read_text(encoding="utf-8")), encoding="utf-8")
    rules = load_rules(folder)
    redactor = Engine(rules).redactor("http")
    return {r.name: Example(r, redactor.exempting(r.keep)) for r in rules.routes}


def test_every_example_is_a_route_and_none_is_in_force(examples: dict[str, Example]) -> None:
    assert list(examples) == ["langfuse", "posthog", "sentry", "loki", "webhook", "models"]
    assert load_rules(default_rules_dir()).routes == []


@pytest.mark.parametrize("name", ["langfuse", "posthog", "sentry", "loki", "webhook", "models"])
def test_an_example_can_be_uncommented_alone(name: str, tmp_path: Path) -> None:
    text = (default_rules_dir() / FILE).read_text(encoding="utf-8")
    before, _, rest = text.partition(f"#  - name: {name}\n")
    alone = re.match(r"(?:#  .*\n)*", rest)
    assert alone is not None
    changed = f"{before}#  - name: {name}\n{alone[0]}".replace("#routes:", "routes:")
    at = changed.index(f"#  - name: {name}")
    (tmp_path / FILE).write_text(changed[:at] + uncommented(changed[at:]), encoding="utf-8")
    shutil.copy(default_rules_dir() / "20-personal-data.yaml", tmp_path)
    assert [route.name for route in load_rules(tmp_path).routes] == [name]


def test_credentials_pass_on_every_example(examples: dict[str, Example]) -> None:
    sent = [
        (b"authorization", b"Basic " + base64.b64encode(b"pk-lf-1234:sk-lf-5678")),
        (b"x-api-key", TOKEN.encode()),
        (b"x-sentry-auth", b"Sentry sentry_key=0123456789abcdef0123456789abcdef"),
    ]
    note = (b"x-note", EMAIL.encode())
    for example in examples.values():
        shown = redact_headers([*sent, note], example.redactor, Report())
        assert shown == [*sent, (b"x-note", b"[REDACTED_EMAIL]")]


# Langfuse


def test_langfuse_traces_over_otlp_stay_traces(examples: dict[str, Example]) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "webui"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("langfuse-sdk", "3.9.0", attributes={"public_key": "pk-lf-1234"})
    with tracer.start_as_current_span("chat") as span:
        span.set_attributes(
            {
                "langfuse.trace.name": "chat",
                "langfuse.trace.input": NOTE,
                "langfuse.observation.output": json.dumps({"text": NOTE}),
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "gpt-4o-mini",
                "langfuse.observation.usage_details": '{"input": 10, "output": 20}',
                "langfuse.trace.metadata.note": NOTE,
                "session.id": SESSION,
                "user.id": EMAIL,
                "langfuse.trace.tags": ["tag", EMAIL],
            }
        )
    body = encode_spans(exporter.get_finished_spans()).SerializeToString()
    written = examples["langfuse"](body, "application/x-protobuf", "/api/public/otel/v1/traces")
    message = ExportTraceServiceRequest.FromString(written)
    assert not leaks(message)
    (scoped,) = message.resource_spans[0].scope_spans
    assert scoped.scope.attributes[0].value.string_value == "pk-lf-1234"
    shown = {item.key: item.value for item in scoped.spans[0].attributes}
    assert shown["session.id"].string_value == SESSION
    assert shown["user.id"].string_value == "[REDACTED_EMAIL]"
    assert shown["langfuse.observation.usage_details"].string_value == '{"input": 10, "output": 20}'
    assert shown["langfuse.observation.model.name"].string_value == "gpt-4o-mini"
    assert shown["langfuse.trace.tags"].array_value.values[0].string_value == "tag"


def test_langfuse_ingestion_stays_a_batch(examples: dict[str, Example]) -> None:
    # https://api.reference.langfuse.com/#tag/ingestion
    batch: dict[str, Any] = {
        "batch": [
            {
                "id": "5b3ac1f4-5b0c-4b0e-9d8e-0d8a4f1d2c3b",
                "type": "trace-create",
                "timestamp": "2026-11-23T10:00:00.123456Z",
                "body": {
                    "id": "7f0c2a4e-1b2c-4d3e-8f90-a1b2c3d4e5f6",
                    "name": "chat",
                    "userId": EMAIL,
                    "sessionId": SESSION,
                    "input": {"messages": [{"role": "user", "content": NOTE}]},
                    "output": NOTE,
                    "metadata": {"ip": ADDRESS, "note": base64.b64encode(NOTE.encode()).decode()},
                    "tags": ["prod"],
                    "public": False,
                },
            },
            {
                "id": "f7e6d5c4-b3a2-4190-8f7e-6d5c4b3a2910",
                "type": "generation-update",
                "timestamp": "2026-11-23T10:00:01.5Z",
                "body": {
                    "id": "gen-1",
                    "traceId": "7f0c2a4e-1b2c-4d3e-8f90-a1b2c3d4e5f6",
                    "model": "gpt-4o-mini",
                    "modelParameters": {"temperature": 0.7},
                    "usage": {"input": 11, "output": 22, "unit": "TOKENS"},
                    "completionStartTime": "2026-11-23T10:00:01Z",
                },
            },
        ],
        "metadata": {"public_key": "pk-lf-1234abcd-1234-1234-1234-123456789abc", "batch_size": 2},
    }
    shown = examples["langfuse"].json(batch, "/api/public/ingestion")
    assert shown["metadata"] == batch["metadata"]
    assert shown["batch"][1] == batch["batch"][1]
    before, after = batch["batch"][0], shown["batch"][0]
    for name in ("id", "type", "timestamp"):
        assert after[name] == before[name]
    assert after["body"].keys() == before["body"].keys()
    assert after["body"]["sessionId"] == SESSION
    assert after["body"]["userId"] == "[REDACTED]"
    assert after["body"]["input"]["messages"][0]["role"] == "user"


# PostHog

PROJECT = "phc_Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb3dEf6hIj9"
CAPTURED: dict[str, Any] = {
    "api_key": PROJECT,
    "historical_migration": False,
    "sent_at": "2026-11-23T10:00:00.000Z",
    "batch": [
        {
            "event": "$pageview",
            "uuid": "0198c1de-7a3e-7c61-b0f0-1f2d3c4b5a70",
            "distinct_id": "0198c1de-0000-7c61-b0f0-1f2d3c4b5a71",
            "timestamp": "2026-11-23T10:00:00.000Z",
            "properties": {
                "token": PROJECT,
                "distinct_id": "0198c1de-0000-7c61-b0f0-1f2d3c4b5a71",
                "$device_id": "0198c1de-0000-7c61-b0f0-1f2d3c4b5a71",
                "$session_id": SESSION,
                "$window_id": "0198c1de-7a3e-7c61-b0f0-1f2d3c4b5a72",
                "$user_id": EMAIL,
                "$ip": ADDRESS,
                "$current_url": f"https://webui.example/chat?email={EMAIL}&page=2",
                "$lib": "web",
                "$lib_version": "1.297.2",
                "$screen_width": 1920,
                "note": NOTE,
                "$set": {"email": EMAIL, "plan": "pro"},
            },
        },
        {
            "event": "$identify",
            "distinct_id": EMAIL,
            "properties": {"$lib": "posthog-python", "password": PASSWORD, "$geoip_disable": True},
        },
    ],
}


def posthog_is_served(shown: dict[str, Any]) -> None:
    assert shown["api_key"] == PROJECT
    first, second = (event["properties"] for event in shown["batch"])
    before = CAPTURED["batch"][0]["properties"]
    for name in before.keys() - {"$user_id", "$ip", "$current_url", "note", "$set"}:
        assert first[name] == before[name]
    assert first["$current_url"].startswith("https://webui.example/chat?email=")
    assert first["$set"] == {"email": "[REDACTED]", "plan": "pro"}
    assert second["$geoip_disable"] is True
    assert shown["batch"][1]["distinct_id"] == "[REDACTED_EMAIL]"


def test_posthog_batches_stay_batches(examples: dict[str, Example]) -> None:
    posthog_is_served(examples["posthog"].json(CAPTURED, "/batch/"))


def test_posthog_from_a_browser_stays_compressed_or_in_base64(examples: dict[str, Example]) -> None:
    posthog, body = examples["posthog"], json.dumps(CAPTURED).encode()
    written = gzip.decompress(posthog(gzip.compress(body), "text/plain", "/e/"))
    check(written.decode())
    posthog_is_served(json.loads(written))
    form = b"data=" + base64.b64encode(body).replace(b"+", b"%2B").replace(b"=", b"%3D")
    data = posthog(form, "application/x-www-form-urlencoded", "/e/").partition(b"=")[2]
    written = base64.b64decode(
        data.replace(b"%2B", b"+").replace(b"%3D", b"=").replace(b"%2F", b"/")
    )
    check(written.decode())
    posthog_is_served(json.loads(written))


def test_posthog_flags_are_asked_for_the_project(examples: dict[str, Example]) -> None:
    asked = {
        "token": PROJECT,
        "distinct_id": "7",
        "person_properties": {"email": EMAIL},
        "groups": {},
    }
    shown = examples["posthog"].json(asked, "/flags/")
    assert shown == {**asked, "person_properties": {"email": "[REDACTED]"}}
    query = f"v=2&token={PROJECT}&email={EMAIL}".encode()
    _, shown_query = redact_target(b"/flags/", query, examples["posthog"].redactor, Report())
    assert shown_query == f"v=2&token={PROJECT}&email=%5BREDACTED%5D".encode()


# Sentry


def test_sentry_envelopes_stay_envelopes(examples: dict[str, Example]) -> None:
    path = "/api/4505123456789012/envelope/"
    for body in everything_a_client_sends():
        header, _, rest = body.partition(b"\n")
        sent = json.dumps({**json.loads(header), "dsn": DSN}).encode() + b"\n" + rest
        written = examples["sentry"](sent, "application/x-sentry-envelope", path)
        for line in written.decode().splitlines():
            assert not any(holds(line, value) for value in SENT_TO_SENTRY), line
        assert Envelope.deserialize(written).headers["dsn"] == DSN
    # A number of a project that has the form of a card.
    target = b"/api/4505123456789019/envelope/", b"sentry_key=0123456789abcdef0123456789abcdef"
    assert redact_target(*target, examples["sentry"].redactor, Report()) == target


# Loki


def test_pushes_to_loki_keep_labels_and_times(examples: dict[str, Example]) -> None:
    # https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
    line = json.dumps({"level": "info", "msg": NOTE, "user": {"email": EMAIL}, "took": 1.10})
    push: dict[str, Any] = {
        "streams": [
            {
                "stream": {"job": "webui", "level": "info", "pod": "webui-0"},
                "values": [
                    ["1764000000000000000", line],
                    ["1764000000000000001", NOTE, {"trace_id": "0af7651916cd43dd8448eb211c80319c"}],
                    ["1764000000000000002", "GET /api/models 200"],
                ],
            }
        ]
    }
    shown = examples["loki"].json(push, "/loki/api/v1/push")
    (stream,) = shown["streams"]
    before = push["streams"][0]["values"]
    assert stream["stream"] == push["streams"][0]["stream"]
    assert [value[0] for value in stream["values"]] == [value[0] for value in before]
    assert stream["values"][1][2] == before[1][2]
    assert stream["values"][2] == before[2]
    inner = json.loads(stream["values"][0][1])
    assert (inner["level"], inner["took"], inner["user"]) == ("info", 1.1, {"email": "[REDACTED]"})


# A webhook


def test_a_webhook_keeps_the_secret_in_its_path(examples: dict[str, Example]) -> None:
    path = b"/services/T00000000/B00000000/q7Rk2VbX9mT4sLz8WpE1nYc6"
    assert redact_target(path, b"", examples["webhook"].redactor, Report()) == (path, b"")
    message = {
        "text": NOTE,
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": NOTE}}],
    }
    shown = examples["webhook"].json(message, path.decode())
    assert shown["blocks"][0]["text"].keys() == {"type", "text"}
    form = ("payload=" + json.dumps(message).replace("+", "%2B")).encode()
    check(examples["webhook"](form, "application/x-www-form-urlencoded", path.decode()).decode())


# Models


def test_calls_of_models_are_measured_and_embeddings_kept(examples: dict[str, Example]) -> None:
    route = examples["models"].route
    assert not route.redacts_request
    assert not route.redacts_response
    assert route.observe == "llm"
    assert route.cache is not None
    assert [cached.path for cached in route.cache.post] == ["*/embeddings"]
