"""The rules for one signal over one value at a time.

Of a value, first the rules by key are asked. A string that no such rule takes may hold JSON, or
text in base64; what is inside is redacted as what it is. Then comes all that finds something in
text: one look over it tells the lines that need more (`sidecar.redaction.scanner`), and these are
read in every encoding (`sidecar.redaction.views`) until a pass finds nothing more: so what comes
out would come out of a second run as it is.

A redactor knows strings and numbers, not where they stand: the walkers do. Its only state is what
it remembers of keys, in steps that threads may take at the same time. A value it cannot make
stable raises, and the walker drops the record.
"""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from copy import copy
from itertools import accumulate
from typing import Any

import msgspec
import re2

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.base64_text import as_base64
from sidecar.redaction.compiled import KeyRule, Siblings, as_text, compile_key_rule
from sidecar.redaction.detectors.base import Span
from sidecar.redaction.keys import MAX_KEY, KeyMatcher
from sidecar.redaction.memo import Memo
from sidecar.redaction.patterns import options
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Keys, Rule
from sidecar.redaction.scanner import Finder, Found, Near, Scanner
from sidecar.redaction.together import Together
from sidecar.redaction.views import View, escapes, may_be_encoded, percent_encode, views
from sidecar.redaction.walk_json import holds_json, json_edits, quote_bare

# What findings say of fields that the folder does not allow; no rule can be called so.
NOT_ALLOWED = "keys.allow"
# JSON in a string in JSON, base64 of base64: so deep is looked into strings.
_MAX_LEVELS = 8
# Values that touch each other are freed one by one.
_MAX_PASSES = 256
# A placeholder is longer than what it replaces, but not by this much.
_MAX_GROWTH = 32
_MAX_PLANS = 4096
# Values that are remembered, and the most characters of one with its key.
_MAX_KNOWN, _MAX_KNOWN_LENGTH = 1024, 256
# Of numbers, these may be a card.
_LEAST_CARD = 10**14
_CARD_LIKE = re.compile(r"-?[0-9]{15,16}")
# What is left alone at an ignored key: a span id, a trace id, a UUID. Anything else is looked at.
_ID = re.compile(
    r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
)


# Before a place in the authority of a URL.
_AUTHORITY = re.compile(r"://[^\s/?#\"'<>]*\Z")
_LONGEST_HOST = 512


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
    rule: Rule | None = None

    def begin(self) -> int:
        return self.start


class _Unit(msgspec.Struct):
    """One line of a text, or several that a value spans.

    Attributes:
        start: where it stands in the text.
        text: as it is now.
        found: what is to be changed in it.
        length: it had at first.
        trail: what was changed.
    """

    start: int
    text: str
    found: list[Found]
    length: int = 0
    trail: list[list[_Edit]] = []

    def __post_init__(self) -> None:
        self.length = len(self.text)


class _Plan(msgspec.Struct, frozen=True):
    """What is to be done at one key; the same for every value there."""

    ignored: bool
    allowed: bool
    exempt: bool
    key_rules: tuple[KeyRule, ...]
    skipped: frozenset[int]
    near: dict[int, Near]
    asked: tuple[str, ...]


class _Known(msgspec.Struct, frozen=True):
    """What a string at a key came to, and what there was to be said of it.

    What did not change is not kept twice.
    """

    same: bool
    changed: str | None
    report: Report | None


# A key, a text there, and what stands beside it as far as that counts.
Place = tuple[str | None, ...]
_NOTHING_FOUND = _Known(same=True, changed=None, report=None)


class _Where(msgspec.Struct):
    """Where a text stands, and what is to be said of it.

    ``origin`` is where all findings are said to be, ``in_url`` whether what is written is to be
    percent-encoded; ``trail`` has what was changed already.
    """

    plan: _Plan
    key: str
    report: Report
    pointer: str
    in_url: bool = False
    origin: Span | None = None
    trail: "list[list[_Edit]]" = []


