"""What goes on of a stream of server-sent events, and when."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.event_stream import EventStreamRedactor
from sidecar.proxy.unchecked import UncheckedError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from tests.proxy.rules import HTTP, redact
from tests.redaction.test_engine import engine
from tests.redaction.test_properties import PLANTED, holds


def through(*pieces: bytes, redactor: Redactor = HTTP) -> bytes:
    stream = EventStreamRedactor(redactor, Report())
    return b"".join([*map(stream.feed, pieces), stream.finish()])


CLEAN = [
    b"data: x\n\n",
    b": ping\n\ndata:x\rdata: y\r\rid: 7\r\nevent: e\r\nretry: 10\r\ndata\r\n\r\n",
    b'\xef\xbb\xbfdata: {"n": 1.10}\n\ndata: [DONE]\n\n',
    b"data: no end",
    b"\n\n\r\r\n",
    b"unknown: field\ndata: a: b\n\n",
    b"",
]


@pytest.mark.parametrize("stream", CLEAN)
def test_a_stream_without_a_finding_keeps_its_bytes(stream: bytes) -> None:
    assert through(stream) == stream
    assert through(*(stream[at : at + 1] for at in range(len(stream)))) == stream
    assert redact(stream, "text/event-stream") is stream


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'data: {"n":1.10,"password":"x"}\n\n', b'data: {"n":1.10,"password":"[REDACTED]"}\n\n'),
        (b"data:alice@example.com\r\n\r\n", b"data:[REDACTED_EMAIL]\r\n\r\n"),
        (
            b'data: {"a":\rdata:  "alice@example.com"}\r\r',
            b'data: {"a":\rdata:  "[REDACTED_EMAIL]"}\r\r',
        ),
        (
            b'id: 1\ndata: {"a":\nevent: e\ndata: "a@example.com"}\n\n',
            b'id: 1\ndata: {"a":\ndata: "[REDACTED_EMAIL]"}\nevent: e\n\n',
        ),
        (
            b": alice@example.com\nid: bob@example.com\n\n",
            b": [REDACTED_EMAIL]\nid: [REDACTED_EMAIL]\n\n",
        ),
        (b"\xef\xbb\xbfdata: a@example.com\n\n", b"\xef\xbb\xbfdata: [REDACTED_EMAIL]\n\n"),
        (b"data: a@example.com", b"data: [REDACTED_EMAIL]\n"),
        (b"alice@example.com\n\n", b"[REDACTED_EMAIL]\n\n"),
    ],
)
def test_events_are_redacted_in_place(stream: bytes, expected: bytes) -> None:
    assert through(stream) == expected
    assert through(*(stream[at : at + 1] for at in range(len(stream)))) == expected
    assert through(expected) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_goes_on_in_the_moment_it_is_whole(end: bytes) -> None:
    stream = EventStreamRedactor(HTTP, Report())
    event = b"data: hello" + end + end
    assert stream.feed(event[:-2]) == b""
    assert stream.feed(event[-2:-1]) + stream.feed(event[-1:]) == event
    assert stream.feed(b"data: a@example.com" + end) == b""
    # Of CR LF, the CR is enough.
    assert stream.feed(end[:1]).startswith(b"data: [REDACTED_EMAIL]")


def test_a_rule_that_drops_takes_out_the_event() -> None:
    redactor = engine({"pattern": "board", "action": {"drop_record": {}}}).redactor("http")
    assert through(b"data: board\n\ndata: lunch\n\n", redactor=redactor) == b"data: lunch\n\n"


def test_what_a_rule_writes_on_several_lines_stays_one_event() -> None:
    rule = {"pattern": "secret", "action": {"replace": {"with": "one\r\n\ntwo"}}}
    redactor = engine(rule).redactor("http")
    assert through(b"data: a secret\n\n", redactor=redactor) == (
        b"data: a one\ndata: \ndata: two\n\n"
    )
    assert through(b": a secret\n\n", redactor=redactor) == b": a one  two\n\n"


def test_an_event_has_bounds() -> None:
    stream = EventStreamRedactor(HTTP, Report(), limit=100)
    assert stream.feed(b"data: x\n\n" * 100) == b"data: x\n\n" * 100
    with pytest.raises(UncheckedError):
        stream.feed(b"data: " + b"x" * 95)
    many = EventStreamRedactor(HTTP, Report(), limit=100)
    with pytest.raises(UncheckedError):
        many.feed(b"data: x\n" * 13)


@pytest.mark.parametrize("line", [b"data: \xff", b": \xff", b"id: \xff"])
def test_what_cannot_be_read_does_not_pass(line: bytes) -> None:
    with pytest.raises(UncheckedError):
        through(line + b"\n\n")


def test_what_rules_cannot_come_to_an_end_on_does_not_pass() -> None:
    redactor = engine({"pattern": "a", "action": {"replace": {"with": "aa"}}}).redactor("http")
    with pytest.raises(UncheckedError):
        through(b"data: a\n\n", redactor=redactor)


_PIECE = st.sampled_from(
    [b"data: ", b"data", b":", b"id: 1", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf"]
    + [f" {value} ".encode() for value in PLANTED]
    + [json.dumps({"password": "x", "note": value}).encode() for value in PLANTED]
)


@given(st.lists(_PIECE, max_size=12).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_how_a_stream_is_cut_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    whole = through(stream)
    assert through(*(stream[start:end] for start, end in pairwise(places))) == whole
    assert through(whole) == whole
    for line in whole.decode().splitlines():
        assert not any(holds(line.partition(":")[2], value) for value in PLANTED), line


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(stream: bytes) -> None:
    with suppress(UncheckedError):
        through(stream)
