"""Redacts JSON values: every string at any depth, keys of objects, numbers where a rule says so."""

from typing import Any

from sidecar.redaction.redactor import Redactor
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
            if redactor.ignores(key):
                return value
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
    same = True
    for name, item in value.items():
        inner_key = f"{key}.{name}" if key else name
        inner = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        changed_name = redactor.string(name, "", report, {}, inner) or ""
        changed = _value(item, inner_key, inner, value, redactor, report, depth)
        same = same and changed is item and changed_name is name
        if changed is not _GONE:
            result[_free(changed_name, result)] = changed
    return value if same else result


def _array(
    value: list[Any], key: str, pointer: str, redactor: Redactor, report: Report, depth: int
) -> list[Any]:
    result = [
        _value(item, key, f"{pointer}/{index}", {}, redactor, report, depth)
        for index, item in enumerate(value)
    ]
    if all(new is old for new, old in zip(result, value, strict=True)):
        return value
    return [item for item in result if item is not _GONE]


def _free(name: str, taken: dict[str, Any]) -> str:
    """Return the name, numbered when two keys read the same once they are redacted."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