class Redactor:
    """The rules for one signal, compiled.

    Args:
        rules: those that hold for the signal, in file order.
        scanner: looks for what those with ``find`` or ``pattern`` find.
        keys: for the folder as a whole.
        hash_key: of rules that hash.
        written: a pattern for what any rule of the folder writes, which is not looked at again.
        auditor: the rules whose findings are counted, while nothing is changed.

    Attributes:
        restricted: whether fields that are not listed are removed; see `allows`.
        plain_names: some names of which `name` is known to say nothing.
        asked: keys of attributes that say what becomes of others beside them.

    Raises:
        re2.error: a pattern cannot be compiled.
        MissingHashKeyError: a rule hashes and there is no key.
    """

    def __init__(
        self,
        rules: list[Rule],
        scanner: Scanner,
        keys: Keys,
        hash_key: bytes,
        written: str,
        auditor: "Redactor | None" = None,
    ) -> None:
        self._auditor = auditor
        self.restricted = bool(keys.allow)
        self._allow = KeyMatcher(keys.allow)
        self._exempt = KeyMatcher([])
        self._ignore = KeyMatcher(keys.ignore)
        self._written = re2.compile(written, options())
        self._key_rules = [
            compile_key_rule(rule, hash_key) for rule in rules if rule.keys is not None
        ]
        self._scanner = scanner
        self._together = Together(scanner)
        self._integers = [finder for finder in scanner.finders if finder.integers]
        self.asked = frozenset(key for rule in self._key_rules for key in rule.rule.when)
        if auditor is not None:
            self.asked |= auditor.asked
        self._level = 0
        self._met_exempt = False
        self._known: Memo[Place, _Known] | None = Memo(_MAX_KNOWN)
        self._plans: dict[str, _Plan] = {}
        self._clean_names: set[str] = set()
        self.plain_names: Set[str] = self._clean_names if auditor is None else frozenset()

    def exempting(self, globs: list[str]) -> "Redactor":
        """Return the same rules, which leave alone what stands at some keys and within it.

        What lies within a key is told by its dotted name: the glob ``user`` exempts the field
        ``name`` of an object ``user``, and an attribute ``user.name``. Names of fields are
        redacted there as anywhere.

        Args:
            globs: of keys, as those of rules. An empty list exempts nothing.
        """
        exempting = copy(self)
        exempting._exempt = KeyMatcher(globs)
        exempting._plans = {}
        exempting._known = Memo(_MAX_KNOWN)
        if self._auditor is not None:
            exempting._auditor = self._auditor.exempting(globs)
        return exempting

    def allows(self, key: str) -> bool:
        """Tell whether the field or attribute of this name stays, with all that is in it."""
        return self._plan(key).allowed

    def removed(self, key: str, report: Report, pointer: str = "") -> None:
        """Note that a field or attribute is removed because it is not allowed."""
        report.add(NOT_ALLOWED, key, 0, 0, pointer)

    def name(self, name: str, report: Report, pointer: str = "") -> str:
        """Redact the name of an attribute or field; the same object when nothing was found."""
        if self._auditor is not None:
            self._auditor.audit(Redactor.name, name, report, pointer)
        if name in self._clean_names:
            return name
        changed = self._text(name, _Where(self._plan(""), "", report, pointer))
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
        if self._known is None or report.detailed:
            return self._string(text, key, report, siblings, pointer)
        known = self._known.get((key, text))
        if known is _NOTHING_FOUND:
            return text
        if known is None:
            known = self._find_out(text, key, report, siblings)
        if known.report is not None:
            report.merge(known.report)
        return text if known.same else known.changed

    def _find_out(self, text: str, key: str, report: Report, siblings: Siblings) -> _Known:
        """Return what a string at a key comes to, and remember it."""
        assert self._known is not None, "who looks into a string remembers nothing"
        place: Place = (key, text)
        if asked := self.asked_at(key):
            place = (key, text, *(as_text(siblings.get(name)) for name in asked))
            known = self._known.get(place)
            if known is not None:
                return known
        noted = Report()
        try:
            changed = self._string(text, key, noted, siblings, "")
        except DropRecordError:
            report.merge(noted)
            raise
        said = noted if noted.counts or noted.audited else None
        if changed is text:
            known = _NOTHING_FOUND if said is None else _Known(True, None, said)
        else:
            known = _Known(False, changed, said)
        if len(key) + len(text) <= _MAX_KNOWN_LENGTH:
            self._known.put(place, known)
        return known

    def _string(
        self, text: str, key: str, report: Report, siblings: Siblings, pointer: str
    ) -> str | None:
        plan = self._plan(key)
        if plan.exempt:
            self._met_exempt = True
            return text
        if self._auditor is not None:
            self._auditor.audit(Redactor.string, text, key, report, siblings, pointer)
        if not text or (plan.ignored and _ID.fullmatch(text)):
            return text
        rule = self._key_rule(plan, siblings, text)
        where = _Where(plan, key, report, pointer)
        if rule is None:
            return self._content(text, where)
        changed = self._by_key(rule, text, key, report, pointer)
        if changed is None:
            return None
        if rule.rule.action.replace is not None:
            return changed
        where.in_url = rule.rule.action.sanitize == "url"
        where.origin = (0, len(text)) if changed != text else None
        return self._text(changed, where)

    def asked_at(self, key: str) -> tuple[str, ...]:
        """Return the keys of attributes that say what becomes of one at this key."""
        return self._plan(key).asked

    def clean_among(self, places: Iterable[Place]) -> set[Place]:
        """Tell in one look in which of many strings nothing is found.

        Args:
            places: a key, as `string` takes it, a text there, and the values (`as_text`) of the
                attributes beside it that `asked_at` names for the key; each once.

        Returns:
            Some of them: `string` returns each text as it is and reports nothing.
        """
        memo = self._known
        assert memo is not None, "who looks into a string remembers nothing"
        clean: set[Place] = set()
        simple: list[tuple[Place, str]] = []
        for place in places:
            known = memo.get(place)
            if known is _NOTHING_FOUND:
                clean.add(place)
            elif known is None:
                key, text, *beside = place
                assert key is not None and text is not None
                if self._is_simple(key, text, beside):
                    simple.append((place, text))
        for redactor in (self, self._auditor):
            if redactor is not None and simple:
                holding = redactor._together.holding([text for _, text in simple])
                if holding is None:
                    return clean
                simple = [one for at, one in enumerate(simple) if at not in holding]
        for place, text in simple:
            clean.add(place)
            if len(place[0] or "") + len(text) <= _MAX_KNOWN_LENGTH:
                memo.put(place, _NOTHING_FOUND)
        return clean

    def leaves_number(self, value: float, key: str) -> bool:
        """Tell, by a quick look, whether `number` leaves a value as it is and reports nothing."""
        return (
            -_LEAST_CARD < value < _LEAST_CARD
            and not self._plan(key).key_rules
            and (self._auditor is None or self._auditor.leaves_number(value, key))
        )

    def _is_simple(self, key: str, text: str, beside: list[str | None]) -> bool:
        """Tell whether only finders may take something of a text at a key."""
        plan = self._plan(key)
        if plan.exempt or plan.near or may_be_encoded(text):
            return False
        if self._auditor is not None and (
            # It may ask for other attributes.
            plan.asked or not self._auditor._is_simple(key, text, [])
        ):
            return False
        rule = self._key_rule(plan, dict(zip(plan.asked, beside, strict=True)), text)
        if rule is None:
            return not holds_json(text) and as_base64(text) is None
        return rule.rule.action.sanitize is not None and (
            rule.change is not None and rule.change(text) == text
        )

    def number(
        self, value: float, key: str, report: Report, siblings: Siblings, pointer: str = ""
    ) -> float | str | None:
        """Redact one number or boolean: the same, a string in its place, or None when it goes."""
        plan = self._plan(key)
        if plan.exempt:
            self._met_exempt = True
            return value
        if self._auditor is not None:
            self._auditor.audit(Redactor.number, value, key, report, siblings, pointer)
        if not plan.key_rules and -_LEAST_CARD < value < _LEAST_CARD:
            return value
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
            if finder.order not in plan.skipped:
                for start, end in finder.all(text.encode(), finder.near):
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
        plan = self._plan(key)
        if plan.exempt:
            return True
        if self._auditor is not None:
            self._auditor.audit(Redactor.container, key, report, siblings, pointer)
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
            within = accumulate(key.split("."), "{}.{}".format)
            exempt = bool(key) and any(map(self._exempt, within))
            plan = self._plans[key] = _Plan(
                bool(key) and self._ignore(key),
                exempt or not self.restricted or self._allow(key),
                exempt,
                tuple(rule for rule in self._key_rules if rule.matches(key)) if key else (),
                frozenset(f.order for f in self._scanner.finders if key and f.not_at(key)),
                self._near(key),
                self._asked_at(key),
            )
        return plan

    def _asked_at(self, key: str) -> tuple[str, ...]:
        """Return the keys of the attributes that say what becomes of one at this key."""
        asked = {
            name for rule in self._key_rules if key and rule.matches(key) for name in rule.rule.when
        }
        if self._auditor is not None:
            asked.update(self._auditor._asked_at(key))
        return tuple(asked)

    def _near(self, key: str) -> dict[int, Near]:
        """Return, by finder, the words that a text at this key must still have near a value.

        Those of which the key has none are left out: they are all to be near, as everywhere.
        """
        still = {}
        for index, finder in enumerate(self._scanner.finders):
            words = tuple(words for words in finder.near if not (key and words.in_key(key)))
            if len(words) < len(finder.near):
                still[index] = words
        return still

    @staticmethod
    def _key_rule(plan: _Plan, siblings: Siblings, text: str) -> KeyRule | None:
        for rule in plan.key_rules:
            if rule.applies(siblings, text):
                return rule
        return None

    def _content(self, text: str, where: "_Where") -> str:
        """Redact what a string holds as what it is, and then its text."""
        if self._level == _MAX_LEVELS:
            return self._text(text, where)
        if holds_json(text):
            return self._json(text, where)
        if (encoded := as_base64(text)) is not None:
            inner = self._inner()
            noted = Report(detailed=where.report.detailed)
            plain = inner._content(encoded.plain, _Where(where.plan, where.key, noted, ""))
            where.report.within(noted, where.pointer, len(text))
            if plain is not encoded.plain:
                text = encoded.write(plain)
        return self._text(text, where)

    def _json(self, text: str, where: "_Where") -> str:
        """Redact what may be JSON in a string; then what comes out is JSON again."""
        noted = Report(detailed=where.report.detailed)
        inner = self._inner()
        changes = json_edits(text, where.key, inner, noted)
        if changes is None:
            return self._text(text, where)
        where.report.at(noted, where.pointer)
        if changes:
            edits = [_Edit(*change) for change in changes]
            where.trail = [edits]
            text = _apply(text, edits)
        if inner._met_exempt:
            # As text, it would be looked at without its keys.
            self._met_exempt = True
            return text
        # For what only the text around a value tells.
        redacted = self._text(text, where)
        return redacted if redacted is text else quote_bare(redacted, self._written)

    def _inner(self) -> "Redactor":
        """Return this for what stands within a string, of which the auditor knows already."""
        inner = copy(self)
        inner._auditor = None
        inner._known = None
        inner._met_exempt = False
        inner._level += 1
        return inner

    def _text(self, text: str, where: "_Where") -> str:
        """Redact the lines of a text."""
        plan = where.plan
        found = self._scanner(text, plan.skipped, plan.near)
        encoded = may_be_encoded(text)
        if not found and not encoded:
            return text
        if "\n" in text:
            units = [_Unit(*unit) for unit in _units(text, found, encoded)]
        else:
            units = [_Unit(0, text, found)]
        self._settle(units, where)
        pieces: list[str] = []
        last = 0
        for unit in units:
            if unit.trail:
                pieces += (text[last : unit.start], unit.text)
                last = unit.start + unit.length
        if not pieces:
            return text
        pieces.append(text[last:])
        return "".join(pieces)

    def _settle(self, units: list["_Unit"], where: "_Where") -> None:
        """Change what is found in some lines until nothing is."""
        for _ in range(_MAX_PASSES):
            changed = []
            for unit in units:
                try:
                    edits = self._edits(unit.text, unit.found, where)
                except DropRecordError as error:
                    place = where.origin or (0, 0)
                    where.report.add(error.rule_id, where.key, *place, where.pointer)
                    raise
                if edits:
                    self._note(edits, unit, where)
                    unit.trail.append(edits)
                    unit.text = _apply(unit.text, edits)
                    if len(unit.text) > _MAX_GROWTH * unit.length + 4096:
                        raise UnstableError("the rules keep changing what they wrote")
                    changed.append(unit)
            if not changed:
                return
            units = changed
            self._look_again(units, where)
        raise UnstableError("the rules keep changing what they wrote")

    def _note(self, edits: list["_Edit"], unit: "_Unit", where: "_Where") -> None:
        for edit in edits:
            start, end = where.origin or (0, 0)
            if where.origin is None and where.report.detailed:
                start, end = _origin(edit.start, edit.end, unit.trail)
                start, end = _origin(start + unit.start, end + unit.start, where.trail)
            assert edit.rule is not None, "what a rule found"
            where.report.add(edit.rule.id, where.key, start, end, where.pointer)

    def _look_again(self, units: list["_Unit"], where: "_Where") -> None:
        """Look for what is found in lines now, in all of them at once."""
        skipped, near = where.plan.skipped, where.plan.near
        ends = list(accumulate(len(unit.text) + 1 for unit in units))
        for unit in units:
            unit.found = []
        for start, end, finder in self._scanner("\n".join(u.text for u in units), skipped, near):
            index = bisect_right(ends, start)
            begin = ends[index - 1] if index else 0
            if end >= ends[index]:
                # It goes on in lines that stood elsewhere.
                for unit in units:
                    unit.found = self._scanner(unit.text, skipped, near)
                return
            units[index].found.append((start - begin, end - begin, finder))

    def _edits(self, text: str, found: list[Found], where: "_Where") -> list[_Edit]:
        """Return what one pass changes in a text, in order and without overlaps."""
        readings = views(text) if may_be_encoded(text) else [View(text)]
        if not found and len(readings) == 1:
            return []
        matches: list[_Match] = []
        sanitized: list[_Match] = []
        for view in readings:
            values = (
                self._scanner(view.text, where.plan.skipped, where.plan.near)
                if view.depth
                else found
            )
            for start, end, finder in values:
                match = _Match(*view.span(start, end), view, start, end, finder)
                if not finder.rule.action.sanitize:
                    matches.append(match)
                elif not view.depth:
                    # On the text as it is, since a URL with its escapes undone is none.
                    sanitized.append(match)
        if len(readings) > 1:
            decoded = [view for view in readings if view.depth]
            for match in matches:
                match.cut = not all(
                    view.begins_at(match.start) and view.begins_at(match.end) for view in decoded
                )
        # Sanitizers last: what they take out may be the beginning of something to be found.
        return self._resolve(text, matches, where.in_url) or self._resolve(
            text, sanitized, where.in_url
        )

    def _resolve(self, text: str, matches: list[_Match], in_url: bool) -> list[_Edit]:
        """Choose among overlapping matches: leftmost, longest, then in file order."""
        if not matches:
            return []
        written: list[Span] = []
        if "[" in text or "%" in text:  # as all that rules write begins
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
            changed = finder.change(value)
            if changed == value:
                continue
            if in_url and not match.view.depth:
                changed = percent_encode(changed)
            changed = match.view.write(match.view_start, match.view_end, changed)
            if changed[:1] == "[" and _AUTHORITY.search(text, max(0, start - _LONGEST_HOST), start):
                # A host in brackets would have to be an address.
                changed = percent_encode(changed)
                if text[start - 1] == "[" and text[end : end + 1] == "]":
                    start, end = start - 1, end + 1
            edits.insert(place, _Edit(start, end, changed, finder.rule))
        return edits


def _units(text: str, found: list[Found], encoded: bool) -> Iterator[tuple[int, str, list[Found]]]:
    """Yield the lines that need a closer look, together where a value spans them.

    Returns for each its place, itself, and what was found in it, as offsets in it.
    """
    places = [(start, end, (start, end, finder)) for start, end, finder in found]
    spots: list[tuple[int, int, Found | None]] = list(places)
    if encoded:
        spots += [(place, place + 1, None) for place in escapes(text)]
    spots.sort(key=_begin)
    low = high = -1
    within: list[Found] = []
    for start, end, value in spots:
        if start >= high:
            if high >= 0:
                yield low, text[low:high], within
            low, high, within = text.rfind("\n", 0, start) + 1, 0, []
        if end > high:
            line_end = text.find("\n", end)
            high = len(text) if line_end < 0 else line_end
        if value is not None:
            within.append((start - low, end - low, value[2]))
    if high >= 0:
        yield low, text[low:high], within


def _begin(spot: tuple[int, int, Any]) -> int:
    return spot[0]


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
