"""Many texts looked at together come to what each comes to alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Report
from tests.captured import captures, flat
from tests.redaction.test_engine import SHIPPED, engine

PIECES = st.sampled_from(
    [
        *("", "plain", "ada@example.com", "4111 1111 1111 1111", "457-55-5462", "+1 415 555 2671"),
        *(
            "employee",
            "id",
            "E-1234567",
            "\n",
            " ",
            "phone",
            "été",
            "203.0.113.7",
            "token=abcdef12",
        ),
        *("http://a.example/x", "?q=1", "https://u:p@b.example/"),
        *("c%20alice%40example.com", "[1]", "YWRhQGV4YW1wbGUuY29t", "-----BEGIN PRIVATE KEY-----"),
    ]
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)
KEYS = st.sampled_from(["note", "phone", "db.statement", "user.password", "url.full"])
RULES = (
    {"pattern": "E-[0-9]{7}", "keywords": ["employee id"]},
    {"find": "email"},
    {"find": "us-ssn", "mode": "audit"},
    {"keys": ["secret"]},
    {"keys": ["url.full"], "action": {"sanitize": "url"}},
)
WHOLE = {"pattern": r"\A[a-z]+\z"}


def unchanged(compiled: Engine, key: str, text: str) -> bool:
    report = Report()
    changed = compiled.redactor("traces").string(text, key, report, {})
    return changed is text and not report.counts and not report.audited


@pytest.mark.parametrize("compiled", [SHIPPED, engine(*RULES), engine(*RULES, WHOLE)])
@settings(deadline=None, max_examples=150)
@given(strings=st.lists(st.tuples(KEYS, TEXTS), max_size=12))
def test_what_is_called_clean_is(compiled: Engine, strings: list[tuple[str, str]]) -> None:
    fresh = compiled.redactor("traces").exempting([])
    clean = fresh.clean_among(strings)
    for key, text in strings:
        if (key, text) in clean:
            assert unchanged(compiled, key, text), (key, text)


def test_most_of_what_is_clean_is_called_so() -> None:
    strings = list(
        {
            ("note", value): None
            for otlp, body in captures()
            for _, value in flat(otlp.request.FromString(body))
            if isinstance(value, str)
        }
    )
    fresh = SHIPPED.redactor("traces").exempting([])
    clean = fresh.clean_among(strings)
    expected = {place for place in strings if unchanged(SHIPPED, *place)}
    assert clean <= expected
    assert len(clean) > 0.8 * len(expected)


def test_nothing_is_told_where_a_rule_looks_at_whole_values() -> None:
    redactor = engine({"find": "email"}, WHOLE).redactor("traces")
    assert not redactor.clean_among([("note", "plain"), ("note", "1")])
