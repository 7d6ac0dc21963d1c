"""The captured telemetry of a real Open WebUI, and how to tell whether it leaks."""

import base64
import binascii
import html
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from sidecar.receivers.otlp import OTLP_SIGNALS, OtlpSignal

FOLDER = Path(__file__).parent / "data" / "openwebui-0.12.4"
_SIGNALS = {otlp.signal: otlp for otlp in OTLP_SIGNALS}

# The values of planted.json, those inside its messages apart.
PLANTED = (
    "Alice Johnson",
    "alice.johnson@example.com",
    "bob.smith@corp.example.org",
    "Sup3rSecret!pw",
    "svc-user:Pa55w0rd-Zq",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLWZvci10ZXN0",
    "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb3dEf6hIj9k",
    "457-55-5462",
    "4111 1111 1111 1111",
    "+1 (415) 555-2671",
    "FR7630006000011234567890189",
    "203.0.113.77",
)


def captures() -> Iterator[tuple[OtlpSignal, bytes]]:
    """Yield each captured request: its signal and its protobuf body, in the order sent."""
    for path in sorted(FOLDER.glob("*.pb")):
        yield _SIGNALS[path.stem.partition("-")[2]], path.read_bytes()  # type: ignore[index]


def to_otlp_json(message: Message) -> bytes:
    """Return a request in OTLP/JSON: like protobuf's own JSON, but ids are hexadecimal."""
    document = json_format.MessageToDict(message, use_integers_for_enums=True)
    _ids_to_hex(document)
    return msgspec.json.encode(document)


def _ids_to_hex(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _ids_to_hex(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in {"traceId", "spanId", "parentSpanId"}:
                value[name] = base64.b64decode(item).hex()
            else:
                _ids_to_hex(item)


def flat(message: Message, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar of a message with its path; attributes go by their keys."""
    for field, value in message.ListFields():
        repeated = field.is_repeated
        for index, item in enumerate(value if repeated else [value]):
            place = f"{path}.{field.name}" + (f"[{index}]" if repeated else "")
            if isinstance(item, Message):
                if item.DESCRIPTOR.name == "KeyValue":
                    place += f"({item.key})"  # type: ignore[attr-defined]
                yield from flat(item, place)
            else:
                yield place, item


def readings(text: str) -> set[str]:
    """Return the text with every encoding undone that a value might hide in."""
    found = {text}
    for _ in range(3):
        for known in list(found):
            found.add(unquote_plus(known))
            found.add(html.unescape(known))
            found.add(re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), known))
            with suppress(binascii.Error, ValueError):
                found.add(base64.b64decode(known + "=" * (-len(known) % 4), "-_", True).decode())
    return found


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9@]", "", text.lower())


def leaks(message: Message) -> list[tuple[str, str]]:
    """Return (path, planted value) for every planted value that can be read in a message."""
    found = []
    for path, value in flat(message):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for reading in readings(text):
            found += [(path, planted) for planted in PLANTED if _bare(planted) in _bare(reading)]
    return found
