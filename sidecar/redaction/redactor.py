"""The rules for one signal over one value at a time.

Of a value, first the rules by key are asked, then the sanitizers, then all that find something
inside text. For the last, one first look says which patterns may match at all; only those are run,
over every reading of the text (`sidecar.redaction.views`), until a pass finds nothing more: so
what comes out would come out of a second run as it is.

A redactor knows strings and numbers, not where they stand: the walkers do. Its only state is what
it remembers of keys, in steps that threads may take at the same time. A value it cannot make
stable raises, and the walker drops the record.
"""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import re2

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.compiled import (
    Finder,
    KeyRule,
    Siblings,
    compile_finders,
    compile_key_rule,
)
from sidecar.redaction.detectors.base import Span
from sidecar.redaction.first_look import FirstLook, options
from sidecar.redaction.keys import KeyMatcher
from sidecar.redaction.nearby import Nearby
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Rule
from sidecar.redaction.views import MARKERS, View, percent_encode, views

# Values that touch each other are freed one by one.
_MAX_PASSES = 256
# A placeholder is longer than what it replaces, but not by this much.
_MAX_GROWTH = 32
_MAX_PLANS = 4096
# Of a longer key only the end is known to rules.
MAX_KEY = 256
# Of numbers, these may be a card.
_CARD_LIKE = re.compile(r"-?[0-9]{15,16}")
# What is left alone at an ignored key: a span id, a trace id, a UUID. Anything else is looked at.
_ID = re.compile(
    r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
)


class UnstableError(Exception):
    """Rules keep changing what they wrote; the value cannot be called redacted."""


class _Match(msgspec.Struct):
    """A value found in one view, with its place in the text itself."""

    start: int
    end: int
    view: View
    view_start: int
    view_end: int
    finder: Finder
    cut: bool = False

    def rank(self) -> tuple[bool, int, int, int, int]:
        # A match that begins or ends within an escape (`%20alice@…` read as `20alice@…`) is a
        # misreading where another view reads the place whole; it counts where none does.
        return self.cut, self.start, -self.end, self.view.depth or sys.maxsize, self.finder.order


class _Edit(msgspec.Struct, frozen=True):
    start: int
    end: int
    text: str
    rule: Rule

    def begin(self) -> int:
        return self.start


class _Plan(msgspec.Struct, frozen=True):
    """What is to be done at one key; the same for every value there."""

    ignored: bool
    key_rules: tuple[KeyRule, ...]
    skipped: frozenset[int]
    near: dict[int, tuple[Nearby, ...]]


