"""Redacts OTLP messages in place: every string of every signal.

What to look at follows from the protobuf descriptors, so that a string field of a later OTLP
version cannot be forgotten; only what must never change is listed here. Fields that this version
does not know are taken out, since nobody can look into them.

A request as bytes is taken apart at the level of its records, so that only one of them is decoded
at a time: a request of many small spans takes ten times its size when it is decoded, and holds up
all other threads meanwhile.
"""

from collections.abc import Callable, Generator, Iterator
from functools import cache
from itertools import chain
from typing import Any, cast

import msgspec
import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.compiled import Siblings, as_text
from sidecar.redaction.keys import MAX_KEY
from sidecar.redaction.redactor import Place, Redactor
from sidecar.redaction.report import Report

_log = structlog.get_logger(__name__)

# One of these is one record: what is counted, and what is dropped when its redaction fails.
_RECORDS = frozenset(
    "opentelemetry.proto." + name
    for name in (
        "trace.v1.Span",
        "logs.v1.LogRecord",
        "metrics.v1.NumberDataPoint",
        "metrics.v1.HistogramDataPoint",
        "metrics.v1.ExponentialHistogramDataPoint",
        "metrics.v1.SummaryDataPoint",
    )
)
# More is not decoded at once: of many empty records each takes a hundred times its size.
_WHOLE_BYTES = 384 * 1024
# So many records or metrics, or bytes of them, are looked at together, and decoded at a time.
_TOGETHER, _TOGETHER_BYTES = 64, 64 * 1024
_KEY_VALUE = "opentelemetry.proto.common.v1.KeyValue"
_ANY_VALUE = "opentelemetry.proto.common.v1.AnyValue"
# Names that other systems look things up by.
_NEVER = frozenset({"opentelemetry.proto.metrics.v1.Metric.name"})


class Outcome(msgspec.Struct):
    """What a walk came to, in records.

    Attributes:
        kept: records that go on.
        changed: of these, how many a rule changed.
        failed: records that were taken out because their redaction failed.
        dropped: records that a rule took out.
        report: all findings.
    """

    kept: int = 0
    changed: int = 0
    failed: int = 0
    dropped: int = 0
    report: Report = msgspec.field(default_factory=Report)


def redact_otlp(request: Message, redactor: Redactor) -> Outcome:
    """Redact an ``Export*ServiceRequest`` in place.

    What fails to be redacted is taken out of the message: a record, or all records of a resource
    or scope whose own attributes fail.

    Args:
        request: the decoded message.
        redactor: the rules for its signal.
    """
    request.DiscardUnknownFields()
    outcome = Outcome()
    _Walk(redactor, outcome).children(request)
    return outcome


def redact_encoded(
    kind: type[Message], body: bytes, redactor: Redactor
) -> Generator[None, None, tuple[bytes, Outcome]]:
    """Redact an encoded ``Export*ServiceRequest`` as `redact_otlp` does, record by record.

    Args:
        kind: of the request.
        body: the encoded message.
        redactor: the rules for its signal.

    Yields:
        After each record that needs more than a quick look, and after 64 of the others.

    Returns:
        The redacted message, encoded, and what came of it.

    Raises:
        DecodeError: the body is no such message.
    """
    outcome = Outcome()
    whole = kind.FromString(body) if len(body) <= _WHOLE_BYTES else None
    walk = _EncodedWalk(_Walk(redactor, outcome), body, kind)
    yield from walk.children(0, len(body), (), whole)
    return bytes(walk.written), outcome


class _Field(msgspec.Struct, frozen=True):
    name: str
    key: str
    repeated: bool
    has_records: bool
    is_record: bool


class _Shape(msgspec.Struct, frozen=True):
    """What there is to look at in one message type."""

    texts: tuple[_Field, ...]
    attributes: tuple[_Field, ...]
    values: tuple[_Field, ...]
    messages: tuple[_Field, ...]


@cache
def _has_records(descriptor: Descriptor) -> bool:
    return descriptor.full_name in _RECORDS or any(
        _has_records(field.message_type)
        for field in descriptor.fields
        if field.message_type is not None
        and field.message_type.full_name not in {_ANY_VALUE, _KEY_VALUE}
    )


