"""All rules of a folder, compiled for every signal and tried on their own tests."""

import re2

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.compiled import check_rule, written_pattern
from sidecar.redaction.redactor import Redactor, UnstableError
from sidecar.redaction.report import Report
from sidecar.redaction.rules import RULE_SIGNALS, Rules, RulesError, RuleSignal


class Engine:
    """All rules of a folder, compiled for every signal.

    Raises:
        RulesError: a rule names an unknown detector, has a faulty pattern, needs a key that is
            not set, or fails one of its own tests.
    """

    def __init__(self, rules: Rules, hash_key: bytes = b"") -> None:
        self.rules = rules
        self._redactors: dict[RuleSignal, Redactor] = {}
        self._auditors: dict[RuleSignal, Redactor] = {}
        compiled: dict[tuple[str, ...], Redactor] = {}
        written = written_pattern(rules.rules)
        for rule in rules.rules:
            check_rule(rule, rules.places[rule.id], hash_key)
        for signal in RULE_SIGNALS:
            for mode, redactors in (("audit", self._auditors), ("enforce", self._redactors)):
                chosen = [r for r in rules.rules if signal in r.signals and r.mode == mode]
                auditor = self._auditors.get(signal) if mode == "enforce" else None
                if mode == "audit" and not chosen:
                    continue
                ids = (*(rule.id for rule in chosen), str(id(auditor)))
                if ids not in compiled:
                    try:
                        compiled[ids] = Redactor(chosen, rules.ignore, hash_key, written, auditor)
                    except re2.error as error:
                        raise RulesError(
                            f"the rules together need too much memory: {error}"
                        ) from None
                redactors[signal] = compiled[ids]
        self._run_tests()

    def redactor(self, signal: RuleSignal) -> Redactor:
        """Return the rules for one signal."""
        return self._redactors[signal]

    def _run_tests(self) -> None:
        for rule in self.rules.rules:
            # The tests of a rule that changes nothing say what it would do.
            redactors = self._auditors if rule.mode == "audit" else self._redactors
            redactor = redactors[rule.signals[0]]
            for number, test in enumerate(rule.tests, 1):
                given = test.in_ if test.in_ is not None else test.keep
                expected = test.out if test.out is not None else test.keep
                assert given is not None
                try:
                    result = redactor.string(given, test.key, Report(), rule.when)
                except (DropRecordError, UnstableError) as error:
                    raise RulesError(
                        f"{self.rules.places[rule.id]}: rule '{rule.id}': test {number} "
                        f"raises {type(error).__name__}: {error}"
                    ) from None
                if result != expected:
                    raise RulesError(
                        f"{self.rules.places[rule.id]}: rule '{rule.id}': test {number} "
                        f"gives {result!r}, not {expected!r}"
                    )
