"""The rules that ship: each says what goes and what stays, and what it is for."""

import pytest

from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.rules import Rule, load_rules
from sidecar.settings import default_rules_dir

SHIPPED = load_rules(default_rules_dir())
# One comment stands above the rules for statements of all systems.
COMMENTED = [rule for rule in SHIPPED.rules if rule.action.sanitize not in {"sql", "redis"}]
LINES = [
    line
    for path in sorted(default_rules_dir().glob("*.yaml"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
EACH = [pytest.param(rule, id=rule.id) for rule in SHIPPED.rules]


def test_every_detector_has_a_rule() -> None:
    assert {rule.find for rule in SHIPPED.rules if rule.find} == DETECTORS.keys()


@pytest.mark.parametrize("rule", EACH)
def test_a_rule_says_what_goes_and_what_stays(rule: Rule) -> None:
    assert any(test.in_ is not None for test in rule.tests)
    assert any(test.keep is not None for test in rule.tests)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in COMMENTED])
def test_a_comment_tells_the_operator_what_a_rule_is_for(rule: Rule) -> None:
    above = LINES[LINES.index(f"  - id: {rule.id}") - 1]
    assert above.lstrip().startswith("#")
