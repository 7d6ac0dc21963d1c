r"""Where in an encoded OTLP message a rule may find something: by searches of its bytes.

Most records hold nothing that a rule finds. To decode them and look at each string takes many times
what it takes to search the bytes as they came for the windows (`sidecar.redaction.relax`) of all
rules. What is found by that is only a place near which to look closer.

In an encoded message (https://protobuf.dev/programming-guides/encoding/) a string stands in one
piece, as UTF-8, behind its field's tag and its length. So what stands before its first character
is a byte that may read as any ASCII character, or one of more; behind its last comes the tag of
another field, or the end. What tags mean is asked of values that are no text alone: numbers, bytes
and lists of keys and values. Fields that this version does not know are looked at as all others.
"""

import re
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache

import re2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.redaction.actions import Change
from sidecar.redaction.base64_text import as_base64
from sidecar.redaction.compiled import KeyRule
from sidecar.redaction.detectors.base import Span
from sidecar.redaction.keys import fold
from sidecar.redaction.nearby import Nearby
from sidecar.redaction.patterns import NOTHING, Search, Spans, matching, searching
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.relax import (
    BEGIN,
    OTHER_CASES,
    TAGS,
    Node,
    Window,
    bits,
    char,
    either,
    literal,
    repeat,
    seq,
    window,
    write,
)
from sidecar.redaction.sanitize.sql import sanitize_sql
from sidecar.redaction.sanitize.url import sanitize_url
from sidecar.redaction.scanner import Finder
from sidecar.redaction.views import _LOOKALIKES, _NO_WIDTH

# In bytes; where it is too little for the automaton, it is built anew and anew.
_MEMORY = 8 << 20
# A window that is likelier than this, as a logarithm, would be found in most records.
_ANYWHERE = -1.0

_LENGTH = r"[\x80-\xff]*[\x00-\x7f]"
# What a word must stand behind: what is no letter, or the length of the text.
_WORD_BEGIN = rf"(?:[^A-Za-z]|[{TAGS}][A-Za-z]|[\x80-\xff][\x00-\x7f]?[A-Za-z])"
# What must stand behind it: no small letter but what may be a tag, or the end.
_NO_TAGS = "".join(chr(code) for code in range(97, 123) if code & 7 not in {0, 1, 2, 5})
_WORD_END = rf"(?:[^{_NO_TAGS}]|\z)"
_NAME_END = (
    "(?:["
    + "".join(f"\\x{code:02x}" for code in range(128) if code & 7 in {0, 1, 2, 5})
    + r"\x80-\xff]|\z)"
)


def _tag(byte: int) -> str:
    """Return a pattern for a tag, also where it is written longer than need be."""
    return rf"(?:\x{byte:02x}|\x{byte | 0x80:02x}\x80*\x00)"


_STRING, _BYTES, _LIST = _tag(0x0A), _tag(0x3A), _tag(0x32)
# A list of keys and values that is not empty: dotted names are made of the keys above and in it.
_KEYS_AND_VALUES = rf"{_LIST}{_LENGTH}{_STRING}{_LENGTH}[\x0a\x12\x8a\x92]"
# The one field of a value. What is no UTF-8 in it is read byte by byte.
_BYTES_VALUE = (
    r"(?:[\x0a\x12\x2a]|[\x80-\xff][\x00-\x7f])(?:"
    + "|".join(rf"\x{size + 2:02x}\x3a\x{size:02x}" for size in range(126))
    + rf"|[\x80-\xff]+[\x00-\x7f]{_BYTES}|[\x00-\x7f](?:\x3a[\x80-\xff]|\xba\x80*\x00))"
)
# Whole numbers of 15 and 16 digits, also below zero, and doubles from 2**46 to 2**53.
_CARD_NUMBERS = (
    rf"{_tag(0x18)}(?:[\x80-\xff]{{6}}[\x16-\x7f]|[\x80-\xff]{{7,9}}[\x00-\x7f])"
    rf"|{_tag(0x21)}[\x00-\xff]{{6}}(?:[\xd0-\xff][\x42\xc2]|[\x00-\x3f][\x43\xc3])"
)
_JSON = rf"{BEGIN}[ \t\r\n]*(?:\{{[ \t\r\n]*\"|\[[ \t\r\n]*[\"0-9{{\[tfnNI-])"


def _options() -> "re2.Options":
    chosen = re2.Options()
    chosen.encoding = re2.Options.Encoding.LATIN1
    chosen.log_errors = False
    chosen.max_mem = _MEMORY
    return chosen


