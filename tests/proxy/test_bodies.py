"""What goes on of a body, by its type."""

import base64
import gzip
import json
import zlib
from urllib.parse import parse_qsl, quote, urlencode

import pytest
import zstandard
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from sidecar.http.body import decompress
from sidecar.proxy.bodies import recompress
from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.walk_otlp import Outcome
from tests.captured import captures, leaks, to_otlp_json
from tests.proxy.rules import LIMIT, redact
from tests.redaction.test_engine import engine
from tests.redaction.test_properties import FILLING, PLANTED, WITHIN, holds

FORM = "application/x-www-form-urlencoded"
TYPES = [
    "application/json",
    "application/vnd.api+json; charset=utf-8",
    "application/x-ndjson",
    FORM,
    "text/plain",
    "text/event-stream",
    "application/x-sentry-envelope",
    "application/x-protobuf",
    "multipart/form-data; boundary=x",
    "",
]


@pytest.mark.parametrize("content_type", TYPES)
def test_an_empty_body_is_nothing_to_redact(content_type: str) -> None:
    assert redact(b"", content_type) == b""


@pytest.mark.parametrize(
    "content_type",
    ["", "application/octet-stream", "multipart/form-data", "application/x-protobuf"],
)
def test_what_nobody_can_look_into_is_unknown(content_type: str) -> None:
    with pytest.raises(UnknownTypeError):
        redact(b"alice@example.com", content_type)


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b' {"b": 1.10, "a" : [1e3, -0, 12345678901234567890123], "u": "\\u00e9\\/"} \r\n',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"loss": NaN, "x": -Infinity}',
        b'"text"',
        b"17",
        b"null",
        b"[]",
        b"{}",
    ],
)
def test_json_without_a_finding_is_the_same_object(body: bytes) -> None:
    assert redact(body) is body


def test_only_the_values_that_are_found_change_in_json() -> None:
    body = b'\xef\xbb\xbf{"n": 1.10, "password":"x",\n "m" :"to alice@example.com", "k": "\\u00e9"}'
    assert redact(body) == (
        b'\xef\xbb\xbf{"n": 1.10, "password":"[REDACTED]",\n'
        b' "m" :"to [REDACTED_EMAIL]", "k": "\\u00e9"}'
    )


def test_a_json_text_or_number_of_its_own_is_redacted() -> None:
    assert redact(b' "alice@example.com"') == b'"[REDACTED_EMAIL]"'
    assert redact(b"4111111111111111") == b'"[REDACTED_CARD]"'


def test_what_a_name_that_comes_twice_hides_does_not_pass() -> None:
    assert redact(b'{"note": "alice@example.com", "note": "x"}') == b'{"note":"x"}'
    restricted = engine({"find": "email"}, allow=("note",)).redactor("http")
    assert redact(b'{"note":"a@example.com","note":"x"}', redactor=restricted) == b'{"note":"x"}'


def test_halves_of_surrogate_pairs_do_not_keep_json_from_being_redacted() -> None:
    body = (
        rb'{"cut": "smile \ud83d", "whole": "\ud83d\ude00", "n": "\\ud83d", "m": "a@example.com"}'
    )
    changed = json.loads(redact(body))
    assert changed["cut"] == "smile \ufffd"
    assert (changed["whole"], changed["n"]) == ("😀", "\\ud83d")
    assert changed["m"] == "[REDACTED_EMAIL]"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": 1} x',
        b"a=b",
        b'{"a": "\xff"}',
        b'"\xff"',
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000 + b"]" * 100_000,
        '{"a": "alice@example.com"}'.encode("utf-16"),
    ],
    ids=range(8),
)
def test_what_is_no_json_does_not_pass_under_its_type(body: bytes) -> None:
    with pytest.raises(UncheckedError) as error:
        redact(body)
    assert "alice" not in str(error.value)


def test_only_fields_that_are_allowed_stay() -> None:
    restricted = engine({"find": "email"}, allow=("note",)).redactor("http")
    assert redact(b'{"note": "a@example.com", "mood": "good"}', redactor=restricted) == (
        b'{"note":"[REDACTED_R0]"}'
    )
    assert redact(b"note=x&mood=good", FORM, redactor=restricted) == b"note=x"
    assert redact(b'{"note":"x","mood":"good"}', "text/plain", redactor=restricted) == (
        b'{"note":"x"}'
    )


