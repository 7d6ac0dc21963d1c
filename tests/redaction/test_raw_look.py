"""A look over the bytes misses nothing that redacting the decoded message finds."""

import base64
import random
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.redaction.engine import Engine
from sidecar.redaction.raw_look import RawLook
from sidecar.redaction.rules import Rule, load_rules
from sidecar.redaction.sanitize.sql import sanitize_sql
from sidecar.redaction.sanitize.url import sanitize_url
from sidecar.redaction.walk_otlp import redact_otlp
from sidecar.settings import default_rules_dir

RULES = load_rules(default_rules_dir())
REDACTOR = Engine(RULES).redactor("traces")
# Strings that a rule changes, with the key they stand at.
SAMPLES = sorted({(test.key, test.in_) for rule in RULES.rules for test in rule.tests if test.in_})
CLEAN = b"\x00\x0a\x10ABCz09~"


@cache
def look() -> RawLook:
    return RawLook(REDACTOR)


class Encoder:
    """Writes fields in any valid way: lengths and tags may take more bytes than they need."""

    def __init__(self, draw: random.Random, *, longer: bool) -> None:
        self.draw = draw
        self.longer = longer

    def varint(self, value: int) -> bytes:
        encoded = bytearray()
        while value > 0x7F:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        encoded.append(value)
        extra = self.draw.randrange(3) if self.longer and self.draw.random() < 0.3 else 0
        if extra:
            encoded[-1] |= 0x80
            encoded += b"\x80" * (extra - 1) + b"\x00"
        return bytes(encoded)

    def field(self, number: int, value: bytes) -> bytes:
        return self.varint(number << 3 | 2) + self.varint(len(value)) + value

    def message(self, *fields: bytes) -> bytes:
        order = list(fields)
        if self.longer:
            self.draw.shuffle(order)
        return b"".join(order)

    def attribute(self, key: str, value: bytes) -> bytes:
        return self.message(self.field(1, key.encode()), self.field(2, value))


def places(encoder: Encoder, key: str, text: bytes) -> dict[str, bytes]:
    """Return spans that hold a text, each at another place."""
    field, attribute = encoder.field, encoder.attribute
    value = field(1, text)
    listed = field(5, field(1, field(1, b"x")) + field(1, value))
    inner = field(
        6, field(1, attribute("x", field(1, b"y"))) + field(1, attribute(key or "k", value))
    )
    ids = field(1, encoder.draw.randbytes(16)), field(2, encoder.draw.randbytes(8))
    rest = field(9, attribute("server.address", field(1, b"a")))
    texts = {
        "attribute": field(9, attribute(key or "k", value)),
        "list": field(9, attribute(key or "k", listed)),
        "keys and values": field(9, attribute("outer", inner)),
        "bytes": field(9, attribute(key or "k", field(7, text))),
        "other bytes": field(9, attribute(key or "k", field(7, b"\xff " + text + b" \xff"))),
        "event": field(11, field(2, b"e") + field(3, attribute(key or "k", value))),
        "link": field(13, field(4, attribute(key or "k", value))),
    }
    if not key:
        texts["name"] = field(5, text)
        texts["state"] = field(3, text)
        texts["event's name"] = field(11, field(2, text))
        texts["status"] = field(15, field(2, text))
        texts["name of an attribute"] = field(9, attribute(text.decode(), field(1, b"v")))
    return {name: encoder.message(*ids, one, rest) for name, one in texts.items()}


def changes(span: bytes) -> bool:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add().ParseFromString(span)
    before = request.SerializeToString(deterministic=True)
    outcome = redact_otlp(request, REDACTOR)
    return request.SerializeToString(deterministic=True) != before or bool(outcome.report)


def misses(span: bytes, after: bytes = b"") -> bool:
    """Tell whether the look passes over a span that changes, alone and with others around it."""
    if not changes(span):
        return False
    inside = look()(span + after, 0)
    return not 0 <= inside < len(span)


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize(("key", "text"), SAMPLES)
def test_what_rules_find_is_not_missed_anywhere_in_a_record(
    key: str, text: str, longer: bool
) -> None:
    encoder = Encoder(random.Random(text), longer=longer)
    missed = [
        f"{name}: {span!r}"
        for name, span in places(encoder, key, text.encode()).items()
        if misses(span) or misses(span, b"J0\n")
    ]
    assert missed == []


@pytest.mark.parametrize("length", [*range(9), *range(40, 131), 16383, 16384])
def test_whatever_a_text_s_length_reads_as_what_is_behind_it_is_not_missed(length: int) -> None:
    encoder = Encoder(random.Random(length), longer=False)
    for text in ("alice@example.com", "4111111111111111", "tel 4155552671", "203.0.113.77"):
        for value in (text.ljust(length, "."), text.rjust(length, "."), text.rjust(length, "\n")):
            for name, span in places(encoder, "", value.encode()).items():
                assert not misses(span), (name, length, value[:80])