def _characters() -> Iterator[str]:
    """Yield what looks like ASCII, or takes no room."""
    yield from _LOOKALIKES
    for low, high in re.findall("(.)(?:-(.))?", _NO_WIDTH, re.DOTALL):
        yield from map(chr, range(ord(low), ord(high or low) + 1))


def _any_character(characters: Iterable[str]) -> str:
    """Return a pattern for the UTF-8 of some characters."""
    by_start: dict[bytes, list[int]] = {}
    for encoded in sorted(character.encode() for character in characters):
        by_start.setdefault(encoded[:-1], []).append(encoded[-1])
    return "|".join(
        f"{''.join(map(_byte, start))}[{''.join(map(_byte, ends))}]"
        for start, ends in by_start.items()
    )


def _byte(byte: int) -> str:
    return f"\\x{byte:02x}"


_ALIKE = _any_character(_characters())
# A word of so many letters may stand in another.
_LONG_WORD = 6
# In characters of patterns, how long one is and how many are searched for together.
_LONG, _MOST_TOGETHER = 1_000, 60_000
_ENDLESS = re.compile(r",\}|\{0,(?:[1-9][0-9])\}")
_LONG_RUN = re.compile(r"\[[^\]]{30,}\]\)\{(?:1[6-9]|[2-9][0-9]),?\}")
# So many characters of a name are rare enough.
_TELLING = 10
# What does not count in names.
_IGNORED = r"[_\-\t-\r\x1c-\x20\x80-\xff]*"
# A URL in which nothing is a value. What sanitizes SQL takes most of it for something else.
# What the sanitizers leave as it is, most of the time: a URL without a query, SQL without literals.
_PLAIN_URL = rb"https?://[a-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-zA-Z0-9._~/-]*)?\z"
_PLAIN_SQL = (
    rb"(?i:SELECT|INSERT|UPDATE|DELETE)"
    rb"(?:[ ,.=()*<>]+(?:[A-Za-z_][A-Za-z0-9_]*|\$[0-9]{1,5}))*[ ,.=()*<>]*\z"
)
_PLAIN: dict[Change, Search] = {
    sanitize_url: matching(re2.compile(_PLAIN_URL, _options())),
    sanitize_sql: matching(re2.compile(_PLAIN_SQL, _options())),
}
# Any escape that `sidecar.redaction.views` undoes.
_ESCAPES = (
    r"%[0-9A-Fa-f]{2}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[\"\\/bfnrt]"
    r"|&(?:#[0-9xX]|[a-zA-Z][a-zA-Z0-9]{1,30};)|[0-9A-Za-z)]\+[0-9A-Za-z(]"
)


class RawLook:
    """Where in an encoded OTLP message a rule may find something.

    Args:
        redactor: the rules for a signal.

    Attributes:
        everything: whether nothing can be told from the bytes: then all is to be decoded.

    Raises:
        re2.error: the windows together need too much memory.
    """

    def __init__(self, redactor: Redactor) -> None:
        asked = [one for one in (redactor, redactor._auditor) if one is not None]
        self.everything = any(one.restricted for one in asked)
        try:
            windows = _Windows(
                [rule for one in asked for rule in one._key_rules],
                [finder for one in asked for finder in one._scanner.finders],
            )
        except _AnywhereError:
            self.everything = True
        if self.everything:
            return
        # What counts digits has many states; together, they would have as many times as many.
        groups = [
            windows.of_forms,
            windows.of_values,
            *_packed(windows.of_text),
            windows.of_words,
            *_packed(windows.of_digits),
        ]
        self.searches: list[Callable[[bytes, int], int]] = [
            self._next_base64,
            self._next_key,
            *map(_next, filter(None, groups)),
        ]
        self._base64 = searching(_compile([_BASE64]))
        self._key = searching(_compile(windows.of_keys)) if windows.of_keys else _never
        self._two_quads = matching(_compile([_TWO_QUADS]))
        self._sanitized = windows.sanitized

    def __call__(self, data: bytes, begin: int = 0) -> int:
        """Return the first place at or behind one at which a rule may find something, or -1.

        What a rule finds in a message within the data, or in its fields, is not missed if the place
        to begin at is where that message begins, or before.
        """
        return _Pass(self, data)(begin)

    def over(self, data: bytes) -> "_Pass":
        """Return the same for one message, to be asked of places in order."""
        return _Pass(self, data)

    def _next_base64(self, data: bytes, begin: int) -> int:
        """Return the next place before a text that is base64; the end of the data for none."""
        while (start := self._base64(data, begin)[0][0]) >= 0:
            if self._is_base64(data, start):
                return start
            begin = start + 1
        return len(data)

    def _next_key(self, data: bytes, begin: int) -> int:
        """Return the next place of a name whose value a rule may take."""
        while (span := self._key(data, begin)[0])[0] >= 0:
            start, end = span
            keys = self._sanitized.get(data[start : end - 1])
            if keys is None or not _stays(data, end - 1, keys):
                return start
            begin = start + 1
        return len(data)

    def _is_base64(self, data: bytes, start: int) -> bool:
        """Tell whether a text is base64 that begins behind a place, and behind its length."""
        return any(
            self._two_quads(data, text)[0][0] >= 0 and any(map(as_base64, _texts_at(data, text)))
            for text in (start + 2, start + 3)
        )