def test_a_rule_that_drops_the_record_stops_the_body_and_leaves_out_a_line() -> None:
    redactor = engine({"pattern": "board", "action": {"drop_record": {}}}).redactor("http")
    with pytest.raises(DropRecordError):
        redact(b'{"about": "board"}', redactor=redactor)
    outcome = Outcome()
    lines = b'{"about":"board"}\n{"about":"lunch"}\n'
    assert redact(lines, "application/x-ndjson", redactor=redactor, outcome=outcome) == (
        b'{"about":"lunch"}\n'
    )
    assert outcome.dropped == 1


def test_what_rules_cannot_come_to_an_end_on_does_not_pass() -> None:
    redactor = engine({"pattern": "a", "action": {"replace": {"with": "aa"}}}).redactor("http")
    for content_type in ("application/json", "text/plain", FORM, "text/event-stream"):
        with pytest.raises(UncheckedError):
            redact(b'"a"', content_type, redactor=redactor)


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson", "application/jsonl", "application/jsonlines"]
)
def test_lines_of_json_are_redacted_each_for_itself(content_type: str) -> None:
    body = b'{"n": 1.10}\r\n\n  {"m": "alice@example.com"}\r\n"b@example.com"'
    assert redact(body, content_type) == (
        b'{"n": 1.10}\r\n\n  {"m": "[REDACTED_EMAIL]"}\r\n"[REDACTED_EMAIL]"'
    )
    clean = b'{"n": 1.10}\n\n{"m": "x"}\n'
    assert redact(clean, content_type) is clean
    with pytest.raises(UncheckedError):
        redact(b'{"n": 1}\nalice@example.com', content_type)


# Text


def test_text_is_redacted_in_its_charset() -> None:
    text = "é mail alice@example.com\n"
    for charset in ("utf-8", "ISO-8859-1", "cp1252", "utf-16-le"):
        changed = redact(text.encode(charset), f'text/plain; Charset="{charset}"')
        assert changed.decode(charset) == "é mail [REDACTED_EMAIL]\n"
    same = "é".encode("latin-1")
    assert redact(same, "text/plain;charset=latin-1") is same


def test_text_in_no_charset_that_is_known_does_not_pass() -> None:
    for charset in ("klingon", "base64", "rot13", ""):
        with pytest.raises(UnknownTypeError):
            redact(b"alice@example.com", f"text/plain; charset={charset}")
    with pytest.raises(UncheckedError):
        redact("é".encode("latin-1"), "text/plain")


@pytest.mark.parametrize("charset", ["utf-16", "utf-7", "cp037"])
def test_a_wrong_charset_does_not_hide_what_an_upstream_may_read(charset: str) -> None:
    try:
        written = redact(b"mail alice@example.com ", f"text/plain; charset={charset}")
    except UncheckedError:
        return
    assert b"alice" not in written


def test_json_that_is_called_text_has_keys() -> None:
    assert redact(b'{"password": "x", "n": 1.10}', "text/plain") == (
        b'{"password": "[REDACTED]", "n": 1.10}'
    )
    assert redact(b"{alice@example.com}", "text/plain") == b"{[REDACTED_EMAIL]}"


# Forms


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (b"password=x&n=1&email=", b"password=%5BREDACTED%5D&n=1&email="),
        (b"to=alice%40example.com&x=%7e+%2F", b"to=%5BREDACTED_EMAIL%5D&x=%7e+%2F"),
        (
            b"user%5Bemail%5D=x&user[password][]=y",
            b"user%5Bemail%5D=%5BREDACTED%5D&user[password][]=%5BREDACTED%5D",
        ),
        (b"alice%40example.com=1", b"%5BREDACTED_EMAIL%5D=1"),
        (b"alice%40example.com", b"%5BREDACTED_EMAIL%5D"),
        (b"q=alice+news@example.com", b"q=%5BREDACTED_EMAIL%5D"),
        (b"q=my+card+4111+1111+1111+1111", b"q=my+card+%5BREDACTED_CARD%5D"),
        (b"q=a%2Bb+alice@example.com", b"q=a%2Bb+%5BREDACTED_EMAIL%5D"),
        (b"q=%E9%20alice@example.com", b"q=%E9+%5BREDACTED_EMAIL%5D"),
        (b"q=alice%2540example.com", b"q=%255BREDACTED_EMAIL%255D"),
    ],
)
def test_forms_are_redacted_pair_by_pair(form: bytes, expected: bytes) -> None:
    assert redact(form, FORM) == expected
    assert redact(expected, FORM) is expected


