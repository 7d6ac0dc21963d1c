"""What stands at an exempt key passes as it is; all else is redacted as without it."""

import json
from typing import Any

from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_json import redact_json
from sidecar.settings import default_rules_dir
from tests.redaction.test_engine import engine

HTTP = Engine(load_rules(default_rules_dir())).redactor("http")
KEY = "phc_0a1b2c3d4e5f6g7h8i9j"


def redacted(redactor: Redactor, value: Any) -> Any:
    return redact_json(value, redactor, Report())


def test_a_value_at_an_exempt_key_is_the_same_object() -> None:
    redactor = HTTP.exempting(["api_key", "*.dsn"])
    report = Report()
    assert redactor.string(KEY, "apiKey", report, {}) is KEY
    assert redactor.number(4111111111111111, "batch.api-key", report, {}) == 4111111111111111
    assert not report
    assert redactor.string(KEY, "dsn", report, {}) is KEY


def test_only_what_the_globs_say_is_exempt() -> None:
    redactor = HTTP.exempting(["envelope.dsn"])
    value = {"dsn": "alice@example.com", "envelope": {"dsn": "alice@example.com"}}
    assert redacted(redactor, value) == {
        "dsn": "[REDACTED_EMAIL]",
        "envelope": {"dsn": "alice@example.com"},
    }


def test_what_lies_within_an_exempt_key_is_exempt() -> None:
    redactor = HTTP.exempting(["contact"])
    value = {"contact": {"email": "alice@example.com", "seen": [{"ip": "203.0.113.77"}]}}
    assert redacted(redactor, value) is value
    assert redacted(redactor, {"contacts": {"email": "a@example.com"}}) == {
        "contacts": {"email": "[REDACTED]"}
    }


def test_values_are_exempt_in_json_in_strings_and_what_stands_beside_them_is_not() -> None:
    redactor = HTTP.exempting(["api_key"])
    inner = json.dumps({"api_key": KEY, "note": "mail alice@example.com"})
    outer = json.dumps({"payload": inner, "api_key": KEY})
    changed = redactor.string(outer, "data", Report(), {})
    assert changed is not None
    document = json.loads(changed)
    assert document["api_key"] == KEY
    assert json.loads(document["payload"]) == {"api_key": KEY, "note": "mail [REDACTED_EMAIL]"}


def test_the_redactor_it_is_made_of_stays_as_it_was() -> None:
    HTTP.exempting(["api_key"]).string(KEY, "api_key", Report(), {})
    assert HTTP.string(KEY, "api_key", Report(), {}) == "[REDACTED]"
    nothing = HTTP.exempting([])
    assert nothing.string(KEY, "api_key", Report(), {}) == "[REDACTED]"


def test_an_exempt_field_is_allowed() -> None:
    redactor = engine({"find": "email"}, allow=("note",)).redactor("http")
    value = {"note": "x", "api_key": {"id": KEY}, "mood": "good"}
    assert redacted(redactor.exempting(["api_key"]), value) == {"note": "x", "api_key": {"id": KEY}}


def test_rules_that_only_count_do_not_count_what_is_exempt() -> None:
    redactor = engine({"find": "email", "mode": "audit"}).redactor("http").exempting(["owner"])
    report = Report()
    redact_json({"owner": "a@example.com", "note": "b@example.com"}, redactor, report)
    assert sum(report.audited.values()) == 1