def _compile(patterns: Iterable[str]) -> "re2._Regexp":
    return re2.compile("|".join(dict.fromkeys(patterns)).encode("latin-1"), _options())


def _next(patterns: list[str]) -> Callable[[bytes, int], int]:
    search = searching(_compile(patterns))

    def of_any(data: bytes, begin: int) -> int:
        """Return the next place at which one of them matches; the end of the data for none."""
        start = search(data, begin)[0][0]
        return len(data) if start < 0 else start

    return of_any


def _never(data: bytes, begin: int, end: int = -1) -> Spans:
    return [NOTHING]


def _packed(patterns: Iterable[str]) -> Iterator[list[str]]:
    """Yield the patterns in groups that are small enough together.

    Long runs are apart from what is short, with the beginning of a text and without, and from what
    is long.
    """
    group: list[str] = []
    length, last = 0, None
    for kind, _, pattern in sorted((_kind(one), len(one), one) for one in set(patterns)):
        if group and (kind != last or length + len(pattern) > _MOST_TOGETHER):
            yield group
            group, length = [], 0
        group.append(pattern)
        length, last = length + len(pattern), kind
    if group:
        yield group


def _kind(pattern: str) -> int:
    if _LONG_RUN.search(pattern):
        return 0
    if _ENDLESS.search(pattern):
        return 4
    return 3 if len(pattern) >= _LONG else 2 if BEGIN in pattern else 1


class _Pass:
    """Goes through one message; each search goes on where it found something last."""

    def __init__(self, look: RawLook, data: bytes) -> None:
        self._look = look
        self._data = data
        self._next = [] if look.everything else [-1] * len(look.searches)

    def __call__(self, begin: int) -> int:
        """See `RawLook`; no place is to be before one that was asked of."""
        if self._look.everything:
            return begin if begin < len(self._data) else -1
        for index, search in enumerate(self._look.searches):
            if self._next[index] < begin:
                self._next[index] = search(self._data, begin)
        place = min(self._next)
        return place if place < len(self._data) else -1


class _AnywhereError(Exception):
    """A rule may find something anywhere."""


class _Windows:
    """The windows of all rules.

    Attributes:
        of_forms, of_values: of text in another form but for base64, and of what is no text.
        of_text, of_words: of words that may stand in others, and of words that may not.
        of_digits: of all else that rules find in text.
        of_keys: of names whose values rules take as a whole.
        sanitized: names, the values of which these functions change, if anything does.

    Raises:
        _AnywhereError: a rule may find something anywhere.
    """

    def __init__(self, rules: list[KeyRule], finders: list[Finder]) -> None:
        fields = _field_keys()
        if any(rule.matches(key) for rule in rules for key in fields):
            raise _AnywhereError
        self.of_forms = [_JSON, _ESCAPES, _ALIKE, OTHER_CASES, _KEYS_AND_VALUES, _DATA_URL]
        self.of_values = [_BYTES_VALUE]
        if any(finder.integers for finder in finders):
            self.of_values.append(_CARD_NUMBERS)
        found = [_of_finder(finder, fields) for finder in finders]
        windows = [one for one in found if isinstance(one, Window)]
        self.of_digits = [one.pattern for one in windows if not one.is_text]
        self.of_text = [one.pattern for one in windows if one.is_text]
        of_words = _of_words(
            word for words in found if isinstance(words, Nearby) for word in words.words
        )
        self.of_words: list[str] = []
        for pattern in of_words:
            (self.of_words if _WORD_BEGIN in pattern else self.of_text).append(pattern)
        self.of_keys: list[str] = []
        self.sanitized: dict[bytes, dict[bytes, frozenset[Change]]] = {}
        by_key = []
        for rule in rules:
            value = next(filter(_is_text_alone, rule.rule.when.values()), None)
            if value is not None and rule.rule.action.sanitize not in _VERIFIED:
                self.of_text.append(f"{BEGIN}{write(literal(value, any_case=False))}{_NAME_END}")
            else:
                by_key.append(rule)
        for glob in dict.fromkeys(glob for rule in by_key for glob in rule.rule.keys or []):
            self.of_keys.append(_of_glob(fold(glob)))
            changes = {rule.change for rule in by_key if rule.matches(glob)}
            if all(rule.rule.action.sanitize in _VERIFIED for rule in by_key if rule.matches(glob)):
                key = glob.encode()
                end = key[-len(_telling(fold(glob))) :]
                if fold(end.decode()) == end.decode():
                    self.sanitized.setdefault(end, {})[key] = frozenset(filter(None, changes))


