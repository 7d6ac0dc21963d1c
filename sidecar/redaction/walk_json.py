"""Redacts JSON values: every string at any depth, keys of objects, numbers where a rule says so."""

from collections import Counter
from typing import Any

from sidecar.redaction.redactor import MAX_KEY, Redactor
from sidecar.redaction.report import Report

MAX_DEPTH = 64


class TooDeepError(Exception):
    """The value is nested deeper than `MAX_DEPTH`."""


def redact_json(value: Any, redactor: Redactor, report: Report) -> Any:
    """Return a decoded JSON value, redacted; the same object when nothing was found.

    Args:
        value: what a JSON decoder returns.
        redactor: the rules for the signal.
        report: takes the findings; pointers are JSON Pointers into ``value`` as it came.

    Raises:
        TooDeepError: nested deeper than 64 levels.
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    changed = _value(value, "", "", {}, redactor, report, 0)
    return None if changed is _GONE else changed


_GONE = object()


def _value(
    value: Any,
    key: str,
    pointer: str,
    siblings: dict[str, Any],
    redactor: Redactor,
    report: Report,
    depth: int,
) -> Any:
    """Return the value redacted, or `_GONE` when a rule drops it."""
    result: Any
    if isinstance(value, str):
        result = redactor.string(value, key, report, siblings, pointer)
    elif isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise TooDeepError
        result = redactor.container(key, report, siblings, pointer)
        if result is True:
            if isinstance(value, dict):
                return _object(value, key, pointer, redactor, report, depth + 1)
            return _array(value, key, pointer, redactor, report, depth + 1)
    elif value is None:
        return None
    else:
        result = redactor.number(value, key, report, siblings, pointer)
    return _GONE if result is None else result


def _object(
    value: dict[str, Any], key: str, pointer: str, redactor: Redactor, report: Report, depth: int
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    numbers: Counter[str] = Counter()
    same = True
    for name, item in value.items():
        inner = ""
        if report.detailed:
            inner = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        shown = redactor.name(name, report, inner)
        inner_key = f"{key}.{shown}"[-MAX_KEY:] if key else shown
        changed = _value(item, inner_key, inner, value, redactor, report, depth)
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
    value: list[Any], key: str, pointer: str, redactor: Redactor, report: Report, depth: int
) -> list[Any]:
    result = [
        _value(
            item, key, f"{pointer}/{index}" if report.detailed else "", {}, redactor, report, depth
        )
        for index, item in enumerate(value)
    ]
    if all(new is old for new, old in zip(result, value, strict=True)):
        return value
    return [item for item in result if item is not _GONE]
