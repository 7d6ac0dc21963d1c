"""What holds of the rules that ship, whatever the text; and of rules that mean harm."""

import base64
import html
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote, unquote_plus, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.faults import RulesError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from tests.redaction.test_engine import LOGS, PERSONAL, engine, redact

Encoding = Callable[[str], str]

PLANTED = [
    "alice.johnson@example.com",
    "4111 1111 1111 1111",
    "457-55-5462",
    "+1 (415) 555-2671",
    "FR7630006000011234567890189",
    "203.0.113.77",
    "3c:22:fb:9a:10:7e",
]


def wide(text: str) -> str:
    """Return a text in full-width forms."""
    return "".join(
        chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text
    )


def in_base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


# Encodings of a piece of text, and such as fill a value.
WITHIN: dict[str, Encoding] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": lambda text: quote(text, safe=" ").replace(" ", "+"),
    "JSON escapes": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "HTML entities": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "hexadecimal HTML entities": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "full-width": wide,
    "zero-width": "\u200b".join,
    "word joiners": "\u2060".join,
}
FILLING: dict[str, Encoding] = {
    "URL-safe base64": in_base64,
    "base64 without padding": lambda text: in_base64(text).rstrip("="),
    "JSON": lambda text: json.dumps({"note": text}),
    "JSON in JSON": lambda text: json.dumps({"a": [json.dumps({"b": text})]}),
    "base64 in JSON": lambda text: json.dumps([in_base64(text)]),
    "JSON in base64": lambda text: in_base64(json.dumps({"b": text})),
    "base64 of base64": lambda text: in_base64(in_base64(text)),
}


def readings(text: str) -> set[str]:
    """Return all that a text can be decoded to, by the decoders of the standard library."""
    seen: set[str] = set()
    front = {text}
    for _ in range(5):
        front = {deeper for one in front for deeper in _decoded(one)} - seen
        seen |= front
    return seen


def _decoded(text: str) -> list[str]:
    decoded = [text, unquote_plus(text), html.unescape(text)]
    decoded.append("".join(character for character in text if character not in "\u200b\u2060"))
    decoded.append("".join(chr(ord(c) - 0xFEE0) if "！" <= c <= "～" else c for c in text))  # noqa: RUF001
    try:
        decoded.append(json.dumps(json.loads(text), ensure_ascii=False))
        decoded += _strings(json.loads(text))
    except ValueError:
        pass
    decoded.append(re.sub(r"\\u([0-9a-f]{4})", lambda escape: chr(int(escape[1], 16)), text))
    try:
        padded = text + "=" * (-len(text) % 4)
        decoded.append(base64.b64decode(padded, b"-_", validate=True).decode())
    except ValueError:
        pass
    return decoded


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def holds(text: str, value: str) -> bool:
    return any(value in reading for reading in readings(text))


@pytest.mark.parametrize("value", PLANTED)
@pytest.mark.parametrize("encode", WITHIN.values(), ids=WITHIN)
def test_a_planted_value_cannot_be_decoded_out_of_the_text(encode: Encoding, value: str) -> None:
    for before, behind in (("", ""), ("note: ", " end"), ("é\n", "\nnext"), ('x="', '"')):
        text = f"{before}{encode(value)}{behind}"
        assert holds(text, value)
        redacted = redact(text)
        assert redacted is not None
        assert not holds(redacted, value), redacted
        assert redact(redacted) == redacted


@pytest.mark.parametrize("value", PLANTED)
@pytest.mark.parametrize("encode", FILLING.values(), ids=FILLING)
def test_a_value_cannot_be_decoded_out_of_what_fills_a_field(encode: Encoding, value: str) -> None:
    for plain in (value, f"note: {value} end", f"é {value}"):
        text = encode(plain)
        assert holds(text, value)
        redacted = redact(text)
        assert redacted is not None
        assert not holds(redacted, value), redacted
        assert redact(redacted) == redacted
        # It is still what it was.
        assert any("REDACTED" in reading for reading in readings(redacted))