@cache
def _shape(descriptor: Descriptor) -> _Shape:
    texts, attributes, values, messages = [], [], [], []
    for field in descriptor.fields:
        inner = field.message_type
        row = _Field(
            field.name,
            f"{descriptor.name}.{field.name}".lower(),
            bool(field.is_repeated),
            inner is not None
            and inner.full_name not in {_ANY_VALUE, _KEY_VALUE}
            and _has_records(inner),
            inner is not None and inner.full_name in _RECORDS,
        )
        if inner is None:
            if field.type == FieldDescriptor.TYPE_STRING and field.full_name not in _NEVER:
                texts.append(row)
        elif inner.full_name == _KEY_VALUE:
            attributes.append(row)
        elif inner.full_name == _ANY_VALUE:
            values.append(row)
        else:
            messages.append(row)
    return _Shape(tuple(texts), tuple(attributes), tuple(values), tuple(messages))


class _Walk:
    def __init__(self, redactor: Redactor, outcome: Outcome) -> None:
        self._redactor = redactor
        self._outcome = outcome
        self._report = Report()
        # Keys and texts in which nothing is found.
        self._clean: set[Place] = set()
        self._asked_at: dict[str, tuple[str, ...]] = {}

    def look_ahead(self, messages: list[Message]) -> list[bool]:
        """Look at the strings of some messages at once, which are to be redacted then.

        Returns:
            Of each message whether its redaction would come to nothing. That may be so of others,
            too, of which it cannot be told so quickly.
        """
        strings: list[list[Place]] = [[] for _ in messages]
        plain = [
            self._survey(message, found) for message, found in zip(messages, strings, strict=True)
        ]
        self._clean = self._redactor.clean_among(dict.fromkeys(chain.from_iterable(strings)))
        return [
            one and self._clean.issuperset(found) for one, found in zip(plain, strings, strict=True)
        ]

    def _survey(self, message: Message, strings: list[Place]) -> bool:
        """Note the strings of a message, and where they stand; tell whether nothing else is in it.

        Nothing else that a rule could take, that is. Then all its strings are noted.
        """
        shape = _shape(message.DESCRIPTOR)
        plain = not self._redactor.restricted
        for field in shape.texts:
            text = getattr(message, field.name)
            if field.repeated:
                strings.extend((field.key, item) for item in text)
            elif text:
                strings.append((field.key, text))
        for field in shape.attributes:
            if attributes := getattr(message, field.name):
                plain = self._survey_attributes(attributes, strings) and plain
        for field in shape.values:
            value = getattr(message, field.name)
            if text := value.string_value:
                strings.append((field.key, text))
            else:
                plain = plain and value.WhichOneof("value") in _EMPTY
        for field in shape.messages:
            if field.repeated:
                for inner in getattr(message, field.name):
                    plain = self._survey(inner, strings) and plain
            elif message.HasField(field.name):
                plain = self._survey(getattr(message, field.name), strings) and plain
        return plain

    def _survey_attributes(self, attributes: Any, strings: list[Place]) -> bool:
        redactor, asked_at = self._redactor, self._asked_at
        plain_names, plain = redactor.plain_names, True
        names = [item.key for item in attributes]
        siblings = self._siblings(names, attributes)
        for name, item in zip(names, attributes, strict=True):
            if name not in plain_names:
                plain = False
            value = item.value
            if text := value.string_value:
                key = name[-MAX_KEY:]
                asked = asked_at.get(key)
                if asked is None:
                    asked = asked_at[key] = redactor.asked_at(key)
                if asked:
                    beside = (as_text(siblings.get(other)) for other in asked)
                    strings.append((key, text, *beside))
                else:
                    strings.append((key, text))
            elif plain:
                kind = value.WhichOneof("value")
                plain = kind in _EMPTY or (
                    kind in _NUMBERS and redactor.leaves_number(getattr(value, kind), name)
                )
        return plain

    def _siblings(self, names: list[str], attributes: Any) -> Siblings:
        """Return those of some attributes that say what becomes of others."""
        asked = self._redactor.asked
        if asked.isdisjoint(names):
            return {}
        return {
            name: _scalar(item.value)
            for name, item in zip(names, attributes, strict=True)
            if name in asked
        }

    def children(self, message: Message) -> None:
        """Redact what holds records, and then the records in it."""
        shape = _shape(message.DESCRIPTOR)
        for field in shape.messages:
            if not field.has_records:
                continue
            if not field.repeated:
                if message.HasField(field.name):
                    inner = getattr(message, field.name)
                    if self.own(inner):
                        self.children(inner)
                    else:
                        message.ClearField(field.name)
                continue
            items = getattr(message, field.name)
            gone = []
            for index, item in enumerate(items):
                if item.DESCRIPTOR.full_name in _RECORDS:
                    if not self.record(item):
                        gone.append(index)
                elif self.own(item):
                    self.children(item)
                else:
                    gone.append(index)
            for index in reversed(gone):
                del items[index]

    def record(self, record: Message) -> bool:
        """Redact one record; tell whether it may go on."""
        try:
            self._message(record, self._report)
        except DropRecordError:
            self._outcome.dropped += 1
            self._note()
            return False
        except Exception as error:
            # Fails closed. The error's text may hold a piece of the record.
            _log.error("record_not_redacted", error=type(error).__name__)
            self._outcome.failed += 1
            self._report = Report()
            return False
        self._outcome.kept += 1
        self._outcome.changed += bool(self._report)
        self._note()
        return True

    def pass_on(self, record: Message) -> None:
        """Count what is a record, or holds some, in which nothing is to be found."""
        self._outcome.kept += count_records(record)

    def own(self, holder: Message, whole: Callable[[], Message] | None = None) -> bool:
        """Redact what a resource, scope or metric says itself; tell whether it may go on.

        ``whole`` returns it with its records, where it stands without them.
        """
        try:
            self._message(holder, self._report)
        except DropRecordError:
            self._outcome.dropped += count_records(whole() if whole else holder)
            self._note()
            return False
        except Exception as error:
            _log.error("resource_not_redacted", error=type(error).__name__)
            self._outcome.failed += count_records(whole() if whole else holder)
            self._report = Report()
            return False
        self._note()
        return True

    def _note(self) -> None:
        """Add what was found in one message to the whole; mostly it is nothing."""
        if self._report.counts or self._report.audited:
            self._outcome.report.merge(self._report)
            self._report = Report()

    def _message(self, message: Message, report: Report) -> None:
        """Redact the strings of one message and of all in it that hold no records."""
        shape = _shape(message.DESCRIPTOR)
        for field in shape.texts:
            self._text(message, field, report)
        for field in shape.attributes:
            if attributes := getattr(message, field.name):
                self._attributes(attributes, "", report, self._redactor.restricted)
        for field in shape.values:
            if message.HasField(field.name):
                value = getattr(message, field.name)
                # A body is no attribute, but the fields of a structured one are.
                restricted = self._redactor.restricted and _is_structured(value)
                if not self._value(value, field.key, {}, report, restricted):
                    message.ClearField(field.name)
        for field in shape.messages:
            if field.has_records:
                continue
            if field.repeated:
                for item in getattr(message, field.name):
                    self._message(item, report)
            elif message.HasField(field.name):
                self._message(getattr(message, field.name), report)

    def _text(self, message: Message, field: _Field, report: Report) -> None:
        text = getattr(message, field.name)
        if not field.repeated:
            if text and (field.key, text) not in self._clean:
                changed = self._redactor.string(text, field.key, report, {})
                if changed is not text:
                    setattr(message, field.name, changed or "")
            return
        for index, item in enumerate(text):
            changed = self._redactor.string(item, field.key, report, {})
            if changed is not item:
                text[index] = changed or ""

    def _attributes(self, attributes: Any, prefix: str, report: Report, restricted: bool) -> None:
        """Redact attributes; ``restricted`` says that only those which are allowed stay."""
        redactor = self._redactor
        names = [item.key for item in attributes]
        siblings = self._siblings(names, attributes)
        clean, plain_names = self._clean, redactor.plain_names
        gone = []
        for index, (name, item) in enumerate(zip(names, attributes, strict=True)):
            shown = name
            if name not in plain_names:
                shown = redactor.name(name, report)
                if shown is not name:
                    item.key = shown
            key = f"{prefix}.{shown}"[-MAX_KEY:] if prefix else shown
            value = item.value
            if not restricted and (text := value.string_value):
                # Most values are text that stays, so this is not left to what knows all kinds.
                if (key, text) in clean:
                    continue
                changed = redactor.string(text, key, report, siblings)
                if changed is None:
                    gone.append(index)
                elif changed is not text:
                    value.string_value = changed
                continue
            within = restricted and not redactor.allows(key)
            if not self._value(value, key, siblings, report, within):
                gone.append(index)
        for index in reversed(gone):
            del attributes[index]

    def _value(
        self, value: Any, key: str, siblings: Siblings, report: Report, restricted: bool
    ) -> bool:
        """Redact one AnyValue at a key; tell whether it stays.

        ``restricted`` says that the key is not allowed, and that only what is allowed within stays.
        """
        kind = value.WhichOneof("value")
        redactor = self._redactor
        if restricted and kind not in {"array_value", "kvlist_value"}:
            redactor.removed(key, report)
            return False
        if kind == "string_value":
            text = value.string_value
            changed: Any = redactor.string(text, key, report, siblings)
            if changed is not None and changed is not text:
                value.string_value = changed
        elif kind in {"int_value", "double_value", "bool_value"}:
            number = getattr(value, kind)
            changed = redactor.number(number, key, report, siblings)
            if isinstance(changed, str):
                value.string_value = changed
        elif kind == "bytes_value":
            return self._bytes(value, key, siblings, report)
        elif kind in {"array_value", "kvlist_value"}:
            changed = redactor.container(key, report, siblings, "")
            if isinstance(changed, str):
                value.string_value = changed
            elif changed:
                self._items(value, cast(str, kind), key, siblings, report, restricted)
                # Nothing in it was allowed.
                return not restricted or bool(getattr(value, cast(str, kind)).values)
        elif kind in {None, "string_value_strindex"}:  # nothing, or a number
            return True
        else:
            raise ValueError("an attribute of a kind that this version does not know")
        return changed is not None

    def _items(
        self,
        value: Any,
        kind: str,
        key: str,
        siblings: Siblings,
        report: Report,
        restricted: bool,
    ) -> None:
        if kind == "kvlist_value":
            self._attributes(value.kvlist_value.values, key, report, restricted)
            return
        items = value.array_value.values
        gone = [
            index
            for index, item in enumerate(items)
            if not self._value(item, key, siblings, report, restricted)
        ]
        for index in reversed(gone):
            del items[index]

    def _bytes(self, value: Any, key: str, siblings: Siblings, report: Report) -> bool:
        raw = value.bytes_value
        coding = "utf-8"
        try:
            text = raw.decode(coding)
        except UnicodeDecodeError:
            # Every byte is a character of it, so what is ASCII within is found as well.
            coding = "latin-1"
            text = raw.decode(coding)
        changed = self._redactor.string(text, key, report, siblings)
        if changed is not None and changed is not text:
            value.bytes_value = changed.encode(coding, errors="replace")
        return changed is not None


