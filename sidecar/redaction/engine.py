"""All rules of a folder, compiled for every signal and tried on their own tests."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import re2

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.compiled import check_rule, written_pattern
from sidecar.redaction.redactor import Redactor, UnstableError
from sidecar.redaction.report import Report
from sidecar.redaction.rules import RULE_SIGNALS, Rules, RulesError, RuleSignal, read_rules


class Engine:
    """All rules of a folder, compiled for every signal.

    Raises:
        RulesError: a rule names an unknown detector, has a faulty pattern, needs a key that is
            not set, or fails one of its own tests.
    """

    def __init__(self, rules: Rules, hash_key: bytes = b"", *, run_tests: bool = True) -> None:
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
        if run_tests:
            for fault in self.failing_tests():
                raise fault

    def redactor(self, signal: RuleSignal) -> Redactor:
        """Return the rules for one signal."""
        return self._redactors[signal]

    def failing_tests(self) -> Iterator[RulesError]:
        """Run the tests that the rules carry; yield what is wrong with each that fails."""
        for rule in self.rules.rules:
            # The tests of a rule that changes nothing say what it would do.
            redactors = self._auditors if rule.mode == "audit" else self._redactors
            redactor = redactors[rule.signals[0]]
            for number, test in enumerate(rule.tests, 1):
                given = test.in_ if test.in_ is not None else test.keep
                expected = test.out if test.out is not None else test.keep
                assert given is not None
                where = f"{self.rules.places[rule.id]}: rule '{rule.id}': test {number}"
                try:
                    result = redactor.string(given, test.key, Report(), rule.when)
                except (DropRecordError, UnstableError) as error:
                    yield RulesError(f"{where} raises {type(error).__name__}: {error}")
                    continue
                if result != expected:
                    yield RulesError(f"{where} gives {result!r}, not {expected!r}")


def check_rules(folder: Path, hash_key: bytes) -> list[str]:
    """Return everything that is wrong with a rules folder, one line for each fault."""
    rules, faults = read_rules(folder)
    sound = []
    for rule in rules.rules:
        try:
            check_rule(rule, rules.places[rule.id], hash_key)
        except RulesError as error:
            faults.append(error)
        else:
            sound.append(rule)
    try:
        engine = Engine(msgspec.structs.replace(rules, rules=sound), hash_key, run_tests=False)
        faults += engine.failing_tests()
    except RulesError as error:
        faults.append(error)
    return [str(fault) for fault in faults]
