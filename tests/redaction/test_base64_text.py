"""Text in base64 that fills a value."""

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.redaction.base64_text import as_base64
from sidecar.redaction.report import Report
from tests.redaction.test_engine import LOGS, engine, redact

SECRET = "mail alice.johnson@example.com now?>"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def url_safe(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def decoded(text: str | None) -> str:
    assert text is not None
    read = as_base64(text)
    assert read is not None, text
    return read.plain


@pytest.mark.parametrize("secret", [SECRET, f"{SECRET}.", f"{SECRET}..", "é " + SECRET])
@pytest.mark.parametrize(
    "write",
    [
        encoded,
        url_safe,
        lambda text: encoded(text).rstrip("="),
        lambda text: url_safe(text).rstrip("="),
        lambda text: encoded(text).replace("=", "%3D"),
        lambda text: encoded(text).replace("=", "%3d"),
        lambda text: "data:text/plain;base64," + encoded(text),
        lambda text: "data:text/plain;charset=utf-8;base64," + encoded(text),
        lambda text: "data:;base64," + encoded(text),
    ],
)
def test_text_in_base64_is_redacted_in_it(write, secret: str) -> None:  # type: ignore[no-untyped-def]
    text = write(secret)
    redacted = redact(text)
    assert decoded(redacted) == secret.replace("alice.johnson@example.com", "[REDACTED_EMAIL]")
    assert redacted is not None
    assert redacted.startswith(text[: text.find(",") + 1])
    assert ("=" in redacted.partition(",")[2]) <= ("%3" not in text)
    assert redact(redacted) == redacted


def test_what_is_written_stays_in_the_alphabet_of_the_value() -> None:
    replacing = engine({"pattern": "alice", "action": {"replace": {"with": "~~~???>>>"}}})
    redactor = replacing.redactor("logs")
    for text, used, other in (
        (encoded("??>> alice ~~~"), "+/", "-_"),
        (url_safe("??>> alice ~~~"), "-_", "+/"),
    ):
        assert set(text) & set(used)
        redacted = redact(text, redactor)
        assert redacted is not None
        assert set(redacted) & set(used)
        assert not set(redacted) & set(other)


def test_padding_is_left_out_where_the_value_has_none() -> None:
    for secret in (SECRET, f"{SECRET}.", f"{SECRET}.."):
        text = encoded(secret)
        redacted = redact(text.rstrip("="))
        assert redacted is not None
        if text.endswith("="):
            assert not redacted.endswith("=")
        else:
            assert len(redacted) % 4 == 0


def test_base64_of_base64_is_looked_into() -> None:
    redacted = redact(encoded(encoded(SECRET)))
    assert decoded(decoded(redacted)) == "mail [REDACTED_EMAIL] now?>"


def test_encodings_within_base64_are_undone() -> None:
    assert decoded(redact(encoded("q=alice%40example.com"))) == "q=%5BREDACTED_EMAIL%5D"
    assert decoded(redact(encoded('{"password": "x", "n": 1.50}'))) == (
        '{"password": "[REDACTED]", "n": 1.50}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2hvcnQ",  # shorter than eight
        "unrelated words in a line",
        encoded("a\x00b\x01c\x02defg"),
        base64.b64encode(bytes(range(0x80, 0xC0))).decode(),
        encoded("alice+bob@example.com?>")[:-4] + "-_" + "+/",
        "image/png;base64," + encoded(SECRET),
        "data:text/plain," + encoded(SECRET),
        encoded(SECRET) + " " + encoded(SECRET),
        encoded(SECRET) + "====",
        "YWxpY2V4e",
    ],
)
def test_what_is_no_text_in_base64_is_not_read(text: str) -> None:
    assert as_base64(text) is None


def test_what_holds_nothing_is_the_same_object() -> None:
    for text in (encoded("nothing to be found in here"), "getUserByIdentifier", "0123456789abcdef"):
        assert redact(text) is text


def test_findings_are_the_whole_value() -> None:
    text = encoded(SECRET)
    report = Report(detailed=True)
    LOGS.string(text, "note", report, {}, "/note")
    assert [(f.rule, f.start, f.end, f.path) for f in report.findings] == [
        ("email", 0, len(text), "/note")
    ]
    assert dict(report.counts) == {("note", "email"): 1}


@given(st.text(min_size=6, max_size=40), st.booleans(), st.booleans())
def test_any_text_in_base64_is_read_and_written_as_it_was(
    text: str, safe: bool, padded: bool
) -> None:
    assume(not any((c < " " and c not in "\t\n\r") or c == "\x7f" for c in text))
    written = (url_safe if safe else encoded)(text)
    written = written if padded else written.rstrip("=")
    read = as_base64(written)
    assert read is not None
    assert read.plain == text
    assert read.write(text) == written
