"""Cutting a stream: the same pieces whatever the blocks it came in, and nothing lost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands.pieces import (
    NO_JSON,
    TOO_DEEP,
    InputError,
    InputFormat,
    Piece,
    Splitter,
    decode,
    lines,
)

BEGIN = b"-----BEGIN RSA PRIVATE" + b" KEY-----\n"
END = b"-----END RSA PRIVATE" + b" KEY-----\n"
KEY = BEGIN + b"bm90IGEga2V5\n" * 3 + END


def pieces(data: bytes, size: int, form: InputFormat = "auto", **bounds: int) -> list[Piece]:
    splitter = Splitter(form, **bounds)
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    found = [piece for block in blocks for piece in splitter.feed(block)]
    return found + list(splitter.feed(b"", end=True))


def kinds(data: bytes, size: int, form: InputFormat = "auto") -> list[tuple[str, bytes]]:
    """Return the pieces, with neighbouring text joined: where it is cut depends on the blocks."""
    joined: list[tuple[str, bytes]] = []
    for piece in pieces(data, size, form):
        if joined and joined[-1][0] == piece.kind == "text":
            joined[-1] = ("text", joined[-1][1] + piece.raw)
        else:
            joined.append((piece.kind, piece.raw))
    return joined


TEXT_AND_RECORDS = (
    b'one\n{"a": 1}\r\n  ["b"]\n[2026-11-24] two\n{"no": \nthree ' + KEY + b'{"c": 2}\nend'
)


@pytest.mark.parametrize("size", [*range(1, 40), 1000])
def test_the_pieces_do_not_depend_on_the_blocks(size: int) -> None:
    assert kinds(TEXT_AND_RECORDS, size) == [
        ("text", b"one\n"),
        ("record", b'{"a": 1}\r\n'),
        ("record", b'  ["b"]\n'),
        ("text", b'[2026-11-24] two\n{"no": \n'),
        ("key", b"three " + KEY),
        ("record", b'{"c": 2}\n'),
        ("text", b"end"),
    ]


@pytest.mark.parametrize("size", range(1, len(KEY) + 12))
def test_a_private_key_is_never_cut(size: int) -> None:
    data = b"before\n" + b"key " + KEY + b"after\n"
    assert [p.raw for p in pieces(data, size) if p.kind == "key"] == [b"key " + KEY]


def test_what_stands_between_the_ends_of_a_key_is_text() -> None:
    data = BEGIN + b'{"a": 1}\n' + END + b'{"a": 1}\n'
    assert kinds(data, 1000) == [
        ("key", BEGIN + b'{"a": 1}\n' + END),
        ("record", b'{"a": 1}\n'),
    ]


def test_a_record_that_speaks_of_a_key_holds_nothing_back() -> None:
    line = b'{"note": "-----BEGIN PRIVATE' + b' KEY----- is the header"}\n'
    assert [p.kind for p in Splitter("auto").feed(line + b"text\n")] == ["record", "text"]


def test_a_key_without_end_is_held_back_to_its_bound() -> None:
    splitter = Splitter("auto", max_key=200)
    (before,) = splitter.feed(b"before\n" + BEGIN)
    assert before.raw == b"before\n"
    line = b"bm90IGEga2V5\n"
    fitting = (200 - len(BEGIN)) // len(line)
    for _ in range(fitting):
        assert list(splitter.feed(line)) == []
    assert list(splitter.feed(line)) == [
        Piece("open-key", BEGIN + line * fitting),
        Piece("text", line),
    ]


def test_a_key_without_end_comes_out_with_the_end_of_the_input() -> None:
    assert kinds(BEGIN + b"bm90\n", 7) == [("key", BEGIN + b"bm90\n")]


@pytest.mark.parametrize(
    "document",
    [
        b'{\n  "a": 1\n}\n',
        b"\n\n  [\n1,\n2\n]\n\n",
        b'{"a":\n"' + b"x" * 500 + b'\n"}'.replace(b"\n", b"\\n"),
        b'{"a": 1,\n"b": NaN}',
        b'{"a": "\\ud800",\n"b": 1e999}',
        b"[\n" * 2000 + b"]" * 2000,
    ],
)
@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_a_document_over_lines_is_one_piece(document: bytes, size: int) -> None:
    found = pieces(document, size)
    assert [p.kind for p in found if p.raw.strip()] == ["document"]
    assert b"".join(p.raw for p in found) == document
    assert found[-1].value is not NO_JSON


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize(
    "text",
    [
        b"[2026-11-24 02:25:53] started\n",
        b"{\nno JSON\n",
        b'{\n"a": 1\n}\nand more\n',
        b'{\n"a": 1\n',
        b"{",
    ],
)
def test_what_only_begins_like_a_document_is_text(text: bytes, size: int) -> None:
    assert kinds(text, size) == [("text", text)]


def test_a_log_that_begins_with_a_bracket_comes_out_line_by_line() -> None:
    splitter = Splitter("auto")
    assert [p.raw for p in splitter.feed(b"[2026-11-24] a\n")] == [b"[2026-11-24] a\n"]
    assert [p.raw for p in splitter.feed(b"[2026-11-24] b\n")] == [b"[2026-11-24] b\n"]


def test_blank_lines_and_a_byte_order_mark_come_out_at_once() -> None:
    splitter = Splitter("auto")
    assert b"".join(p.raw for p in splitter.feed(b"\xef\xbb\xbf\n\n")) == b"\xef\xbb\xbf\n\n"
    assert [p.kind for p in splitter.feed(b'{"a": 1}\n')] == ["record"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", [("text", b'{"a": 1}\nx\n')]),
        ("json", [("document", b'{"a": 1}\nx\n')]),
        ("ndjson", [("record", b'{"a": 1}\n'), ("record", b"x\n")]),
    ],
)
def test_a_format_that_is_named_is_taken(
    form: InputFormat, expected: list[tuple[str, bytes]]
) -> None:
    for size in (1, 4, 100):
        assert kinds(b'{"a": 1}\nx\n', size, form) == expected


@pytest.mark.parametrize(
    ("form", "data", "what"),
    [
        ("auto", b"x" * 101, "a line is longer than 100 bytes"),
        ("text", b"short\n" + b"x" * 101, "a line is longer than 100 bytes"),
        ("auto", b"{\n" + b" " * 99, "a JSON document is longer than 100 bytes"),
        ("json", b" " * 101, "a JSON document is longer than 100 bytes"),
        ("text", "text".encode("utf-16"), "this is UTF-16 text"),
        ("auto", b"\n" + b" " * 101 + b"\n[]", "a line is longer than 100 bytes"),
        ("json", b"\n" + b" " * 101 + b"\n[]", "a JSON document is longer than 100 bytes"),
        ("auto", b"\x1f\x8b\x08\x00", "this is compressed with gzip"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(form: InputFormat, data: bytes, what: str) -> None:
    for size in (1, 1000):
        with pytest.raises(InputError, match=what):
            pieces(data, size, form, max_piece=100)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": [1.5, null]}\r\n', {"a": [1.5, None]}),
        (b'{"a": -Infinity}', {"a": float("-inf")}),
        (b'{"a": "\\ud800"}', {"a": "\ud800"}),
        (b'{"a": 1} x', NO_JSON),
        (b"[a]", NO_JSON),
        (b'{"a": "\xff"}', NO_JSON),
        (b"[" * 5000 + b"]" * 5000, TOO_DEEP),
    ],
)
def test_json_is_told_from_text(raw: bytes, value: Any) -> None:
    assert decode(raw) == value


@given(
    st.lists(st.sampled_from([b"{", b"[1]\n", b"\n", b"x", b"\xff", b'"a":1}', BEGIN, END])),
    st.integers(1, 50),
)
def test_nothing_is_lost_or_moved(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    assert b"".join(piece.raw for piece in pieces(data, size)) == data
    assert b"".join(lines(data)) == data
