"""Many texts looked at together come to what each comes to alone."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.compiled import as_text
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Place, Redactor
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
    {"keys": ["db.statement"], "when": {"db.system": "redis"}, "action": {"sanitize": "redis"}},
)
WHOLE = {"pattern": r"\A[a-z]+\z"}


def places(redactor: Redactor, strings: Iterable[tuple[str, str]], system: Any) -> list[Place]:
    """Return strings beside an attribute of this value, as `clean_among` takes them."""
    return [
        (key, text, *(as_text(system) if other == "db.system" else None for other in asked))
        for key, text in dict.fromkeys(strings)
        for asked in (redactor.asked_at(key),)
    ]


def unchanged(compiled: Engine, key: str, text: str, system: Any = None) -> bool:
    report = Report()
    siblings = {} if system is None else {"db.system": system}
    changed = compiled.redactor("traces").string(text, key, report, siblings)
    return changed is text and not report.counts and not report.audited


@pytest.mark.parametrize("compiled", [SHIPPED, engine(*RULES), engine(*RULES, WHOLE)])
@settings(deadline=None, max_examples=150)
@given(
    strings=st.lists(st.tuples(KEYS, TEXTS), max_size=12),
    system=st.sampled_from([None, "redis", "sqlite", 1]),
)
def test_what_is_called_clean_is(
    compiled: Engine, strings: list[tuple[str, str]], system: Any
) -> None:
    fresh = compiled.redactor("traces").exempting([])
    for key, text, *_ in fresh.clean_among(places(fresh, strings, system)):
        assert unchanged(compiled, str(key), str(text), system), (key, text)


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
    clean = {(key, text) for key, text, *_ in fresh.clean_among(places(fresh, strings, None))}
    expected = {place for place in strings if unchanged(SHIPPED, *place)}
    assert clean <= expected
    assert len(clean) > 0.8 * len(expected)


def test_nothing_is_told_where_a_rule_looks_at_whole_values() -> None:
    redactor = engine({"find": "email"}, WHOLE).redactor("traces")
    assert not redactor.clean_among([("note", "plain"), ("note", "1")])
