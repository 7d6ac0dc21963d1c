"""The look at many values at once: what it calls clean is clean when it is looked at alone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.commands.clean import MAX_FIELDS, MAX_KNOWN, CleanLook
from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_json import redact_json
from sidecar.settings import default_rules_dir
from tests.commands.streams import BEGIN, END, json_values, texts

SHIPPED = Engine(load_rules(default_rules_dir()))
REDACTOR = SHIPPED.redactor("http")
_TESTS = [(rule, test) for rule in SHIPPED.rules.rules for test in rule.tests]
_from_rules = st.sampled_from(
    sorted({text for _, test in _TESTS for text in (test.in_, test.keep) if text})
)
_keys = st.sampled_from(
    sorted(
        {test.key for _, test in _TESTS}
        | {word for d in DETECTORS.values() for shape in d.shapes for word in shape.near[:1]}
        | {"message", "level", "net.host.ip", "trace_id"}
    )
)
_often = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@_often
@given(st.lists(_from_rules | texts, max_size=12))
def test_lines_that_are_called_clean_are(values: list[str]) -> None:
    unclean = CleanLook(REDACTOR, SHIPPED.rules, audited=True).changes(values)
    for index, value in enumerate(values):
        if index not in unclean:
            report = Report()
            assert REDACTOR.string(value, "", report, {}) is value
            assert not report and not report.audited


@_often
@given(st.lists(_from_rules | texts, max_size=12))
def test_what_becomes_of_lines_is_what_becomes_of_each(values: list[str]) -> None:
    changes = CleanLook(REDACTOR, SHIPPED.rules, audited=False).changes(values)
    for index, changed in changes.items():
        if changed is not None:
            assert changed == REDACTOR.string(values[index], "", Report(), {})


@_often
@given(
    st.lists(
        st.dictionaries(_keys, _from_rules | texts | json_values, min_size=1, max_size=4)
        | json_values,
        max_size=6,
    ),
    st.integers(1, 3),
)
def test_records_that_are_called_clean_are(values: list[Any], rounds: int) -> None:
    look = CleanLook(REDACTOR, SHIPPED.rules, audited=True)
    for _ in range(rounds):  # the later ones know what the first has learnt
        unclean = look.unclean_records(values)
        for index, value in enumerate(values):
            if index not in unclean:
                report = Report()
                assert redact_json(value, REDACTOR, report) is value
                assert not report and not report.audited


def test_clean_values_are_called_clean() -> None:
    look = CleanLook(REDACTOR, SHIPPED.rules, audited=True)
    lines = [
        "2026-11-24T02:25:53+00:00 | INFO | open_webui.main:142 - took 12 ms",
        "déjà vu, 一行",
        "0123456789abcdef0123456789abcdef",
        "6f1f77a0-6f0a-4d3e-a5f1-0c7d2f1c9a11",
        "",
    ]
    assert look.changes(lines) == {}
    records = [{"level": "info", "n": n, "d": {"x": [n / 7, None, True]}} for n in range(50)]
    assert look.unclean_records(records) == set()


def test_what_fills_a_value_is_found_at_its_key() -> None:
    look = CleanLook(REDACTOR, SHIPPED.rules, audited=False)
    records = [{"born": "in the spring"}, {"date of birth": "10/04/1984"}, {"born": "yes"}]
    assert look.unclean_records(records) == {1}


def test_only_what_is_allowed_is_clean(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "version: 1\nrules:\n  - {id: mail, find: email}\nkeys: {allow: [level]}\n"
    )
    engine = Engine(load_rules(tmp_path))
    look = CleanLook(engine.redactor("http"), engine.rules, audited=False)
    assert look.unclean_records([{"other": "value"}]) == {0}


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("{id: x, pattern: '^secret$'}", "secret"),
        (r"{id: x, pattern: '\Asecret'}", "secret of ours"),
        ("{id: x, pattern: '(?m)^secret$'}", "secret"),
        ("{id: x, pattern: 'id=[^,]+', except: {values: ['plain']}}", "id=7"),
        ("{id: x, pattern: 'id=[^,]+', action: {mask: {keep_last: 100}}}", "id=7" + "x" * 100),
        ("{id: x, pattern: '(?s)SELECT.*;', action: {sanitize: sql}}", "SELECT 'a' ;"),
        ("{id: x, find: private-key, except: {values: ['plain']}}", f"{BEGIN}\n{END}"),
        ("{id: x, find: private-key}", f"{BEGIN}\nand so on"),
        ("{id: x, pattern: 'secret', mode: audit}", "a secret"),
        ("{id: x, pattern: 'secret', action: {drop_record: {}}}", "a secret"),
        ("{id: x, pattern: 'number [0-9]+', keywords: [staff]}", "staff number 12"),
    ],
)
def test_rules_of_your_own_are_not_missed(tmp_path: Path, rule: str, line: str) -> None:
    (tmp_path / "rules.yaml").write_text(f"version: 1\nrules:\n  - {rule}\n")
    engine = Engine(load_rules(tmp_path))
    look = CleanLook(engine.redactor("http"), engine.rules, audited=True)
    values = ["id=plain", "nothing", line, "nothing;", "id=plain,"]
    assert 2 in look.changes(values)
    records = [{"a": value} for value in values]
    assert 2 in look.unclean_records(records)


def test_a_key_with_conditions_is_asked_value_by_value(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "version: 1\n"
        "rules:\n"
        "  - {id: x, keys: [db.statement], when: {db.system: redis}, action: {sanitize: redis}}\n"
        "  - {id: y, keys: ['*_name'], except: {values: ['^root$']}}\n"
        "  - {id: z, keys: [port]}\n"
    )
    engine = Engine(load_rules(tmp_path))
    look = CleanLook(engine.redactor("http"), engine.rules, audited=False)
    records = [
        {"db.statement": "GET a:b", "db.system": "other"},
        {"db.statement": "GET user:1", "db.system": "redis"},
        {"user_name": "root"},
        {"user_name": "bob"},
        {"port": 1},
        {"port": {"a": 1}},
    ]
    assert look.unclean_records(records) == {1, 3, 4, 5}


def test_what_it_keeps_in_mind_is_bounded() -> None:
    look = CleanLook(REDACTOR, SHIPPED.rules, audited=False)
    most = 0
    for number in range(0, 3 * MAX_FIELDS, 16):
        names = range(number, number + 16)
        look.unclean_records([{f"f{n}": "pears", "same": f"{n} pears"} for n in names])
        most = max(most, look.remembered)
    assert most < 2 * MAX_FIELDS + MAX_KNOWN + 100