class _Level(msgspec.Struct, frozen=True):
    """A repeated field that holds records, or is one: resources, scopes, and spans or metrics."""

    name: str
    number: int
    tag: bytes
    descriptor: Descriptor
    is_record: bool
    is_split: bool


@cache
def _level(descriptor: Descriptor) -> _Level | None:
    """Return the one repeated field that leads to the records of a message, if that is how."""
    leading = [field for field in _shape(descriptor).messages if field.has_records]
    if len(leading) != 1 or not leading[0].repeated:
        return None
    field = descriptor.fields_by_name[leading[0].name]
    inner = field.message_type
    assert inner is not None, "it has records"
    return _Level(
        name=field.name,
        number=field.number,
        tag=_varint(field.number << 3 | _LENGTH_DELIMITED),
        descriptor=inner,
        is_record=inner.full_name in _RECORDS,
        is_split=_level(inner) is not None,
    )


class _EncodedWalk:
    """A walk over bytes.

    Args:
        walk: over what is decoded.
        body: an encoded request.
        root: its kind.

    Attributes:
        written: what was redacted so far, encoded.
    """

    def __init__(self, walk: _Walk, body: bytes, root: type[Message]) -> None:
        self._walk = walk
        self._body = body
        self._root = root
        self.written = bytearray()

    def children(
        self, place: int, end: int, path: tuple[_Level, ...], decoded: Message | None
    ) -> Generator[None, None, None]:
        """Redact what leads to records in a part of the request, and write it.

        Args:
            place, end: of the part.
            path: what it stands in.
            decoded: the part, where the whole request is decoded.
        """
        level = self._next_level(path)
        path = (*path, level)
        items = iter(getattr(decoded, level.name) if decoded is not None else ())
        leaves: list[Message] = []
        size = 0
        for number, wire_type, _, value, stop in _fields(self._body, place, end):
            if number != level.number or wire_type != _LENGTH_DELIMITED:
                continue
            item = next(items, None)
            if level.is_split:
                begin = len(self.written)
                if (yield from self._holder(value, stop, path, item)):
                    self._begin_field(begin, level)
                continue
            if item is None:
                item = self._decode(self._body[value:stop], path)
            leaves.append(item)
            size += stop - value
            if len(leaves) == _TOGETHER or size >= _TOGETHER_BYTES:
                yield from self._leaves(leaves, level)
                leaves.clear()
                size = 0
        yield from self._leaves(leaves, level)

    def _leaves(self, leaves: list[Message], level: _Level) -> Generator[None, None, None]:
        """Redact and write some records or metrics."""
        for message, plain in zip(leaves, self._walk.look_ahead(leaves), strict=True):
            begin = len(self.written)
            message.DiscardUnknownFields()
            if plain:
                self._walk.pass_on(message)
                self.written += message.SerializeToString()
                self._begin_field(begin, level)
            else:
                if self._leaf(message, level):
                    self._begin_field(begin, level)
                yield
        yield

    def _begin_field(self, begin: int, level: _Level) -> None:
        """Put a tag and a length before what was written from a place on."""
        self.written[begin:begin] = level.tag + _varint(len(self.written) - begin)

    def _leaf(self, message: Message, level: _Level) -> bool:
        if level.is_record:
            stays = self._walk.record(message)
        elif stays := self._walk.own(message):
            self._walk.children(message)
        if stays:
            self.written += message.SerializeToString()
        return stays

    def _holder(
        self, place: int, end: int, path: tuple[_Level, ...], decoded: Message | None
    ) -> Generator[None, None, bool]:
        level = self._next_level(path)
        own = bytearray()
        for number, wire_type, start, _, stop in _fields(self._body, place, end):
            if number != level.number or wire_type != _LENGTH_DELIMITED:
                own += self._body[start:stop]
        message = self._decode(own, path)
        message.DiscardUnknownFields()
        if not self._walk.own(message, lambda: self._decode(self._body[place:end], path)):
            return False
        self.written += message.SerializeToString()
        yield from self.children(place, end, path, decoded)
        return True

    def _next_level(self, path: tuple[_Level, ...]) -> _Level:
        level = _level(path[-1].descriptor if path else self._root.DESCRIPTOR)
        assert level is not None, "only what leads to records this way is split"
        return level

    def _decode(self, encoded: bytes | bytearray, path: tuple[_Level, ...]) -> Message:
        """Decode what stands at a path, in the place of a whole request.

        So that it may be nested as deeply as it may be there, and no deeper.
        """
        for level in reversed(path):
            encoded = level.tag + _varint(len(encoded)) + encoded
        message = self._root.FromString(bytes(encoded))
        for level in path:
            message = getattr(message, level.name)[0]
        return message