class Redactor:
    """The rules for one signal, compiled.

    Args:
        rules: those that hold for the signal, in file order.
        ignore: globs of keys at which ids are left alone.
        hash_key: of rules that hash.
        written: a pattern for what any rule of the folder writes, which is not looked at again.
        auditor: the rules whose findings are counted, while nothing is changed.

    Raises:
        re2.error: a pattern cannot be compiled.
        MissingHashKeyError: a rule hashes and there is no key.
    """

    def __init__(
        self,
        rules: list[Rule],
        ignore: list[str],
        hash_key: bytes,
        written: str,
        auditor: "Redactor | None" = None,
    ) -> None:
        self._auditor = auditor
        self._ignore = KeyMatcher(ignore)
        self._written = re2.compile(written, options())
        self._key_rules = [
            compile_key_rule(rule, hash_key) for rule in rules if rule.keys is not None
        ]
        self._finders = [
            finder
            for order, rule in enumerate(rules)
            if rule.keys is None
            for finder in compile_finders(rule, order, hash_key)
        ]
        self._first_look = FirstLook([finder.first_look for finder in self._finders])
        self._integers = [finder for finder in self._finders if finder.integers]
        self._plans: dict[str, _Plan] = {}
        self._clean_names: set[str] = set()

    def name(self, name: str, report: Report, pointer: str = "") -> str:
        """Redact the name of an attribute or field; the same object when nothing was found."""
        if self._auditor is not None:
            self._auditor.audit(Redactor.name, name, report, pointer)
        if name in self._clean_names:
            return name
        changed = self._scan(name, self._plan(""), "", report, pointer)
        if changed == name and len(name) <= MAX_KEY:
            if len(self._clean_names) >= _MAX_PLANS:
                self._clean_names.clear()
            self._clean_names.add(name)
        return changed

    def string(
        self, text: str, key: str, report: Report, siblings: Siblings, pointer: str = ""
    ) -> str | None:
        """Redact one string.

        Args:
            text: the value.
            key: the dotted name of the attribute or field that holds it, ``""`` for none.
            report: takes the findings.
            siblings: the other attributes beside it, for ``when``.
            pointer: where it stands, for the findings.

        Returns:
            The same object when nothing was found; None when the attribute is to go.

        Raises:
            UnstableError: the rules do not come to an end on it.
            DropRecordError: a rule says that the whole record goes.
        """
        if self._auditor is not None:
            self._auditor.audit(Redactor.string, text, key, report, siblings, pointer)
        plan = self._plan(key)
        if not text or (plan.ignored and _ID.fullmatch(text)):
            return text
        rule = self._key_rule(plan, siblings, text)
        if rule is None:
            return self._scan(text, plan, key, report, pointer)
        changed = self._by_key(rule, text, key, report, pointer)
        if changed is None:
            return None
        if rule.rule.action.replace is not None:
            return changed
        in_url = rule.rule.action.sanitize == "url"
        whole = (0, len(text)) if changed != text else None
        return self._scan(changed, plan, key, report, pointer, in_url=in_url, origin=whole)

    def number(
        self, value: float, key: str, report: Report, siblings: Siblings, pointer: str = ""
    ) -> float | str | None:
        """Redact one number or boolean: the same, a string in its place, or None when it goes."""
        if self._auditor is not None:
            self._auditor.audit(Redactor.number, value, key, report, siblings, pointer)
        plan = self._plan(key)
        # 2**53: from there on, not every number with a fraction of .0 is a whole one.
        whole = isinstance(value, float) and abs(value) < 2**53 and value.is_integer()
        text = str(int(value) if whole else value)
        rule = self._key_rule(plan, siblings, text)
        changed = self._by_key(rule, text, key, report, pointer)
        if changed is None or changed != text:
            return changed
        if plan.ignored or not _CARD_LIKE.fullmatch(text):
            return value
        for finder in self._integers:
            if finder.order not in plan.skipped and not finder.excepted(text):
                for start, end in finder.spans(text.encode()):
                    if end - start == len(text.lstrip("-")):
                        report.add(finder.rule.id, key, 0, len(text), pointer)
                        return finder.change(text)
        return value

    @staticmethod
    def _by_key(
        rule: KeyRule | None, text: str, key: str, report: Report, pointer: str
    ) -> str | None:
        """Do what a rule by key says, and report it when it changes something."""
        if rule is None:
            return text
        changed = None
        try:
            changed = None if rule.change is None else rule.change(text)
        finally:  # a dropped record is reported too
            if changed != text:
                report.add(rule.rule.id, key, 0, len(text), pointer)
        return changed

    def container(
        self, key: str, report: Report, siblings: Siblings, pointer: str
    ) -> str | bool | None:
        """Say what becomes of a list or object at a key.

        Returns:
            True: it stays and is looked into; a string: what stands in its place; None: it goes.
        """
        if self._auditor is not None:
            self._auditor.audit(Redactor.container, key, report, siblings, pointer)
        plan = self._plan(key)
        rule = self._key_rule(plan, siblings, "")
        if rule is None or rule.rule.action.sanitize is not None:
            return True
        report.add(rule.rule.id, key, 0, 0, pointer)
        if rule.change is None:
            return None
        replace = rule.rule.action.replace is not None or rule.rule.action.drop_record is not None
        return rule.change("") if replace else rule.rule.placeholder

    def audit(self, ask: Callable[..., Any], *arguments: Any) -> None:
        """Ask about a value and note what is found; what would become of it is forgotten."""
        noted = [Report(detailed=a.detailed) if isinstance(a, Report) else a for a in arguments]
        # What would drop the record is noted before it says so.
        with suppress(DropRecordError, UnstableError):
            ask(self, *noted)
        for argument, own in zip(arguments, noted, strict=True):
            if isinstance(argument, Report) and own:
                argument.audit(own)

    def _plan(self, key: str) -> _Plan:
        key = key[-MAX_KEY:]
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()  # keys come from outside; most processes know a few hundred
            plan = self._plans[key] = _Plan(
                bool(key) and self._ignore(key),
                tuple(rule for rule in self._key_rules if rule.matches(key)) if key else (),
                frozenset(f.order for f in self._finders if f.not_at(key)) if key else frozenset(),
                self._far(key),
            )
        return plan

    def _far(self, key: str) -> dict[int, tuple[Nearby, ...]]:
        """Return, by finder, the words that a text at this key must still have near a value.

        Those of which the key has none are left out: they are all to be near, as everywhere.
        """
        far = {}
        for index, finder in enumerate(self._finders):
            words = tuple(words for words in finder.near if not (key and words.in_key(key)))
            if len(words) < len(finder.near):
                far[index] = words
        return far

    @staticmethod
    def _key_rule(plan: _Plan, siblings: Siblings, text: str) -> KeyRule | None:
        for rule in plan.key_rules:
            if rule.applies(siblings) and not rule.excepted(text):
                return rule
        return None

    def _scan(
        self,
        text: str,
        plan: _Plan,
        key: str,
        report: Report,
        pointer: str,
        *,
        in_url: bool = False,
        origin: Span | None = None,
    ) -> str:
        """Change what is found until nothing is; ``origin`` is where findings are reported."""
        trail: list[list[_Edit]] = []
        longest = _MAX_GROWTH * len(text) + 4096
        for _ in range(_MAX_PASSES):
            try:
                edits = self._edits(text, plan, in_url)
            except DropRecordError as error:
                report.add(error.rule_id, key, *(origin or (0, 0)), pointer)
                raise
            if not edits:
                return text
            for edit in edits:
                if origin is not None or not report.detailed:
                    start, end = origin or (0, 0)
                else:
                    start, end = _origin(edit.start, edit.end, trail)
                report.add(edit.rule.id, key, start, end, pointer)
            trail.append(edits)
            text = _apply(text, edits)
            if len(text) > longest:
                break
        raise UnstableError("the rules keep changing what they wrote")

    def _edits(self, text: str, plan: _Plan, in_url: bool) -> list[_Edit]:
        """Return what one pass changes in a text, in order and without overlaps."""
        encoded = any(marker in text for marker in MARKERS)
        hits = self._look(text, plan)
        if not hits and not encoded:
            return []
        readings = views(text) if encoded else [View(text)]
        matches: list[_Match] = []
        for view in readings:
            view_hits = hits if not view.depth else self._look(view.text, plan)
            finders = [hit for hit in view_hits if not self._finders[hit].rule.action.sanitize]
            matches += self._matches(view, finders, plan)
        if len(readings) > 1:
            decoded = [view for view in readings if view.depth]
            for match in matches:
                match.cut = not all(
                    view.begins_at(match.start) and view.begins_at(match.end) for view in decoded
                )
        edits = self._resolve(text, matches, in_url)
        if edits:
            return edits
        # Last, since what they take out may be the beginning of something to be found; and on the
        # text as it is, since a URL with its escapes undone is none.
        sanitizers = [hit for hit in hits if self._finders[hit].rule.action.sanitize]
        return self._resolve(text, list(self._matches(View(text), sanitizers, plan)), in_url)

    def _look(self, text: str, plan: _Plan) -> list[int]:
        hits = self._first_look(text)
        return sorted({*hits, *plan.near}) if plan.near else hits

    def _matches(self, view: View, hits: list[int], plan: _Plan) -> Iterator[_Match]:
        if not hits:
            return
        data = view.text.encode()
        for hit in hits:
            finder = self._finders[hit]
            if finder.order not in plan.skipped:
                near = plan.near.get(hit, finder.near)
                for start, end in finder.spans(data, near):
                    yield _Match(*view.span(start, end), view, start, end, finder)

    def _resolve(self, text: str, matches: list[_Match], in_url: bool) -> list[_Edit]:
        """Choose among overlapping matches: leftmost, longest, then in file order."""
        if not matches:
            return []
        written = [match.span() for match in self._written.finditer(text)]
        edits: list[_Edit] = []
        for match in sorted(matches, key=_Match.rank):
            start, end, finder = match.start, match.end, match.finder
            place = bisect_left(edits, end, key=_Edit.begin)
            if place and edits[place - 1].end > start:
                continue
            before = bisect_right(written, (start, sys.maxsize)) - 1
            if before >= 0 and end <= written[before][1]:
                continue
            value = match.view.text[match.view_start : match.view_end]
            changed = value if finder.excepted(value) else finder.change(value)
            if changed == value:
                continue
            if in_url and not match.view.depth:
                changed = percent_encode(changed)
            changed = match.view.write(match.view_start, match.view_end, changed)
            edits.insert(place, _Edit(start, end, changed, finder.rule))
        return edits


def _apply(text: str, edits: list[_Edit]) -> str:
    pieces: list[str] = []
    last = 0
    for edit in edits:
        pieces += (text[last : edit.start], edit.text)
        last = edit.end
    pieces.append(text[last:])
    return "".join(pieces)


def _origin(start: int, end: int, trail: list[list[_Edit]]) -> Span:
    """Return where a place of the present text stood before all edits of the trail."""
    for edits in reversed(trail):
        start, end = _before(start, edits, behind=False), _before(end, edits, behind=True)
    return start, end


def _before(place: int, edits: list[_Edit], *, behind: bool) -> int:
    shift = 0
    for edit in edits:
        new_start = edit.start + shift
        new_end = new_start + len(edit.text)
        if place < new_end or (behind and place == new_end):
            if place <= new_start:
                break
            return edit.end if behind else edit.start
        shift += len(edit.text) - (edit.end - edit.start)
    return place - shift
