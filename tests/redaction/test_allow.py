"""``keys.allow``: of attributes and fields, only those that are listed stay."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import redact_json
from sidecar.redaction.walk_otlp import Outcome, redact_otlp
from tests.redaction.test_engine import engine

NOTHING = {"pattern": "nothing to be found"}
ALLOW = ("http.*", "user.id", "level")


def only(*allow: str, **rule: object):  # type: ignore[no-untyped-def]
    return engine(rule or NOTHING, allow=allow).redactor("logs")


def allowed(value: object, *allow: str) -> tuple[object, Report]:
    report = Report(detailed=True)
    return redact_json(value, only(*allow), report), report


@pytest.mark.parametrize(
    ("value", "allow", "expected"),
    [
        ({"level": "info", "secret": "x"}, ["level"], {"level": "info"}),
        ({"level": 1, "a": None, "b": True, "c": 2.5}, ["level"], {"level": 1}),
        ({"user": {"id": 1, "name": "x"}}, ["user.id"], {"user": {"id": 1}}),
        ({"user": {"name": "x"}, "level": 1}, ["user.id", "level"], {"level": 1}),
        ({"http": {"a": {"b": [1, {"c": 2}]}}}, ["http"], {"http": {"a": {"b": [1, {"c": 2}]}}}),
        ({"a": [{"id": 1, "x": 2}, {"x": 3}]}, ["a.id"], {"a": [{"id": 1}, {}]}),
        ({"a": [1, "x", {"id": 1}]}, ["a.id"], {"a": [{"id": 1}]}),
        ({"a": [["x", {"id": 1}], 2]}, ["id"], {"a": [[{"id": 1}]]}),
        ({"userId": 1, "user_name": 2}, ["user_id"], {"userId": 1}),
        ([{"level": 1, "x": 2}], ["level"], [{"level": 1}]),
        ({"a": {"level": 1}}, ["level"], {"a": {"level": 1}}),
        ({"a": {}, "b": []}, ["level"], {"a": {}, "b": []}),
    ],
)
def test_of_json_only_what_is_listed_stays(
    value: object, allow: list[str], expected: object
) -> None:
    assert allowed(value, *allow)[0] == expected


def test_what_went_is_reported_under_a_rule_of_its_own() -> None:
    _, report = allowed({"level": 1, "secret": "x", "a": {"b": ["y"]}}, "level")
    assert dict(report.counts) == {("secret", "keys.allow"): 1, ("a.b", "keys.allow"): 1}
    assert [(f.rule, f.path) for f in report.findings] == [
        ("keys.allow", "/secret"),
        ("keys.allow", "/a/b/0"),
    ]


def test_what_is_listed_is_redacted_like_any_other() -> None:
    redactor = engine(
        {"pattern": "secret"}, {"keys": ["level"], "action": {"drop": {}}}, allow=("level", "m")
    ).redactor("logs")
    assert redact_json({"m": "a secret", "level": 1, "x": 2}, redactor, Report()) == {
        "m": "a [REDACTED_R0]"
    }


def test_an_empty_list_keeps_all() -> None:
    value = {"a": [{"b": 1}], "c": "x"}
    changed, report = allowed(value)
    assert changed is value
    assert not report


def test_what_is_all_listed_is_the_same_object() -> None:
    value = {"http": {"a": 1}, "level": "x"}
    assert allowed(value, "http", "level")[0] is value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=12,
)


def _names(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _names(item)}
    if not isinstance(value, dict):
        return set()
    leaves = {name for name, item in value.items() if not isinstance(item, dict | list)}
    return leaves.union(*map(_names, value.values()))


@given(st.dictionaries(st.text("abc", max_size=2), VALUES))
def test_no_field_of_another_name_stays(value: dict[str, object]) -> None:
    redacted, _ = allowed(value, "nameless")
    assert _names(redacted) == set()
    again, report = allowed(redacted, "nameless")
    assert again == redacted
    assert not report


def any_value(value: Any) -> AnyValue:
    """Turn a value of Python into one of OTLP."""
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    return AnyValue(string_value=value)


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in values.items()]


def in_python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return named(value.kvlist_value.values)
    if kind == "array_value":
        return [in_python(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def named(found: Any) -> dict[str, Any]:
    return {item.key: in_python(item.value) for item in found}


GIVEN = {
    "level": 3,
    "secret": "x",
    "user": {"id": "u1", "name": "Bob"},
    "list": ["x", 1, True, b"x"],
    "rows": [{"level": 1, "x": 2}],
    "raw": b"x",
}
LEFT = {"level": 3, "user": {"id": "u1"}, "rows": [{"level": 1}]}


def walk(request: Any, *allow: str) -> Outcome:
    return redact_otlp(request, only(*(allow or ALLOW)))


def test_attributes_of_everything_in_traces() -> None:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    scope = resource.scope_spans.add()
    span = scope.spans.add(name="GET /", trace_id=b"t" * 16)
    holders: list[Any] = [
        resource.resource,
        scope.scope,
        span,
        span.events.add(name="e"),
        span.links.add(),
    ]
    for holder in holders:
        holder.attributes.extend(attributes(GIVEN))
    outcome = walk(request)
    for holder in holders:
        assert named(holder.attributes) == LEFT, type(holder)
    # What is no attribute stays.
    assert (span.name, span.events[0].name, span.trace_id) == ("GET /", "e", b"t" * 16)
    assert (outcome.kept, outcome.changed) == (1, 1)
    assert {rule for _, rule in outcome.report.counts} == {"keys.allow"}
    assert outcome.report.counts["secret", "keys.allow"] == len(holders)
    assert outcome.report.counts["user.name", "keys.allow"] == len(holders)


def test_attributes_of_everything_in_metrics() -> None:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    points: list[Any] = [
        metrics.add(name="a").gauge.data_points.add(as_int=1),
        metrics.add(name="b").sum.data_points.add(as_double=1.5),
        metrics.add(name="c").histogram.data_points.add(count=1),
        metrics.add(name="d").exponential_histogram.data_points.add(count=1),
        metrics.add(name="e").summary.data_points.add(count=1),
    ]
    exemplars = [point.exemplars.add(as_int=1) for point in points[:4]]
    for point in points:
        point.attributes.extend(attributes(GIVEN))
    for exemplar in exemplars:
        exemplar.filtered_attributes.extend(attributes(GIVEN))
    assert walk(request).kept == 5
    for point in points:
        assert named(point.attributes) == LEFT, type(point)
    for exemplar in exemplars:
        assert named(exemplar.filtered_attributes) == LEFT
    assert [metric.name for metric in metrics] == list("abcde")


def body(value: Any, *allow: str) -> Any:
    """Return what is left of the body of a log record."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.CopyFrom(any_value(value))
    record.attributes.extend(attributes(GIVEN))
    assert walk(request, *allow).kept == 1
    if not allow:
        assert named(record.attributes) == LEFT
    return in_python(record.body)


