"""All rules of a folder, compiled for every signal and tried on their own tests."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import re2

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.compiled import check_rule, compile_finders, written_pattern
from sidecar.redaction.faults import RulesError
from sidecar.redaction.leads import leads, marks
from sidecar.redaction.redactor import Redactor, UnstableError
from sidecar.redaction.report import Report
from sidecar.redaction.rules import (
    RULE_SIGNALS,
    Rule,
    Rules,
    RuleSignal,
    RuleTest,
    read_rules,
)
from sidecar.redaction.scanner import Scanner


class Engine:
    """All rules of a folder, compiled for every signal.

    Raises:
        RulesError: a rule names an unknown detector, has a faulty pattern, needs a key that is
            not set, or fails one of its own tests.
    """

    def __init__(self, rules: Rules, hash_key: bytes = b"", *, run_tests: bool = True) -> None:
        self.rules = rules
        self._hash_key = hash_key
        self._written = written_pattern(rules.rules)
        self._scanners: dict[tuple[str, ...], Scanner] = {}
        for rule in rules.rules:
            check_rule(rule, rules.places[rule.id], hash_key)
        compiled: dict[tuple[str, ...], tuple[Redactor, Redactor | None]] = {}
        self._redactors: dict[RuleSignal, Redactor] = {}
        self._auditors: dict[RuleSignal, Redactor] = {}
        for signal in RULE_SIGNALS:
            enforced, audited = (
                [rule for rule in rules.rules if signal in rule.signals and rule.mode == mode]
                for mode in ("enforce", "audit")
            )
            # Signals for which the same rules hold share what is compiled.
            ids = (*(rule.id for rule in enforced), "", *(rule.id for rule in audited))
            if ids not in compiled:
                auditor = self._compile(audited) if audited else None
                compiled[ids] = self._compile(enforced, auditor), auditor
            self._redactors[signal], auditor = compiled[ids]
            if auditor is not None:
                self._auditors[signal] = auditor
        # What compiling has remembered is of no use to what runs.
        leads.cache_clear()
        marks.cache_clear()
        re2.purge()
        if run_tests:
            for fault in self.failing_tests():
                raise fault

    def _compile(self, rules: list[Rule], auditor: Redactor | None = None) -> Redactor:
        finding = [(order, rule) for order, rule in enumerate(rules) if rule.keys is None]
        ids = tuple(rule.id for _, rule in finding)
        try:
            if ids not in self._scanners:
                self._scanners[ids] = Scanner(
                    [
                        finder
                        for order, rule in finding
                        for finder in compile_finders(rule, order, self._hash_key)
                    ]
                )
            return Redactor(
                rules, self._scanners[ids], self.rules.keys, self._hash_key, self._written, auditor
            )
        except re2.error as error:
            raise RulesError(f"the rules together need too much memory: {error}") from None

    def redactor(self, signal: RuleSignal) -> Redactor:
        """Return the rules for one signal."""
        return self._redactors[signal]

    def failing_tests(self) -> Iterator[RulesError]:
        """Run the tests that the rules carry; yield what is wrong with each that fails."""
        for rule in self.rules.rules:
            # The tests of a rule that changes nothing say what it would do.
            redactors = self._auditors if rule.mode == "audit" else self._redactors
            # Signals share redactors; one says for all of them what comes out.
            signals: dict[Redactor, RuleSignal] = {}
            for signal in rule.signals:
                signals.setdefault(redactors[signal], signal)
            for number, test in enumerate(rule.tests, 1):
                for redactor, signal in signals.items():
                    # Other rules may come first in other signals: there it must not come out.
                    exact = signal == rule.signals[0]
                    if fault := _failing(redactor, rule, test, exact=exact):
                        place = self.rules.places[rule.id]
                        yield RulesError(
                            f"{place}: rule '{rule.id}': test {number} {fault} ({signal})"
                        )
                        break


def _failing(redactor: Redactor, rule: Rule, test: RuleTest, *, exact: bool) -> str | None:
    """Return what is wrong with what a test gives; None when nothing is."""
    given = test.in_ if test.in_ is not None else test.keep
    expected = test.out if test.out is not None else test.keep
    assert given is not None
    try:
        result = redactor.string(given, test.key, Report(), rule.when)
    except (DropRecordError, UnstableError) as error:
        return f"raises {type(error).__name__}: {error}"
    if exact and result != expected:
        return f"gives {result!r}, not {expected!r}"
    return f"gives {result!r}" if test.in_ is not None and result == given else None


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