@settings(max_examples=200, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    before=st.text(max_size=12),
    after=st.text(max_size=12),
    seed=st.integers(0, 10**6),
    longer=st.booleans(),
)
def test_nothing_around_a_value_hides_it(
    sample: tuple[str, str], before: str, after: str, seed: int, longer: bool
) -> None:
    key, text = sample
    encoder = Encoder(random.Random(seed), longer=longer)
    value = f"{before}{text}{after}".encode(errors="ignore")
    for name, span in places(encoder, key, value).items():
        assert not misses(span, CLEAN), name


@pytest.mark.parametrize(
    "value",
    [4111111111111111, -4111111111111111, 378282246310005],
)
def test_numbers_that_are_a_card_are_not_missed(value: int) -> None:
    for number in ("int_value", "double_value"):
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        setattr(span.attributes.add(key="n").value, number, value)
        data = span.SerializeToString()
        assert changes(data)
        assert not misses(data)


BASE64 = base64.b64encode(b"alice@example.com is here").decode()


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Al"}',
        ' [{"name": "Al"}]',
        f'{{"pad": "{"x" * 200}", "name": "Al"}}',
        BASE64,
        base64.b64encode(b"\xc3\xa9 alice@example.com " * 9).decode(),
        f"data:text/plain;base64,{BASE64}",
        "alice\uff20example.com",
        "alice\u200b@example.com",
        "alice&#64;example.com",
        "alice\\u0040example.com",
    ],
)
def test_what_stands_in_another_form_is_not_missed(text: str, longer: bool) -> None:
    for seed in range(5):
        encoder = Encoder(random.Random(seed), longer=longer)
        for key in ("user", "client.user"):
            span = encoder.field(9, encoder.attribute(key, encoder.field(1, text.encode())))
            assert changes(span)
            assert not misses(span)


def test_names_that_several_keys_make_are_not_missed() -> None:
    encoder = Encoder(random.Random(1), longer=False)
    field, attribute = encoder.field, encoder.attribute
    for inner in (
        attribute("name", field(1, b"Al")),
        field(2, field(1, b"Al")) + field(1, b"name"),
    ):
        span = field(9, attribute("user", field(6, field(1, inner))))
        assert changes(span)
        assert not misses(span)


def test_bytes_that_are_no_utf_8_are_not_missed() -> None:
    encoder = Encoder(random.Random(1), longer=False)
    for text in (
        b"\xff 4111\xad1111\xad1111\xad1111",
        b"\xff 4111\xad1111\xad1111\xad1111" + b"." * 200,
    ):
        span = encoder.field(9, encoder.attribute("k", encoder.field(7, text)))
        assert changes(span)
        assert not misses(span)


@pytest.mark.parametrize("behind", [b"", b"z\x00", b"j\x00", b"\x80\x01\x00", b"J\x00", b"0\x01"])
def test_a_word_at_the_end_of_a_text_is_not_missed_whatever_field_follows(behind: bytes) -> None:
    encoder = Encoder(random.Random(1), longer=False)
    rule = msgspec.convert({"id": "badge", "pattern": "[0-9]{3}", "keywords": ["acme"]}, Rule)
    rules = msgspec.structs.replace(RULES, rules=[rule], places={rule.id: "a.yaml:1"})
    of_badges = RawLook(Engine(rules).redactor("traces"))
    span = encoder.field(5, b"123 acme") + behind
    assert 0 <= of_badges(span) < len(span)
    assert of_badges(encoder.field(5, b"123 acmes") + b"J\x00") == -1


@pytest.mark.parametrize(
    "text",
    [
        "https://h.example/a/b",
        "http://ollama.models.svc:11434/api/tags",
        "SELECT a.id FROM a WHERE a.id = $1 AND x IS NOT NULL ORDER BY a.at DESC LIMIT $2",
        "insert into t (a, b) values ($1, $2)",
    ],
)
def test_what_is_known_to_stay_does(text: str) -> None:
    assert sanitize_url(text) == text or sanitize_sql(text) == text


def test_a_name_is_no_place_where_its_value_stays_as_it_is() -> None:
    for key, text in (
        ("url.full", "http://ollama.models.svc:11434/api/tags"),
        ("db.query.text", "SELECT chat.id FROM chat WHERE chat.id = $1"),
    ):
        encoder = Encoder(random.Random(1), longer=False)
        span = encoder.field(9, encoder.attribute(key, encoder.field(1, text.encode())))
        assert look()(span, 0) == -1
        # Another value behind the first is what counts.
        twice = encoder.attribute(key, encoder.field(1, text.encode())) + encoder.field(
            2, encoder.field(1, b"/a;name=bob")
        )
        assert look()(encoder.field(9, twice), 0) >= 0


def test_places_are_told_in_order_from_any_place_on() -> None:
    spans = [
        places(Encoder(random.Random(seed), longer=False), "", b"alice@example.com")["attribute"]
        for seed in range(8)
    ]
    data = b"".join(spans)
    over = look().over(data)
    begin = 0
    for span in spans:
        assert begin <= over(begin) < begin + len(span)
        assert begin <= look()(data, begin) < begin + len(span)
        begin += len(span)
    assert over(begin) == -1
