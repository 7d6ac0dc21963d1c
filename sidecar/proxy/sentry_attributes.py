"""Redacts what Sentry's containers of logs, metrics and spans hold.

https://develop.sentry.dev/sdk/telemetry/logs/#log-envelope-item-payload. Each of their items has
attributes as OTLP has, ``{"user.name": {"value": …, "type": "string"}}``, and as there the key of a
value is the attribute's name alone.
"""

from typing import Any

import msgspec

from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.compiled import Siblings
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.walk_json import TooDeepError, redact_json, repeats_a_name

# What the content type of such an item begins with.
CONTAINER = "application/vnd.sentry.items."


class _Attribute(msgspec.Struct):
    value: Any = None
    type: str | None = None
    unit: str | None = None


class _Item(msgspec.Struct):
    attributes: dict[str, _Attribute] = {}


class _Container(msgspec.Struct):
    items: list[_Item]


def redact_container(payload: bytes, redactor: Redactor, report: Report) -> bytes:
    """Redact the payload of an item of type ``log``, ``trace_metric`` or ``span``.

    Of an attribute, nothing but value, type and unit is passed on.

    Returns:
        The same object when nothing was changed.

    Raises:
        UncheckedError: it is no such container.
        UnstableError, DropRecordError: see `Redactor.string`.
    """
    try:
        document = msgspec.json.decode(payload)
        container = msgspec.convert(document, _Container)
        bare = [
            {name: value for name, value in item.items() if name != "attributes"}
            for item in document["items"]
        ]
        written = redact_json({**document, "items": bare}, redactor, report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TooDeepError):
        raise UncheckedError("An item of the envelope is no container of its kind.") from None
    items = written.get("items")
    if not isinstance(items, list) or len(items) != len(bare):
        raise UncheckedError("The rules take the items of a container away.")
    for item, read in zip(items, container.items, strict=True):
        if read.attributes:
            item["attributes"] = _attributes(read.attributes, redactor, report)
    if written == document and not repeats_a_name(payload, document):
        return payload
    return msgspec.json.encode(written)


def _attributes(
    attributes: dict[str, _Attribute], redactor: Redactor, report: Report
) -> dict[str, Any]:
    siblings = {name: attribute.value for name, attribute in attributes.items()}
    shown: dict[str, Any] = {}
    for name, attribute in attributes.items():
        key = redactor.name(name, report)
        if redactor.restricted and not redactor.allows(key):
            redactor.removed(key, report)
            continue
        value = _value(attribute.value, key, redactor, report, siblings)
        if value is None and attribute.value is not None:
            continue
        became_text = isinstance(value, str) and not isinstance(attribute.value, str)
        shown[key] = {"value": value}
        for member in ("type", "unit"):
            text = getattr(attribute, member)
            if text is not None:
                shown[key][member] = redactor.string(text, "", report, {})
        if became_text:
            shown[key]["type"] = "string"
    return shown


def _value(value: Any, key: str, redactor: Redactor, report: Report, siblings: Siblings) -> Any:
    if isinstance(value, str):
        return redactor.string(value, key, report, siblings)
    if isinstance(value, int | float):
        return redactor.number(value, key, report, siblings)
    return redact_json({key: value}, redactor, report).get(key)