# What sanitizers do with most values is known by trying.
_VERIFIED = frozenset({"url", "sql"})


def _is_text_alone(value: str) -> bool:
    """Tell whether no number or truth value reads so."""
    try:
        float(value)
    except ValueError:
        return value not in {"true", "false"}
    return False


@cache
def _field_keys() -> frozenset[str]:
    """Return the keys at which the walk redacts what stands in no attribute."""
    found: set[str] = set()
    seen: set[str] = set()

    def look(descriptor: Descriptor) -> None:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            inner = field.message_type
            if field.type == FieldDescriptor.TYPE_STRING or (inner and inner.name == "AnyValue"):
                found.add(f"{descriptor.name}.{field.name}".lower())
            if inner is not None:
                look(inner)

    for kind in (ExportTraceServiceRequest, ExportLogsServiceRequest, ExportMetricsServiceRequest):
        look(kind.DESCRIPTOR)
    return frozenset(found)


@lru_cache(maxsize=4096)
def _of_pattern(pattern: str) -> Window:
    try:
        return window(pattern)
    except ValueError:
        return Window("", 0.0, is_text=False)


def _of_finder(finder: Finder, fields: frozenset[str]) -> Window | Nearby:
    """Return the window of what a finder finds, or the words that must stand near it."""
    of_value = _of_pattern(finder.pattern)
    best, named = of_value.chance, None
    for words in finder.near:
        # Where the name of a field holds one, any value counts.
        if (chance := _chance_of_words(words)) < best and not any(map(words.in_key, fields)):
            best, named = chance, words
    if best > _ANYWHERE:
        raise _AnywhereError
    return of_value if named is None else named


def _chance_of_words(words: Nearby) -> float:
    return either(_word(word) for word in words.words).chance


def _word(word: str) -> Node:
    """Return a node for a word in any case, in all its spellings."""
    nodes: list[Node] = []
    for part in word.split():
        nodes += [literal(part, any_case=True), repeat(char(bits(" _.-")), 0, 1)]
    return seq(nodes[:-1])


def _of_words(words: Iterable[str]) -> Iterator[str]:
    """Yield windows of words, in the text or in its name."""
    short: list[Node] = []
    inner: list[Node] = []
    for word in dict.fromkeys(words):
        if len(word) >= _LONG_WORD or " " in word:
            # Rare enough. Of those of many parts, the first look does not tell where they end.
            yield write(_word(word))
        else:
            short.append(_word(word))
            inner.append(literal(word[:1].upper() + word[1:], any_case=False))
    if short:
        whole = f"{_WORD_BEGIN}{write(either(short))}|[a-z\\x80-\\xff]{write(either(inner))}"
        yield f"(?:{whole}){_WORD_END}"


_WILDCARD = re.compile(r"[*?]|\[!?\]?[^\]]*\]")


def _of_glob(glob: str) -> str:
    """Return the window of names that match a glob, but for those made of several keys."""
    chunks = _WILDCARD.split(glob)
    ways = [
        (literal(chunk, any_case=True).chance, place, chunk)
        for place, chunk in enumerate(map(_telling, chunks))
        if chunk
    ]
    if not ways:
        raise _AnywhereError
    # What a name begins with is not told: of a long one, only the end is known to rules.
    chance, place, chunk = min(ways)
    if chance > _ANYWHERE:
        raise _AnywhereError
    spelt = _IGNORED.join(write(literal(one, any_case=True)) for one in chunk)
    return f"{spelt}{_IGNORED}{_NAME_END}" if place == len(chunks) - 1 else spelt


