"""Redacts JSON values: every string at any depth, keys of objects, numbers where a rule says so."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from sidecar.redaction.keys import MAX_KEY
from sidecar.redaction.report import Finding, Report

MAX_DEPTH = 64

# Start, end and what is written there.
Edit = tuple[int, int, str]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
# Names in the order of the text, also those that come again.
_Pairs = list[tuple[str, Any]]
_SCALAR = re.compile(r"true|false|null|NaN|-?Infinity|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Redacts(Protocol):
    """What redacts the parts of a JSON value; see `Redactor`."""

    restricted: bool

    def string(
        self, text: str, key: str, report: Report, siblings: Any, pointer: str = ""
    ) -> str | None:
        """Redact one string; None when it goes."""

    def number(
        self, value: float, key: str, report: Report, siblings: Any, pointer: str = ""
    ) -> float | str | None:
        """Redact one number or boolean; None when it goes."""

    def container(self, key: str, report: Report, siblings: Any, pointer: str) -> str | bool | None:
        """Say what becomes of an object or array; True when it is looked into."""

    def name(self, name: str, report: Report, pointer: str = "") -> str:
        """Redact the name of a field."""

    def allows(self, key: str) -> bool:
        """Tell whether a field stays when only what is allowed does."""

    def removed(self, key: str, report: Report, pointer: str = "") -> None:
        """Note that a field did not stay."""


class TooDeepError(Exception):
    """The value is nested deeper than `MAX_DEPTH`."""


def redact_json(value: Any, redactor: Redacts, report: Report) -> Any:
    """Return a decoded JSON value, redacted; the same object when nothing was found.

    Args:
        value: what a JSON decoder returns.
        redactor: the rules for the signal.
        report: takes the findings; pointers are JSON Pointers into ``value`` as it came.

    Raises:
        TooDeepError: nested deeper than 64 levels.
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    changed = _Walk(redactor, report).value(value, "", "", {}, 0, restricted=redactor.restricted)
    return None if changed is _GONE else changed


def holds_json(text: str) -> bool:
    """Tell, by a quick look, whether a text may be a JSON object or array."""
    text = text.strip(" \t\r\n") if text[:1] in " \t\r\n" or text[-1:] in " \t\r\n" else text
    return len(text) > 1 and text[0] in "{[" and text[-1] in "}]"


def json_edits(text: str, key: str, redactor: Redacts, report: Report) -> list[Edit] | None:
    """Redact a text that may be JSON; return what is to be written into it, in order.

    All else stays as it is written, and JSON stays JSON. None says that it is no object or array.

    Args:
        text: any.
        key: the dotted name of what holds it.
        redactor: the rules for the signal.
        report: takes the findings; when it is detailed they are offsets in ``text``.
    """
    noted = Report(detailed=report.detailed)
    try:
        value = _decode(text)
        if not isinstance(value, dict | list):
            return None
        changed = _Walk(redactor, noted).inside(value, key, "", 1, restricted=False)
    except (ValueError, RecursionError, TooDeepError):
        return None
    if repeats_a_name(text, value):
        edits = [(0, len(text), msgspec.json.encode(changed).decode())]
    elif changed is value:
        edits = []
    else:
        places = _places(text)
        edits = list(_edits(value, changed, "", places))
        for finding in noted.findings if noted.detailed else ():
            start, end = places.get(finding.path, (0, len(text)))
            if text[start] == '"' and "\\" not in text[start:end]:
                start, end = start + 1 + finding.start, start + 1 + finding.end
            report.findings.append(Finding(finding.rule, start, end, ""))
        noted.findings.clear()
    report.merge(noted)
    return edits


