"""Text without personal data and secrets, of every kind that operators read, stays as it is."""

import pytest

from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Report
from sidecar.redaction.rules import RuleSignal, load_rules
from sidecar.settings import default_rules_dir
from tests.corpora import operational_lines

SHIPPED = Engine(load_rules(default_rules_dir()))


@pytest.mark.parametrize("signal", ["logs", "events"])
def test_no_line_changes(signal: RuleSignal) -> None:
    redactor = SHIPPED.redactor(signal)
    changed = []
    for group, line in operational_lines():
        report = Report(detailed=True)
        result = redactor.string(line, "", report, {})
        if result != line:
            rules = ", ".join(sorted({finding.rule for finding in report.findings}))
            changed.append(f"{rules} ({group}): {line} -> {result}")
    assert changed == [], "\n" + "\n".join(changed)


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    lines = [line for _, line in operational_lines()]
    assert len(lines) >= 500
    assert len(set(lines)) == len(lines)