def _telling(name: str) -> str:
    """Return the last parts of a name, as many as it takes."""
    at = len(name)
    while at > 0 and len(name) - at < _TELLING:
        at = name.rfind(".", 0, at)
    return name[max(at, 0) :]


def _stays(data: bytes, end: int, keys: dict[bytes, frozenset[Change]]) -> bool:
    """Tell whether nothing changes the value at a key.

    Args:
        data: a message.
        end: of the key in it.
        keys: those it may be, with what may be done with the value.
    """
    for key, changes in keys.items():
        start = end - len(key)
        if data[start - 2 : end] == bytes([0x0A, len(key)]) + key:
            return _stays_behind(data, start, end, changes)
    return False


def _stays_behind(data: bytes, start: int, end: int, changes: frozenset[Change]) -> bool:
    value = _value_at(data, end)
    if value is None:
        return False
    begin, behind = value
    # The key and its value are all of the attribute, so nothing behind is another value of it.
    header = _varint(behind - start + 2)
    before = start - 2 - len(header)
    if before < 1 or data[before : start - 2] != header or data[before - 1] & 0x87 != 0x02:
        return False
    return all(_leaves(change, data[begin:behind]) for change in changes)


def _leaves(change: Change, text: bytes) -> bool:
    plain = _PLAIN.get(change)
    if plain is not None and plain(text, 0)[0] != NOTHING:
        return True
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return False
    return change(decoded) == decoded


def _value_at(data: bytes, place: int) -> Span | None:
    """Return where the text of an attribute stands whose value begins at a place."""
    if data[place : place + 1] != b"\x12":
        return None
    size, place = _read_varint(data, place + 1)
    behind = place + size
    if size < 2 or behind > len(data) or data[place] != 0x0A:
        return None
    size, place = _read_varint(data, place + 1)
    return (place, behind) if place + size == behind else None


def _read_varint(data: bytes, place: int) -> Span:
    value = shift = 0
    for byte in data[place : place + 5]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    return -1, place


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _texts_at(data: bytes, start: int) -> Iterator[str]:
    """Yield what may be the text that begins at a place, by the length that stands before it."""
    size = data[start - 1]
    for place in range(start - 2, start - 12, -1):
        if 0 < size <= len(data) - start:
            with suppress(UnicodeDecodeError):
                yield data[start : start + size].decode("ascii")
        if place < 0 or data[place] < 0x80:
            return
        size = size << 7 | data[place] & 0x7F


# The bytes of text, by how many of them must follow; and those that do.
_ALPHABET = [*(string.ascii_uppercase + string.ascii_lowercase + string.digits), "+-", "/_"]
_LEADS = (
    [0x09, 0x0A, 0x0D, *range(0x20, 0x7F)],
    list(range(0xC2, 0xE0)),
    list(range(0xE0, 0xF0)),
    list(range(0xF0, 0xF5)),
)
_FOLLOWING = list(range(0x80, 0xC0))


def _quads(owed: int) -> dict[int, list[str]]:
    """Return patterns for four characters of base64 that are text, by how many bytes it then owes.

    Args:
        owed: of the bytes before.
    """
    found: dict[int, list[str]] = {}
    for kinds, left in _three(owed, 3):
        first, second, third = kinds
        sextets = (
            {byte >> 2 for byte in first},
            {(one & 3) << 4 | other >> 4 for one in first for other in second},
            {(one & 15) << 2 | other >> 6 for one in second for other in third},
            {byte & 63 for byte in third},
        )
        quad = "".join(_sextet(frozenset(sextet)) for sextet in sextets)
        found.setdefault(left, []).append(quad)
    return found


def _three(owed: int, count: int) -> Iterator[tuple[list[list[int]], int]]:
    if not count:
        yield [], owed
        return
    kinds = [(_FOLLOWING, owed - 1)] if owed else [(lead, n) for n, lead in enumerate(_LEADS)]
    for kind, then in kinds:
        for rest, left in _three(then, count - 1):
            yield [kind, *rest], left


def _sextet(values: frozenset[int]) -> str:
    return "[" + "".join(_ALPHABET[value].replace("-", r"\-") for value in sorted(values)) + "]"


def _two() -> str:
    return "|".join(
        f"(?:{'|'.join(first)})(?:{'|'.join(quad for of in _quads(owed).values() for quad in of)})"
        for owed, first in _quads(0).items()
    )


_TWO_QUADS = f"(?:{_two()})"
_BASE64 = f"{BEGIN}{_TWO_QUADS}"
_DATA_URL = f"{BEGIN}data:"
