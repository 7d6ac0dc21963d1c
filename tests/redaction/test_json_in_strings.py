"""JSON within strings: rules reach in, and what they leave stays as it was written."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import redact_json
from tests.redaction.test_engine import EVENTS, LOGS, PERSONAL, engine, redact


def by_key(*keys: str, **rule: object):  # type: ignore[no-untyped-def]
    return engine({"keys": list(keys), **rule}).redactor("logs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password": "x"}', '{"password": "[REDACTED]"}'),
        ('{"a":[{"password":"x"}]}', '{"a":[{"password":"[REDACTED]"}]}'),
        ('[1,{"user":{"email":"a"}}]', '[1,{"user":{"email":"[REDACTED_USER_EMAIL]"}}]'),
        ('{"m":"mail a@example.com"}', '{"m":"mail [REDACTED_EMAIL]"}'),
        ('{"a@example.com": 1}', '{"[REDACTED_EMAIL]":1}'),
        ('{"pass\\u0077ord": "x"}', '{"pass\\u0077ord": "[REDACTED]"}'),
        ('{"token": 12345}', '{"token": "[REDACTED]"}'),
        ('{"token": true, "n": [null]}', '{"token": "[REDACTED]", "n": [null]}'),
        ('{"n": 4111111111111111}', '{"n": "[REDACTED_CARD]"}'),
        (' \n{"password": "x"}\t', ' \n{"password": "[REDACTED]"}\t'),
    ],
)
def test_rules_reach_into_json_in_a_string(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "around",
    [
        '{{ "password" : {},\n\t"n" : 1.50 , "e":1e5,"E":-0.0 }}',
        '{{"password":{},"big":123456789012345678901234567890,"f":0.1000000000000000000001}}',
        '[ {{"password":{}}} ,  18446744073709551616 ,1E300, "\\u00e9\\/\\n" ]',
        '{{"a":{{"b":[ ]  ,"c":{{ }}}},"password":{},"é":"é"}}',
        '\n{{"x":"\\u0041","password":{}}}\n\n',
    ],
)
def test_what_is_not_changed_stays_byte_for_byte(around: str) -> None:
    for value in ('"x"', "7", "true", '["a", {"b": 1}]'):
        redacted = redact(around.format(value))
        assert redacted == around.format('"[REDACTED]"')
        assert redact(redacted) == redacted


def test_whole_numbers_of_any_length_stay() -> None:
    text = '{"a":-123456789012345678901234567890' + "9" * 100 + ',"password":"x"}'
    assert redact(text) == text.replace('"x"', '"[REDACTED]"')


@pytest.mark.parametrize(
    "text",
    [
        '{"password":"hidden1","password":"hidden2"}',
        '{"a":"hidden@example.com","a":1}',
        '{"a":{"password":"hidden"},"a":{"b":2}}',
        '[{"password":"hidden","pass\\u0077ord":""}]',
        '{"a":1,"a":{"email":"hidden"},"a":2}',
    ],
)
def test_of_names_that_come_twice_no_value_leaks(text: str) -> None:
    redacted = redact(text)
    assert redacted is not None
    assert "hidden" not in redacted
    json.loads(redacted)


def test_a_number_that_text_rules_take_becomes_a_string() -> None:
    redactor = engine({"pattern": r"\b555\d{4}\b"}).redactor("logs")
    redacted = redact('{"a": 5551234, "b": [5551235, 12], "c": "5551236"}', redactor)
    assert redacted == ('{"a": "[REDACTED_R0]", "b": ["[REDACTED_R0]", 12], "c": "[REDACTED_R0]"}')


def test_fields_that_are_dropped_are_gone() -> None:
    redactor = by_key("secret", action={"drop": {}})
    for text in ('{"secret": 1, "b": 2}', '{"b": 2, "secret": {"c": 3}}'):
        assert json.loads(redact(text, redactor) or "") == {"b": 2}
    assert json.loads(redact('[{"secret": 1}]', redactor) or "") == [{}]


def test_json_within_json_within_json_is_looked_into() -> None:
    inner = json.dumps({"password": "hidden"})
    for _ in range(4):
        inner = json.dumps({"body": inner, "n": 1})
    redacted = redact(inner)
    assert redacted is not None
    for _ in range(4):
        outer = json.loads(redacted)
        assert outer["n"] == 1
        redacted = outer["body"]
    assert redacted == '{"password": "[REDACTED]"}'


def test_json_that_is_nested_too_deep_is_redacted_as_text() -> None:
    for depth in (60, 63, 64, 70, 1000, 100_000):
        text = "[" * depth + '"mail a@example.com"' + "]" * depth
        redacted = redact(text)
        assert redacted is not None
        assert redacted == text.replace("a@example.com", "[REDACTED_EMAIL]"), depth


def test_names_are_those_of_the_field_that_holds_the_json() -> None:
    redactor = by_key("body.user.name")
    text = '{"user": {"name": "x"}, "name": "y"}'
    assert redact(text, redactor, "body") == '{"user": {"name": "[REDACTED_R0]"}, "name": "y"}'
    assert redact(text, redactor, "other") == text


def test_the_siblings_are_the_fields_beside_it() -> None:
    redactor = by_key("statement", when={"system": "redis"})
    assert redact('{"statement":"a","system":"redis"}', redactor) == (
        '{"statement":"[REDACTED_R0]","system":"redis"}'
    )
    text = '{"statement":"a","system":"sqlite"}'
    assert redact(text, redactor, "x", system="redis") == text


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "x"',
        "{password: x}",
        '{"a": 1} {"b": 2}',
        "{'a': 'b'}",
        "[a link](b)",
        "{}",
        "[]",
        '"text"',
        "[1, 2, 3]",
        "{placeholder}",
        '{"a": NaN}',
    ],
)
def test_what_holds_nothing_is_the_same_object(text: str) -> None:
    redactor = by_key("nothing")
    assert redact(text, redactor) is text


def test_findings_are_offsets_in_the_string() -> None:
    text = '{"n": 1, "m": "mail a@example.com", "password": "hidden", "k": ["b@example.com"]}'
    report = Report(detailed=True)
    LOGS.string(text, "body", report, {}, "/body")
    places = [(f.rule, text[f.start : f.end], f.path) for f in report.findings]
    assert places == [
        ("email", "a@example.com", "/body"),
        ("secret-by-name", "hidden", "/body"),
        ("email", "b@example.com", "/body"),
    ]
    assert set(report.counts) == {
        ("body.m", "email"),
        ("body.password", "secret-by-name"),
        ("body.k", "email"),
    }


def test_findings_in_what_is_escaped_are_the_whole_value() -> None:
    text = '{"m": "mail\\n a@example.com"}'
    report = Report(detailed=True)
    LOGS.string(text, "", report, {})
    assert [text[f.start : f.end] for f in report.findings] == ['"mail\\n a@example.com"']


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(min_value=0)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | PERSONAL
)
NAMES = st.text(max_size=6) | st.sampled_from(["password", "email", "token", "a/b", "m~n", "é"])
VALUES = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
).filter(lambda value: isinstance(value, dict | list))


@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from([None, 0, 2]), st.booleans())
def test_json_in_a_string_comes_out_as_it_would_alone(
    value: object, indent: int | None, ascii_only: bool
) -> None:
    # Without rules that look at the text around a value, which is another one in a string.
    redactor = engine(
        {"keys": ["password", "token"]}, {"keys": ["email"], "action": {"drop": {}}}
    ).redactor("logs")
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    redacted = redact(text, redactor)
    assert redacted is not None
    assert json.loads(redacted) == redact_json(value, redactor, Report())


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_what_is_redacted_within_is_stable(value: object) -> None:
    once = redact(json.dumps({"body": json.dumps(value)}), EVENTS)
    assert once is not None
    json.loads(json.loads(once)["body"])
    assert redact(once, EVENTS) == once