_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def _fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the fields of an encoded message: number, wire type, place, that of its value, end.

    https://protobuf.dev/programming-guides/encoding/

    Args:
        data: holds the message.
        place, end: of the message in it.

    Raises:
        DecodeError: it is none.
    """
    while place < end:
        start = place
        tag = data[place]
        if tag < 0x80:
            value = place + 1
        else:
            tag, value = _read_varint(data, start, end)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            size = data[value] if value < end else 0x80
            if size < 0x80:
                value += 1
            elif value + 1 < end and (high := data[value + 1]) < 0x80:
                size, value = size & 0x7F | high << 7, value + 2
            else:
                size, value = _read_varint(data, value, end)
            place = value + size
        elif wire_type == _VARINT:
            _, place = _read_varint(data, value, end)
        elif wire_type == _FIXED64:
            place = value + 8
        elif wire_type == _FIXED32:
            place = value + 4
        else:
            raise DecodeError("no field of OTLP has ever been a group")
        if not 0 < tag >> 3 < 2**29 or place > end:
            raise DecodeError("broken field")
        yield tag >> 3, wire_type, start, value, place


def _read_varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Return a number and the place behind it."""
    value = 0
    for index, byte in enumerate(data[place : min(place + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise DecodeError("broken number")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _is_structured(value: Any) -> bool:
    """Tell whether a value has fields of its own."""
    return value.HasField("kvlist_value") or any(
        map(_is_structured, value.array_value.values)  # empty where it is no array
    )


def _scalar(value: Any) -> str | int | float | None:
    """Return a value as ``when`` compares it."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in _SCALARS else None


_NUMBERS = frozenset({"bool_value", "int_value", "double_value"})
_SCALARS = _NUMBERS | {"string_value"}
# A value of these kinds without a text holds nothing; the last is the number of one.
_EMPTY = frozenset({None, "string_value", "string_value_strindex"})


def count_records(message: Message) -> int:
    """Return how many spans, log records or datapoints a message holds."""
    if message.DESCRIPTOR.full_name in _RECORDS:
        return 1
    count = 0
    for field in _shape(message.DESCRIPTOR).messages:
        if field.has_records:
            inner = getattr(message, field.name)
            if field.is_record:
                count += len(inner)
            elif field.repeated:
                count += sum(map(count_records, inner))
            elif message.HasField(field.name):
                count += count_records(inner)
    return count