TEXT = st.text(max_size=12) | st.sampled_from([" ", "\n", ": ", "é", "\u200b", "%", "&", "\\", "+"])
ENCODED = st.tuples(st.sampled_from(list(WITHIN.values())), PERSONAL).map(
    lambda pair: pair[0](pair[1])
)
LINE = st.lists(PERSONAL | ENCODED | TEXT, max_size=6).map("".join)
VALUE = st.one_of(
    LINE,
    st.lists(LINE, min_size=2, max_size=4).map("\n".join),
    st.tuples(st.sampled_from(list(FILLING.values())), LINE).map(lambda pair: pair[0](pair[1])),
)


def findings(text: str, redactor: Redactor = LOGS) -> list[tuple[str, str]]:
    report = Report(detailed=True)
    redactor.string(text, "", report, {})
    return [(finding.rule, text[finding.start : finding.end]) for finding in report.findings]


@settings(max_examples=500, deadline=None)
@given(VALUE)
def test_nothing_is_found_in_what_was_redacted(text: str) -> None:
    once = redact(text)
    assert once is not None
    assert redact(once) == once
    assert findings(once) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(raw: bytes) -> None:
    lenient = raw.decode("utf-8", "surrogateescape").encode("utf-8", "ignore").decode()
    for text in (raw.decode("latin-1"), lenient):
        assert redact(text) is not None


URLS = st.builds(
    "{}://{}/{}?{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["h.example.org", "u:p@h.example.org:8443", "h:80"]),
    st.lists(PERSONAL.map(lambda text: quote(text, safe="")), max_size=3).map("/".join),
    st.lists(
        st.tuples(st.sampled_from(["q", "id", "email", "token"]), PERSONAL | st.text(max_size=8)),
        max_size=3,
    ).map(lambda pairs: "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs)),
)


@settings(max_examples=200, deadline=None)
@given(URLS, st.sampled_from(["", "http.url", "url.full"]))
def test_a_redacted_url_is_a_url(url: str, key: str) -> None:
    redacted = redact(url, key=key)
    assert redacted is not None
    before, after = urlsplit(url), urlsplit(redacted)
    assert after.scheme == before.scheme
    assert after.netloc
    assert " " not in redacted


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=0)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | PERSONAL, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict | list))


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_redacted_json_is_json(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    redacted = redact(text)
    assert redacted is not None
    assert type(json.loads(redacted)) is type(value)
    assert redact(redacted) == redacted


HOSTILE = [
    "(a+)+$",
    "(a|aa)*b",
    "(a*)*b",
    "a{1000}{1000}",
    "(?:[a-z]{1,500}){500}",
    "(a|b)*a(a|b){200}",
    "(?:a?){500}a{500}",
    "(?:x+x+)+y",
    r"(?:\w+\s?)+$",
    r"(?:\p{L}{1,100}){9}\d",
    "((((((((((a{10}){10}){10}){10}){10}))))))",
    "(.*)*(.*)*(.*)*x",
    "[ab]*a[ab]{12}$",
    "(" * 200 + "a" + ")" * 200,
    "|".join(f"a{number}b+" for number in range(2000)),
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=lambda pattern: pattern[:40])
def test_a_pattern_that_means_harm_is_refused_or_takes_linear_time(pattern: str) -> None:
    started = time.process_time()
    try:
        redactor = engine({"pattern": pattern}).redactor("logs")
    except RulesError:
        redactor = None
    assert time.process_time() - started < 20
    if redactor is None:
        return

    def seconds(text: str) -> float:
        started = time.process_time()
        redactor.string(text, "", Report(), {})
        return time.process_time() - started

    for unit in ("a", "ab", "abba", "x y", "aaaaab\n"):
        # Sixteen times the text may take sixteen times as long, and with noise five times that.
        shorter = min(seconds(unit * 500) for _ in range(3))
        assert min(seconds(unit * 8000) for _ in range(2)) < 80 * max(shorter, 0.001), unit
