"""Tells in one look at many values which of them are clean, and what becomes of the others.

A look costs about as much for a short text as for a hundred, so lines, and the strings at one key
of many JSON records, are looked at joined. That can be, since the engine takes a text line by line
(`sidecar.redaction.patterns`). What it looks at as a whole is left to be redacted alone:

- what may be JSON or base64 from end to end;
- what stands at a key that a rule names, since such rules look at the value as a whole and at what
  stands beside it;
- everything, when a pattern of the folder looks at whole values.

When in doubt a value is not called clean, which costs time and nothing else.
"""

import binascii
import codecs
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import re2

from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.keys import KeyMatcher
from sidecar.redaction.patterns import looks_at_lines
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Rule, Rules
from sidecar.redaction.walk_json import MAX_DEPTH

# A line of its own, which no value holds.
_BETWEEN = "\n\0\n"
# In characters. More at once is no faster, and all of it is gone through again when something is
# found.
_TOGETHER = 16384
# Where a value may be JSON or base64.
_WHOLE_LINE = re2.compile(r"(?m)^[ \t\r]*[\[{]|^data:|^[0-9A-Za-z+/_-]{8,}(?:=|%3[Dd]){0,2}\r?$")
_ONE_WORD = re.compile(r"[0-9A-Za-z+/_-]{8,}(?:=|%3[Dd]){0,2}")
_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")
# Of six digits, a number is nothing that could be found.
_LARGE = 10**6
MAX_FIELDS = 4096
MAX_KNOWN = 1024
_LONGEST_KNOWN = 128
_LONGEST_KEY = 256


class CleanLook:
    """The look, by the rules of a folder.

    Args:
        redactor: the rules for the signal.
        rules: the folder that they are from.
        audited: what is found by rules that change nothing is not clean either.
    """

    def __init__(self, redactor: Redactor, rules: Rules, *, audited: bool) -> None:
        self._redactor = redactor
        self._audited = audited
        self._may_join = all(map(_looks_at_lines, rules.rules))
        self._named = [KeyMatcher(rule.keys) for rule in rules.rules if rule.keys is not None]
        self._root = _Field("", plain=True)
        self._fields = 0
        self._waiting: list[_Field] = []

    @property
    def remembered(self) -> int:
        """How many names of fields, and strings that are clean at them, are kept in mind."""
        fields, count = [self._root], 0
        while fields:
            field = fields.pop()
            fields += field.inner.values()
            count += 1 + len(field.known)
        return count

    def changes(self, values: Sequence[str], key: str = "") -> dict[int, str | None]:
        """Look at values at a key that no rule names.

        Returns:
            For each that is not clean, its index and what becomes of it; None when it is to be
            redacted alone to know that.
        """
        if not self._may_join:
            return dict.fromkeys(range(len(values)))
        changes: dict[int, str | None] = {}
        for start, end in _runs(values):
            run = values[start:end]
            changes.update((start + index, new) for index, new in self._changes(run, key).items())
        return changes

    def _changes(self, values: Sequence[str], key: str) -> dict[int, str | None]:
        joined = _BETWEEN.join(values)
        places: Sequence[int] = range(len(values))
        if not _may_be_joined(joined, len(values)):
            places = [index for index in places if _is_plain(values[index])]
            joined = _BETWEEN.join(values[place] for place in places)
        alone = dict.fromkeys(set(range(len(values))).difference(places))
        report = Report(detailed=self._audited)
        try:
            changed = self._redactor.string(joined, key, report, {})
        except Exception:
            return dict.fromkeys(range(len(values)))
        if report.findings:
            ends = list(accumulate(len(values[place]) + len(_BETWEEN) for place in places))
            for found in report.findings:
                first, last = bisect_right(ends, found.start), bisect_right(ends, found.end)
                alone.update(dict.fromkeys(places[first : last + 1]))
        if changed is joined:
            return alone
        parts = (changed or "").split(_BETWEEN)
        if len(parts) != len(places):
            return dict.fromkeys(range(len(values)))
        different = {i: new for i, new in zip(places, parts, strict=True) if new != values[i]}
        # Who asks for findings is to get them of each value.
        return alone | (dict.fromkeys(different) if self._audited else different)

    def unclean_records(self, values: Sequence[Any]) -> set[int]:
        """Return the indices of the decoded JSON records that may not be clean."""
        if self._fields > MAX_FIELDS:  # names come from outside; most logs have a few dozen
            self._root, self._fields = _Field("", plain=True), 0
        if self._redactor.restricted:  # fields that are not allowed are to go
            return set(range(len(values)))
        report = Report()
        unclean = {i for i, value in enumerate(values) if not self._is_clean(value, i, report)}
        for field in self._waiting:
            found = set(self.changes(field.strings, field.key))
            unclean.update(field.owners[index] for index in found)
            field.remember(found)
        self._waiting.clear()
        return unclean

    def _is_clean(self, value: Any, record: int, report: Report) -> bool:
        try:
            clean = self._walk(value, self._root, {}, record, report, 0)
        except Exception:
            return False
        if report.audited:
            report.audited.clear()
            return clean and not self._audited
        return clean

    def _walk(
        self,
        value: Any,
        field: "_Field",
        siblings: dict[str, Any],
        record: int,
        report: Report,
        depth: int,
    ) -> bool:
        """Tell whether a value is clean, but for the strings that then wait to be looked at."""
        if isinstance(value, str):
            if field.plain:
                field.wait(value, record, self._waiting)
                return True
            return self._redactor.string(value, field.key, report, siblings) is value
        if isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                return False
            redactor = self._redactor
            if not field.plain and redactor.container(field.key, report, siblings, "") is not True:
                return False
            if isinstance(value, dict):
                return self._walk_object(value, field, record, report, depth + 1)
            return all(self._walk(item, field, {}, record, report, depth + 1) for item in value)
        if value is None or (field.plain and -_LARGE < value < _LARGE):
            return True
        return self._redactor.number(value, field.key, report, siblings) is value

    def _walk_object(
        self, value: dict[str, Any], field: "_Field", record: int, report: Report, depth: int
    ) -> bool:
        fields = field.inner
        for name, item in value.items():
            inner = fields.get(name) or self._inner(field, name)
            if inner is None:
                return False
            if inner.plain and type(item) is str:  # as most are
                inner.wait(item, record, self._waiting)
            elif not self._walk(item, inner, value, record, report, depth):
                return False
        return True

    def _inner(self, field: "_Field", name: str) -> "_Field | None":
        """Return what is known of a field of an object; None when its name is not clean."""
        report = Report()
        redactor = self._redactor
        key = f"{field.key}.{name}" if field.key else name
        if len(key) > _LONGEST_KEY:
            return None
        if redactor.name(name, report) is not name or (self._audited and report.audited):
            return None
        plain = not (
            any(named(key) for named in self._named)
            or redactor.container(key, report, {}, "") is not True
            or redactor.number(0, key, report, {}) != 0
        )
        inner = field.inner[name] = _Field(key, plain=plain)
        self._fields += 1
        return inner


