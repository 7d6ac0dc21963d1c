"""Rules, compiled one by one: what a rule looks for and what it does, ready to run."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import re2

from sidecar.redaction.actions import Change, MissingHashKeyError, compile_action, hash_prefix
from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.detectors.base import Detector, Shape, Span
from sidecar.redaction.first_look import options
from sidecar.redaction.keys import KeyMatcher
from sidecar.redaction.nearby import Nearby
from sidecar.redaction.rules import Rule, RulesError
from sidecar.redaction.validators import validator

Siblings = Mapping[str, Any]

_UUID = re.compile(rb"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")


class KeyRule(msgspec.Struct, frozen=True):
    """A rule by key."""

    rule: Rule
    matches: KeyMatcher
    change: Change | None
    excepted: Callable[[str], bool]

    def applies(self, siblings: Siblings) -> bool:
        """Tell whether the attributes beside a value are as ``when`` says."""
        return all(_as_text(siblings.get(key)) == value for key, value in self.rule.when.items())


class Finder(msgspec.Struct, frozen=True):
    """One pattern of a rule."""

    rule: Rule
    order: int
    regexp: Any
    group: int
    narrow: Callable[[str], Span | None] | None
    near: tuple[Nearby, ...]
    valid: Callable[[str], bool] | None
    integers: bool
    spares_uuids: bool
    change: Change
    excepted: Callable[[str], bool]
    not_at: KeyMatcher

    @property
    def first_look(self) -> str:
        """The pattern that a text must match for a value to be in it."""
        return self.near[0].pattern if self.near else str(self.regexp.pattern)

    def spans(self, data: bytes, near: tuple[Nearby, ...] = ()) -> Iterator[tuple[int, int]]:
        """Yield where values are found in UTF-8 text, as offsets in characters.

        ``near`` are words of `near` that the name of what holds the text has not.
        """
        place = counted = characters = 0
        uuids = [m.span() for m in _UUID.finditer(data)] if self.spares_uuids else []
        while (match := self.regexp.search(data, place)) is not None:
            start, end = match.span(self.group)
            if end <= start:
                place = match.end() + 1
                continue
            if near and not all(words(data, start, end) for words in near):
                place = start + 1
                continue
            found = data[start:end].decode(errors="replace")
            span = (0, len(found)) if self.narrow is None else self.narrow(found)
            if span is not None and not (self.valid is None or self.valid(found[slice(*span)])):
                span = None
            if span is None:
                # Another value may begin inside what only looked like one.
                place = start + 1
                continue
            if any(low < end and start < high for low, high in uuids):
                place = end
                continue
            # Not the end of the match: the character behind a value may stand before the next.
            place = end if span[1] == len(found) else start + len(found[: span[1]].encode())
            characters += len(data[counted:start].decode(errors="replace"))
            counted = start
            yield characters + span[0], characters + span[1]


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
    try:
        compile_action(rule, hash_key)
    except MissingHashKeyError:
        raise RulesError(
            f"{where}the action hash needs a key; set SIDECAR_HASH_KEY or SIDECAR_HASH_KEY_FILE"
        ) from None


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def written_pattern(rules: list[Rule]) -> str:
    """Return a pattern for what the rules write in brackets, plain or percent-encoded."""
    plain = {
        re2.escape(text)
        for rule in rules
        for text in (rule.placeholder, getattr(rule.action.replace, "with_", None) or "")
        if text.startswith("[") and text.endswith("]")
    }
    plain |= {
        re2.escape(hash_prefix(rule)) + rf"[0-9a-f]{{{rule.action.hash.length}}}\]"
        for rule in rules
        if rule.action.hash is not None
    }
    encoded = {
        text.replace(r"\[", bracket).replace(r"\]", end).replace(r"\:", colon)
        for text in plain
        for bracket, end, colon in (("%5B", "%5D", "%3A"), ("%255B", "%255D", "%253A"))
    }
    return "|".join(sorted(plain | encoded)) or "$^"


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
        detector = DETECTORS[rule.find]
    else:
        assert rule.pattern is not None
        detector = Detector(name="", shapes=(Shape(pattern=rule.pattern),))
    for shape in detector.shapes:
        regexp = re2.compile(shape.pattern, options())
        yield Finder(
            rule,
            order,
            regexp,
            regexp.groupindex.get("value", 0),
            shape.narrow,
            tuple(Nearby(words) for words in (shape.near, rule.keywords) if words),
            validator(rule.validate) if rule.validate is not None else None,
            detector.integers,
            detector.spares_uuids,
            change,
            _any_of(rule.except_.values),
            KeyMatcher(rule.except_.keys),
        )


def _any_of(patterns: list[str]) -> Callable[[str], bool]:
    if not patterns:
        return lambda _: False
    compiled = [re2.compile(pattern, options()) for pattern in patterns]
    return lambda text: any(pattern.search(text) for pattern in compiled)