def _decode(text: str) -> Any:
    """Decode JSON, and what Python and JavaScript write beyond the standard: NaN, Infinity."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        # Python reads no number of thousands of digits; none of them is looked at.
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 999 else 0)


def _edits(old: Any, new: Any, pointer: str, places: dict[str, tuple[int, int]]) -> Iterator[Edit]:
    """Yield where the text of a value is to be changed."""
    if new is old:
        return
    if isinstance(old, dict) and isinstance(new, dict) and list(old) == list(new):
        for name in old:
            yield from _edits(old[name], new[name], f"{pointer}/{_escaped(name)}", places)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, item in enumerate(old):
            yield from _edits(item, new[index], f"{pointer}/{index}", places)
    else:
        yield (*places[pointer], msgspec.json.encode(new).decode())


def _places(text: str) -> dict[str, tuple[int, int]]:
    """Return where each value stands in JSON, by JSON Pointer."""
    places: dict[str, tuple[int, int]] = {}
    tokens = list(_TOKEN.finditer(text))

    def place(at: int, pointer: str) -> int:
        first = tokens[at]
        is_object = first[0] == "{"
        if is_object or first[0] == "[":
            at += 1
            index = 0
            while tokens[at][0] not in "}]":
                name = str(index)
                if is_object:
                    name = _escaped(msgspec.json.decode(tokens[at][0]))
                    at += 2
                at = place(at, f"{pointer}/{name}")
                at += tokens[at][0] == ","
                index += 1
        places[pointer] = first.start(), tokens[at].end()
        return at + 1

    place(0, "")
    return places


def _escaped(name: str) -> str:
    """Return a name as it stands in a JSON Pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def repeats_a_name(text: str | bytes, value: Any) -> bool:
    """Tell whether an object in JSON has a name twice: of its values a decoder forgets all but one.

    Args:
        text: the JSON.
        value: what it was decoded to.
    """
    quote, escaped = ('"', "\\u0022") if isinstance(text, str) else (b'"', b"\\u0022")
    written = msgspec.json.encode(value)
    if text.count(quote) == written.count(b'"') and escaped not in text:  # type: ignore[arg-type, operator]
        return False
    found = False

    def look(pairs: _Pairs) -> None:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=look, parse_int=float)
    return found


def quote_bare(text: str, written: Any) -> str:
    """Put quotation marks around what was written in place of bare numbers in JSON.

    Args:
        text: JSON, but for such places.
        written: a pattern for what rules write.
    """
    bare = r'[^\s,:\[\]{}"]*'
    token = re.compile(
        rf'"(?:[^"\\]|\\.)*"|{bare}(?:(?:{written.pattern}){bare})+|[^\s,:\[\]{{}}"]+'
    )

    def quoted(match: re.Match[str]) -> str:
        found = match[0]
        same = found[0] == '"' or _SCALAR.fullmatch(found) is not None
        return found if same else json.dumps(found)

    return token.sub(quoted, text)


_GONE = object()


class _Walk:
    """Goes through one value; ``restricted`` says that only fields which are allowed stay."""

    def __init__(self, redactor: Redacts, report: Report) -> None:
        self._redactor = redactor
        self._report = report

    def value(
        self,
        value: Any,
        key: str,
        pointer: str,
        siblings: dict[str, Any],
        depth: int,
        *,
        restricted: bool,
    ) -> Any:
        """Return a value redacted, or `_GONE` when it is to go."""
        redactor, report = self._redactor, self._report
        result: Any
        if isinstance(value, str):
            result = redactor.string(value, key, report, siblings, pointer)
        elif isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                raise TooDeepError
            result = redactor.container(key, report, siblings, pointer)
            if result is True:
                return self.inside(value, key, pointer, depth + 1, restricted=restricted)
        elif value is None:
            return None
        else:
            result = redactor.number(value, key, report, siblings, pointer)
        return _GONE if result is None else result

    def inside(self, value: Any, key: str, pointer: str, depth: int, *, restricted: bool) -> Any:
        """Return an object or array, with what is in it redacted."""
        into = self._object if isinstance(value, dict) else self._array
        return into(value, key, pointer, depth, restricted)

    def _object(
        self, value: dict[str, Any], key: str, pointer: str, depth: int, restricted: bool
    ) -> dict[str, Any]:
        redactor, report = self._redactor, self._report
        result: dict[str, Any] = {}
        numbers: Counter[str] = Counter()
        same = True
        for name, item in value.items():
            inner = ""
            if report.detailed:
                inner = f"{pointer}/{_escaped(name)}"
            shown = redactor.name(name, report, inner)
            inner_key = f"{key}.{shown}"[-MAX_KEY:] if key else shown
            within = restricted and not redactor.allows(inner_key)
            if within and not isinstance(item, dict | list):
                redactor.removed(inner_key, report, inner)
                same = False
                continue
            changed = self.value(item, inner_key, inner, value, depth, restricted=within)
            if within and item and not changed:
                # Nothing in it is allowed.
                changed = _GONE
            same = same and changed is item and shown is name
            if changed is _GONE:
                continue
            free = shown
            while free in result:
                # Two keys read the same once they are redacted.
                numbers[shown] += 1
                free = f"{shown}#{numbers[shown] + 1}"
            result[free] = changed
        return value if same else result

    def _array(
        self, value: list[Any], key: str, pointer: str, depth: int, restricted: bool
    ) -> list[Any]:
        result = []
        for index, item in enumerate(value):
            inner = f"{pointer}/{index}" if self._report.detailed else ""
            if restricted and key and not isinstance(item, dict | list):
                self._redactor.removed(key, self._report, inner)
                result.append(_GONE)
                continue
            result.append(self.value(item, key, inner, {}, depth, restricted=restricted))
        if all(new is old for new, old in zip(result, value, strict=True)):
            return value
        return [item for item in result if item is not _GONE]