@pytest.mark.parametrize("value", ["a line", 7, True, b"bytes", ["a", "list", 1], [], ["a", ["b"]]])
def test_bodies_without_fields_stay(value: object) -> None:
    assert body(value) == value


def test_of_a_structured_body_only_what_is_listed_stays() -> None:
    assert body({"level": 3, "m": "x", "user": {"id": 1, "name": "x"}}, "*.level", "*.user.id") == {
        "level": 3,
        "user": {"id": 1},
    }


def test_of_a_body_that_is_a_list_of_maps_only_what_is_listed_stays() -> None:
    rows = [{"level": 1, "m": "secret"}, {"level": 2}, {"m": "secret", "user": {"name": "secret"}}]
    left = body(rows)
    assert "secret" not in repr(left)
    assert [row.get("level") for row in left][:2] == [1, 2]


def test_an_empty_list_keeps_all_in_otlp() -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(body=any_value(GIVEN))
    record.attributes.extend(attributes(GIVEN))
    before = request.SerializeToString()
    outcome = redact_otlp(request, only())
    assert request.SerializeToString() == before
    assert (outcome.kept, outcome.changed) == (1, 0)


def test_what_is_all_listed_is_left_as_it_is() -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(body=any_value("line"))
    record.attributes.extend(attributes(GIVEN))
    before = request.SerializeToString()
    outcome = walk(request, *GIVEN)
    assert request.SerializeToString() == before
    assert outcome.changed == 0