@pytest.mark.parametrize(
    "form", [b"", b"&", b"a", b"=", b"a=b=c&a=&&=x", b"x=%zz&y=%", b"q=a+b%20c"]
)
def test_a_form_without_a_finding_is_the_same_object(form: bytes) -> None:
    assert redact(form, FORM) is form


def test_json_and_base64_in_a_form_are_redacted_as_what_they_are() -> None:
    event = json.dumps({"properties": {"password": "x", "note": "alice@example.com"}})
    for value in (event, base64.b64encode(event.encode()).decode()):
        changed = dict(parse_qsl(redact(urlencode({"data": value}).encode(), FORM).decode()))[
            "data"
        ]
        if value is not event:
            changed = base64.b64decode(changed).decode()
        assert json.loads(changed) == {
            "properties": {"password": "[REDACTED]", "note": "[REDACTED_EMAIL]"}
        }


def test_a_long_value_of_a_form_is_read_with_its_blanks() -> None:
    form = b"q=" + b"word+" * 2000 + b"4111+1111+1111+1111"
    assert redact(form, FORM).endswith(b"word+%5BREDACTED_CARD%5D")


def test_json_that_is_called_a_form_is_json() -> None:
    assert redact(b'{"password": "x&y=z"}', FORM) == b'{"password": "[REDACTED]"}'
    assert redact(b"{a=1&password=x}", FORM) == b"{a=1&password=%5BREDACTED%5D"


def test_when_sees_the_other_pairs_of_a_form() -> None:
    rule = {"keys": ["q"], "when": {"kind": "secret"}}
    redactor = engine(rule).redactor("http")
    assert redact(b"kind=secret&q=x", FORM, redactor=redactor) == b"kind=secret&q=%5BREDACTED_R0%5D"
    assert redact(b"kind=open&q=x", FORM, redactor=redactor) == b"kind=open&q=x"


# OTLP


@pytest.mark.parametrize("path", ["/v1/{}", "/api/public/otel/v1/{}", "/otlp/v1/{}/"])
def test_captured_otlp_passes_without_a_personal_value(path: str) -> None:
    for otlp, body in captures():
        at = path.format(otlp.signal)
        outcome = Outcome()
        message = otlp.request.FromString(
            redact(body, "application/x-protobuf", at, outcome=outcome)
        )
        assert not leaks(message)
        assert outcome.kept
        as_json = redact(to_otlp_json(otlp.request.FromString(body)), "application/json", at)
        assert as_json == to_otlp_json(message)


def test_what_is_no_otlp_does_not_pass_where_otlp_goes() -> None:
    for body, content_type in (
        (b"\xff\xff", "application/x-protobuf"),
        (b'{"resourceSpans": 7}', "application/json"),
        (b"{", "application/json"),
    ):
        with pytest.raises(UncheckedError):
            redact(body, content_type, "/v1/traces")


def test_fields_that_otlp_does_not_know_do_not_pass() -> None:
    unknown = b"\xfa\x7f\x11alice@example.com"
    assert redact(unknown, "application/x-protobuf", "/v1/traces") == b""


def test_answers_of_otlp_backends_are_redacted() -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "bad: alice@example.com"
    status = Status(code=3, message="bad: alice@example.com")
    status.details.add(type_url="x", value=b"alice@example.com")
    kind, path = "application/x-protobuf", "/v1/traces"
    shown = ExportTraceServiceResponse.FromString(
        redact(answer.SerializeToString(), kind, path, is_answer=True)
    )
    assert json_format.MessageToDict(shown) == {
        "partialSuccess": {"rejectedSpans": "2", "errorMessage": "bad: [REDACTED_EMAIL]"}
    }
    assert Status.FromString(
        redact(status.SerializeToString(), kind, path, is_answer=True)
    ) == Status(code=3, message="bad: [REDACTED_EMAIL]")
    clean = Status(code=3, message="bad").SerializeToString()
    assert redact(clean, kind, path, is_answer=True) is clean
    with pytest.raises(UncheckedError):
        redact(b"\x0a\xff", kind, path, is_answer=True)


