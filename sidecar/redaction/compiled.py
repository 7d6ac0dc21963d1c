"""Rules, compiled one by one: what a rule looks for and what it does, ready to run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import re2

from sidecar.redaction.actions import Change, MissingHashKeyError, compile_action, hash_prefix
from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.detectors.base import Detector, Shape
from sidecar.redaction.faults import RulesError
from sidecar.redaction.keys import KeyMatcher
from sidecar.redaction.nearby import nearby
from sidecar.redaction.patterns import (
    NOTHING,
    compile_pattern,
    looks_at_lines,
    matching,
    options,
    searching,
)
from sidecar.redaction.rules import Rule
from sidecar.redaction.scanner import Finder, sought
from sidecar.redaction.slow import is_slow
from sidecar.redaction.validators import validator

Siblings = Mapping[str, Any]

# In bytes, at most and for each pattern. Those of detectors are known, and some hold many words in
# many scripts.
_MEMORY_OF_PATTERNS, _MEMORY_OF_DETECTORS = 8 << 20, 32 << 20


class KeyRule(msgspec.Struct, frozen=True):
    """A rule by key."""

    rule: Rule
    matches: KeyMatcher
    change: Change | None
    excepted: Callable[[bytes], bool] | None

    def applies(self, siblings: Siblings, text: str) -> bool:
        """Tell whether a value is not excepted, and the attributes beside it as ``when`` says."""
        if self.excepted is not None and self.excepted(text.encode()):
            return False
        return all(as_text(siblings.get(key)) == value for key, value in self.rule.when.items())


def check_rule(rule: Rule, place: str, hash_key: bytes) -> None:
    """Raise `RulesError` for what only compiling shows to be wrong with one rule."""
    where = f"{place}: rule '{rule.id}': "
    if rule.find is not None and rule.find not in DETECTORS:
        raise RulesError(f"{where}unknown detector '{rule.find}'; there are {', '.join(DETECTORS)}")
    if rule.validate is not None:
        try:
            validator(rule.validate)
        except ValueError as error:
            raise RulesError(f"{where}{error}") from None
    if not rule.signals:
        raise RulesError(f"{where}signals is empty; leave it out for all of them")
    for pattern in [*([rule.pattern] if rule.pattern else []), *rule.except_.values]:
        try:
            re2.compile(pattern, options())
        except re2.error as error:
            reason = error.args[0] if error.args else error
            reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
            raise RulesError(
                f"{where}the pattern is not RE2 (which has no look-around and no "
                f"back-references): {reason}"
            ) from None
    if rule.pattern is not None and is_slow(rule.pattern):
        raise RulesError(
            f"{where}the pattern takes too long to search for, since its automaton grows with the "
            "text; begin it with two fixed characters or more, or let it repeat less"
        )
    try:
        compile_action(rule, hash_key)
    except MissingHashKeyError:
        raise RulesError(
            f"{where}the action hash needs a key; set SIDECAR_HASH_KEY or SIDECAR_HASH_KEY_FILE"
        ) from None


def as_text(value: Any) -> str | None:
    """Return a value as ``when`` compares it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def written_pattern(rules: list[Rule]) -> str:
    """Return a pattern for what the rules write in brackets, plain or percent-encoded."""
    within = {
        re2.escape(text[1:-1])
        for rule in rules
        for text in (rule.placeholder, getattr(rule.action.replace, "with_", None) or "")
        if text.startswith("[") and text.endswith("]")
    }
    within |= {
        re2.escape(hash_prefix(rule)[1:]) + rf"[0-9a-f]{{{rule.action.hash.length}}}"
        for rule in rules
        if rule.action.hash is not None
    }
    if not within:
        return "$^"
    # The brackets stand there once, and not in each form around each text.
    either = "|".join(sorted(within)).replace(r"\:", "(?:%(?:25)?3A|:)")
    either = either.replace(r"\[", r"(?:%(?:25)?5B|\[)").replace(r"\]", r"(?:%(?:25)?5D|\])")
    return rf"(?:%(?:25)?5B|\[)(?:{either})(?:%(?:25)?5D|\])"


def compile_key_rule(rule: Rule, hash_key: bytes) -> KeyRule:
    """Compile a rule that has ``keys``."""
    return KeyRule(
        rule,
        KeyMatcher(rule.keys or [], rule.except_.keys),
        compile_action(rule, hash_key),
        _any_of(rule.except_.values),
    )


def compile_finders(rule: Rule, order: int, hash_key: bytes) -> Iterator[Finder]:
    """Compile each pattern of a rule that has ``find`` or ``pattern``."""
    change = compile_action(rule, hash_key)
    assert change is not None, "drop goes with keys only"
    if rule.find is not None:
        detector, memory = DETECTORS[rule.find], _MEMORY_OF_DETECTORS
    else:
        assert rule.pattern is not None
        lines = looks_at_lines(rule.pattern)
        shape = Shape(pattern=rule.pattern, lines=lines)
        detector, memory = Detector(name="", shapes=(shape,)), _MEMORY_OF_PATTERNS
    for shape in detector.shapes:
        regexp = compile_pattern(shape.pattern, lines=shape.lines, memory=memory)
        yield Finder(
            rule=rule,
            order=order,
            search=searching(regexp),
            match=matching(regexp),
            group=regexp.groupindex.get("value", 0),
            sought=sought(shape, rule.keywords, detector.name),
            narrow=shape.narrow,
            near=tuple(nearby(tuple(words)) for words in (shape.near, rule.keywords) if words),
            valid=validator(rule.validate) if rule.validate is not None else None,
            integers=detector.integers,
            spares_uuids=detector.spares_uuids,
            change=change,
            excepted=_any_of(rule.except_.values),
            not_at=KeyMatcher(rule.except_.keys),
        )


def _any_of(patterns: list[str]) -> Callable[[bytes], bool] | None:
    if not patterns:
        return None
    together = "|".join(f"(?:{pattern})" for pattern in patterns)
    search = searching(re2.compile(together, options()))
    return lambda text: search(text, 0)[0] != NOTHING
