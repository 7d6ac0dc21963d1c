import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_json import TooDeepError, redact_json
from sidecar.settings import default_rules_dir
from tests.redaction.test_engine import PERSONAL, engine

EVENTS = Engine(load_rules(default_rules_dir())).redactor("events")


def test_findings_have_json_pointers_into_the_input() -> None:
    report = Report(detailed=True)
    value = {"a/b": [{"m~n": "mail alice@example.com"}], "password": "x"}
    redacted = redact_json(value, EVENTS, report)
    assert redacted == {
        "a/b": [{"m~n": "mail [REDACTED_EMAIL]"}],
        "password": "[REDACTED]",
    }
    assert [(f.rule, f.start, f.end, f.path) for f in report.findings] == [
        ("email", 5, 22, "/a~1b/0/m~0n"),
        ("secret-by-name", 0, 1, "/password"),
    ]
    assert value["password"] == "x"


def test_keys_that_read_the_same_when_redacted_stay_apart() -> None:
    redacted = redact_json({"a@example.com": 1, "b@example.com": 2}, EVENTS, Report())
    assert redacted == {"[REDACTED_EMAIL]": 1, "[REDACTED_EMAIL]#2": 2}


def test_values_of_every_kind_are_redacted_by_name() -> None:
    value = {"email": ["a", {"b": 1}], "ip": True, "token": 7, "password": None, "note": [None]}
    assert redact_json(value, EVENTS, Report()) == {
        "email": "[REDACTED]",
        "ip": "[REDACTED]",
        "token": "[REDACTED]",
        "password": None,
        "note": [None],
    }


def test_dropped_fields_and_items_are_gone() -> None:
    redactor = engine({"keys": ["a"], "action": {"drop": {}}}).redactor("events")
    assert redact_json({"a": 1, "b": {"a": [1]}}, redactor, Report()) == {"b": {}}


def test_findings_are_counted_under_redacted_names() -> None:
    report = Report()
    redact_json({"alice@example.com": {"email": "x"}, "trace_id": {"email": "y"}}, EVENTS, report)
    assert set(report.counts) == {
        ("", "email"),
        ("[REDACTED_EMAIL].email", "personal-by-name"),
        ("trace_id.email", "personal-by-name"),
    }


def test_nesting_is_bounded() -> None:
    value: object = "x"
    for _ in range(65):
        value = [value]
    with pytest.raises(TooDeepError):
        redact_json(value, EVENTS, Report())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | PERSONAL,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | PERSONAL, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(JSON)
def test_redacting_twice_changes_nothing_more(value: object) -> None:
    once = redact_json(value, EVENTS, Report())
    assert redact_json(once, EVENTS, Report()) == once
    msgspec.json.encode(once)


CLEAN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(CLEAN)
def test_what_holds_nothing_personal_is_the_same_object(value: object) -> None:
    assert redact_json(value, EVENTS, Report()) is value