def test_an_empty_export_keeps_its_bytes() -> None:
    body = ExportTraceServiceRequest().SerializeToString()
    assert redact(body, "application/x-protobuf", "/v1/traces") is body


# Compression


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", FORM])
def test_gzip_that_is_not_declared_is_looked_into(content_type: str) -> None:
    clean = gzip.compress(b'{"a": 1}')
    assert redact(clean, content_type) is clean
    changed = redact(gzip.compress(b'{"password": "x"}'), content_type)
    assert json.loads(gzip.decompress(changed)) == {"password": "[REDACTED]"}


def test_gzip_that_is_not_declared_has_bounds() -> None:
    bomb = gzip.compress(bytes(LIMIT + 1))
    twice = gzip.compress(gzip.compress(b'{"password": "x"}'))
    for body in (bomb, twice, gzip.compress(b"{}")[:-4], b"\x1f\x8b\x08"):
        with pytest.raises(UncheckedError):
            redact(body, "text/plain")


@given(
    st.binary(max_size=2000), st.sampled_from(["", "identity", "gzip", "x-gzip", "deflate", "zstd"])
)
def test_a_body_comes_out_of_the_coding_it_was_put_into(body: bytes, coding: str) -> None:
    compressed = recompress(body, coding)
    assert decompress(compressed, coding, LIMIT) == body
    assert recompress(body, coding) == compressed


def test_codings_are_those_that_other_libraries_read() -> None:
    assert gzip.decompress(recompress(b"x", "gzip")) == b"x"
    assert zlib.decompress(recompress(b"x", "deflate")) == b"x"
    assert zstandard.ZstdDecompressor().decompress(recompress(b"x", "zstd")) == b"x"
    with pytest.raises(ValueError):
        recompress(b"x", "br")


# Whatever it holds

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
_PLANTED = st.builds(
    lambda value, encode: encode(value),
    st.sampled_from(PLANTED),
    st.sampled_from([*WITHIN.values(), *FILLING.values()]),
)
_ANY_JSON = st.recursive(
    _TEXT | _PLANTED | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def unharmed(body: bytes, content_type: str) -> str:
    """Check what holds of every body; return what it became."""
    changed = redact(body, content_type)
    assert redact(changed, content_type) is changed
    text = changed.decode()
    for value in PLANTED:
        assert not holds(text, value), text
    return text


@given(_ANY_JSON, st.booleans(), st.sampled_from(["application/json", "text/plain"]))
def test_nothing_planted_comes_out_of_json(value: object, ascii_: bool, content_type: str) -> None:
    body = json.dumps(value, ensure_ascii=ascii_, indent=1 if ascii_ else None).encode()
    text = unharmed(body, content_type)
    if content_type == "application/json":
        assert type(json.loads(text)) is type(value) or not isinstance(value, dict | list)


@given(st.lists(_ANY_JSON.map(json.dumps), max_size=4))
def test_nothing_planted_comes_out_of_lines_of_json(lines: list[str]) -> None:
    text = unharmed("\n".join(lines).encode(), "application/x-ndjson")
    assert len(text.split("\n")) == max(len(lines), 1)


@given(st.lists(st.tuples(_TEXT, _TEXT | _PLANTED), max_size=4), st.booleans())
def test_nothing_planted_comes_out_of_a_form(pairs: list[tuple[str, str]], plus: bool) -> None:
    form = urlencode(pairs) if plus else urlencode(pairs, quote_via=quote)
    text = unharmed(form.encode(), FORM)
    assert len(text.split("&")) == max(len(pairs), 1)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 99) | st.sampled_from(["x", "yes"])))
def test_documents_without_a_finding_keep_their_bytes(value: dict[str, object]) -> None:
    body = json.dumps(value, indent=2).encode()
    assert redact(body) is body
    form = urlencode(value).encode()
    assert redact(form, FORM) is form


@given(
    st.binary(max_size=60),
    st.sampled_from(TYPES),
    st.sampled_from(["/v1/logs", "/api/1/envelope/"]),
)
def test_no_bytes_raise_anything_else(body: bytes, content_type: str, path: str) -> None:
    try:
        written = redact(body, content_type, path)
    except (UncheckedError, UnknownTypeError):
        return
    assert isinstance(written, bytes)
