"""Values that come again come to the same, whatever is remembered of them."""

from typing import Any

import pytest

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.memo import Memo
from sidecar.redaction.report import Report
from tests.redaction.test_engine import engine

EMAIL = "mail ada@example.com now"


def test_what_is_asked_for_stays_and_the_rest_is_forgotten() -> None:
    memo: Memo[int, str] = Memo(10)
    for number in range(100):
        memo.put(number, str(number))
        assert memo.get(0) == "0"
    known = [number for number in range(100) if memo.get(number)]
    assert known[0] == 0
    assert 10 <= len(known) <= 20


def test_a_value_that_comes_again_is_reported_again() -> None:
    redactor = engine({"find": "email"}, {"find": "ipv4", "mode": "audit"}).redactor("traces")
    text = f"{EMAIL} from 203.0.113.7"
    for times in (1, 2, 3):
        report = Report()
        for _ in range(times):
            changed = redactor.string(text, "note", report, {})
            assert changed == "mail [REDACTED_R0] now from 203.0.113.7"
        assert list(report.counts.values()) == [times]
        assert list(report.audited.values()) == [times]
        assert list(report.fields) == ["note"]


def test_a_value_that_stays_is_the_same_object_each_time() -> None:
    redactor = engine({"find": "email"}, {"find": "ipv4", "mode": "audit"}).redactor("traces")
    for text in ("plain", "from 203.0.113.7"):
        for _ in range(3):
            same = text + ""[:0]
            assert redactor.string(same, "note", Report(), {}) is same


def test_where_a_value_stands_counts() -> None:
    redactor = engine({"keys": ["secret"]}, {"find": "email"}).redactor("traces")
    for _ in range(2):
        assert redactor.string("x", "secret", Report(), {}) == "[REDACTED_R0]"
        assert redactor.string("x", "other", Report(), {}) == "x"


@pytest.mark.parametrize("mode", ["enforce", "audit"])
def test_what_stands_beside_it_counts(mode: str) -> None:
    rule = {"keys": ["q"], "when": {"system": "redis"}, "mode": mode}
    redactor = engine(rule).redactor("traces")
    beside: list[tuple[dict[str, Any], bool]] = [
        ({"system": "redis"}, True),
        ({"system": "sqlite"}, False),
        ({}, False),
        ({"system": ["redis"]}, False),
        ({"system": {"redis": 1}, "other": "redis"}, False),
    ]
    for _ in range(2):
        for siblings, found in beside:
            report = Report()
            changed = redactor.string("GET a", "q", report, siblings)
            assert changed == ("[REDACTED_R0]" if found and mode == "enforce" else "GET a")
            assert bool(report.counts or report.audited) is found


def test_details_are_found_out_each_time() -> None:
    redactor = engine({"find": "email"}).redactor("traces")
    redactor.string(EMAIL, "note", Report(), {})
    report = Report(detailed=True)
    redactor.string(EMAIL, "note", report, {}, "/note")
    (finding,) = report.findings
    assert (finding.path, EMAIL[finding.start : finding.end]) == ("/note", "ada@example.com")


def test_a_record_is_dropped_each_time() -> None:
    redactor = engine({"find": "email", "action": {"drop_record": {}}}).redactor("traces")
    for _ in range(2):
        report = Report()
        with pytest.raises(DropRecordError):
            redactor.string(EMAIL, "note", report, {})
        assert report.counts


def test_an_attribute_goes_each_time() -> None:
    redactor = engine({"keys": ["note"], "action": {"drop": {}}}).redactor("traces")
    for _ in range(2):
        assert redactor.string(EMAIL, "note", Report(), {}) is None


def test_what_is_left_alone_at_some_keys_is_not_at_others() -> None:
    redactor = engine({"find": "email"}).redactor("http")
    exempting = redactor.exempting(["user"])
    for _ in range(2):
        assert redactor.string(EMAIL, "user", Report(), {}) != EMAIL
        assert exempting.string(EMAIL, "user", Report(), {}) == EMAIL
        assert exempting.string(EMAIL, "other", Report(), {}) != EMAIL
