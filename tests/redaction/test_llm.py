"""Calls of language models: what was said goes, how the call went stays."""

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Report
from sidecar.redaction.rules import RuleSignal, load_rules
from sidecar.redaction.walk_otlp import redact_otlp
from sidecar.settings import default_rules_dir

SHIPPED = Engine(load_rules(default_rules_dir()))
SAID = "I feel ill since Monday"

# Of the attributes of the conventions, those that hold what was said.
CONTENT = {
    "gen_ai.completion",
    "gen_ai.evaluation.explanation",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query.text",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
}
ATTRIBUTES = sorted(
    value
    for name, value in vars(gen_ai_attributes).items()
    if name.startswith("GEN_AI_") and isinstance(value, str)
)


def redacted(text: str, key: str, signal: RuleSignal = "traces") -> str | None:
    return SHIPPED.redactor(signal).string(text, key, Report(), {})


def test_the_conventions_are_those_that_were_read() -> None:
    assert set(ATTRIBUTES) > CONTENT


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_an_attribute_of_the_conventions_goes_if_it_holds_what_was_said(key: str) -> None:
    assert redacted(SAID, key) == ("[REDACTED_CONTENT]" if key in CONTENT else SAID)


def any_value(value: Any) -> AnyValue:
    if isinstance(value, dict):
        items = [KeyValue(key=key, value=any_value(item)) for key, item in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=items))
    if isinstance(value, list):
        holder = AnyValue()
        holder.array_value.values.extend(any_value(item) for item in value)
        return holder
    return AnyValue(string_value=value)


CALLED = [{"id": "call_1", "function": {"name": "weather", "arguments": SAID}}]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"content": SAID, "role": "user"}, ["user"]),
        ({"content": [{"type": "text", "text": SAID}], "role": "user"}, ["user"]),
        (
            {"finish_reason": "stop", "message": {"role": "assistant", "content": SAID}},
            ["stop", "assistant"],
        ),
        ({"role": "assistant", "tool_calls": CALLED}, ["assistant", "call_1", "weather"]),
        (
            {"finish_reason": "tool_calls", "message": {"tool_calls": CALLED}},
            ["tool_calls", "call_1", "weather"],
        ),
    ],
)
def test_bodies_of_message_events_lose_what_was_said_alone(body: Any, kept: list[str]) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.event_name = "gen_ai.choice"
    record.body.CopyFrom(any_value(body))
    redact_otlp(request, SHIPPED.redactor("logs"))
    sent_on = request.SerializeToString()
    assert SAID.encode() not in sent_on
    assert all(text.encode() in sent_on for text in ["gen_ai.choice", *kept])