class _Field:
    """What is known of the values at one key.

    Attributes:
        key: its dotted name.
        plain: no rule names it.
        inner: the fields of objects at this key, by name.
        known: strings that are clean here.
        strings: those that wait to be looked at, and ``owners`` the records that they are of.
    """

    __slots__ = ("inner", "key", "known", "owners", "plain", "strings")

    def __init__(self, key: str, *, plain: bool) -> None:
        self.key = key
        self.plain = plain
        self.inner: dict[str, _Field] = {}
        self.known: set[str] = set()
        self.strings: list[str] = []
        self.owners: list[int] = []

    def wait(self, text: str, record: int, waiting: "list[_Field]") -> None:
        """Let a string wait, unless it is known to be clean; ``waiting`` takes the field then."""
        if text not in self.known:
            if not self.strings:
                waiting.append(self)
            self.strings.append(text)
            self.owners.append(record)

    def remember(self, unclean: set[int]) -> None:
        """Keep in mind which of the strings that waited are clean."""
        if len(self.known) > MAX_KNOWN:
            self.known.clear()
        for index, text in enumerate(self.strings):
            if len(self.known) > MAX_KNOWN:
                break
            if index not in unclean and len(text) <= _LONGEST_KNOWN:
                self.known.add(text)
        self.strings.clear()
        self.owners.clear()


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for index, value in enumerate(values, 1):
        size += len(value)
        if size >= _TOGETHER:
            yield start, index
            start, size = index, 0
    if start < len(values):
        yield start, len(values)


def _may_be_joined(joined: str, count: int) -> bool:
    """Tell whether none of some values is to be looked at alone."""
    return (
        joined.count("\0") < count
        and (joined.isascii() or _HALF_OF_A_PAIR.search(joined) is None)
        and _WHOLE_LINE.search(joined) is None
    )


def _is_plain(value: str) -> bool:
    """Tell whether a value may be looked at with others."""
    if _ONE_WORD.fullmatch(value):
        return not _is_text_in_base64(value)
    return (
        "\0" not in value
        and (value.isascii() or _HALF_OF_A_PAIR.search(value) is None)
        and not value.lstrip().startswith(("{", "[", "data:"))
    )


def _is_text_in_base64(word: str) -> bool:
    """Tell whether the first bytes are UTF-8: those of ids and digests hardly ever are."""
    head = word[:8]
    if "-" in head or "_" in head:
        head = head.replace("-", "+").replace("_", "/")
    try:
        codecs.utf_8_decode(binascii.a2b_base64(head), "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _looks_at_lines(rule: Rule) -> bool:
    """Tell whether a rule finds in joined values what it finds in each of them.

    What a detector finds over several lines, a private key, does no harm: that it is changed shows.
    """
    if rule.pattern is not None:
        return looks_at_lines(rule.pattern)
    shapes = DETECTORS[rule.find].shapes if rule.find is not None else ()
    return not rule.except_.values or all(shape.lines for shape in shapes)
