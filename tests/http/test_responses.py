"""What comes of bytes that are no ordinary response: a table, and the same of bytes at random.

A response is told as ``status body``, with ``...`` when it has not ended, and ``+`` when another
request may follow on its connection.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.responses import CutError, ProtocolError, ResponseParser

READ = 64 * 1024


class Case(NamedTuple):
    """Bytes until the connection is closed, or not.

    Attributes:
        section: of RFC 9112, else with the number of the RFC; "": of none.
        told: the response, or ``protocol`` or ``cut``, with what had come of it before.
    """

    name: str
    section: str
    data: bytes
    told: str
    method: str = "GET"
    closed: bool = False


def answer(lines: bytes = b"", body: bytes = b"", status: bytes = b"1.1 200 OK") -> bytes:
    return b"HTTP/%b\r\n%b\r\n%b" % (status, lines, body)


def sized(value: bytes, body: bytes = b"ping", more: bytes = b"") -> bytes:
    return answer(b"content-length:%b\r\n%b" % (value, more), body)


def coded(value: bytes, body: bytes = b"4\r\nping\r\n0\r\n\r\n") -> bytes:
    return answer(b"transfer-encoding:%b\r\n" % value, body)


def chunked(body: bytes) -> bytes:
    return coded(b" chunked", body)


NO_CONTENT = answer(status=b"1.1 204 No Content")
OTHER = sized(b" 4", b"evil")

HEADS = [
    Case("a length", "6.2", sized(b" 4"), "200 ping+"),
    Case("nothing yet", "", b"", "0..."),
    Case("half a head", "", answer()[:-1], "0..."),
    Case("no reason", "4", answer(b"content-length: 0\r\n", status=b"1.1 200 "), "200+"),
    Case(
        "no reason, nor a space", "4", answer(b"content-length: 0\r\n", status=b"1.1 200"), "200+",
    ),
    Case("odd reason", "4", answer(b"content-length: 0\r\n", status=b"1.1 200 \xe9 ;"), "200+"),
    Case(
        "unknown status", "9110 15", answer(b"content-length: 0\r\n", status=b"1.1 599 X"), "599+",
    ),
    Case("HTTP/1.0", "9.3", answer(b"content-length: 4\r\n", b"ping", b"1.0 200 OK"), "200 ping"),
    Case(
        "HTTP/1.0, kept", "9.3",
        answer(b"content-length: 4\r\nconnection: keep-alive\r\n", b"ping", b"1.0 200 OK"),
        "200 ping+",
    ),
    Case("close", "9.6", sized(b" 4", more=b"connection: close\r\n"), "200 ping"),
    Case("close among others", "9.6", sized(b" 4", more=b"connection: x, Close\r\n"), "200 ping"),
    Case("blank line before", "2.2", b"\r\n" + sized(b" 4"), "200 ping+"),
    *(
        Case(f"status {status!r}", "4", answer(b"content-length: 0\r\n", status=status), "protocol")
        for status in (
            b"1.1 20 OK", b"1.1 2000 OK", b"1.1 600 X", b"1.1 999 X", b"1.1 000 X", b"1.1 099 X",
            b"1.1 abc", b"1.1 +20 X", b"1.1  200 OK", b"1.1\t200 OK", b"1.1200 OK", b"1.1", b"1.1 ",
            b"0.9 200 OK", b"1.2 200 OK", b"2.0 200 OK", b"3 200 OK", b"1 200 OK", b"11 200 OK",
            b"1.1 200 O\rK", b"1.1 200\x0bOK",
        )
    ),
    *(
        Case(f"begins with {data[:12]!r}", "", data + b"\r\n\r\n", "protocol")
        for data in (
            b"HTTPS/1.1 200 OK", b"http/1.1 200 OK", b"GET / HTTP/1.1", b"<html>", b"\0", b"\xff",
            b"\x15\x03\x01\x00\x02\x02", b"SSH-2.0-OpenSSH", b"200 OK", b" HTTP/1.1 200 OK",
        )
    ),
    *(
        Case(f"header {line!r}", "5", sized(b" 4", more=line), "protocol")
        for line in (
            b"a\r\n", b"a : b\r\n", b": b\r\n", b"a: b\0\r\n", b"a: b\n", b"a: b\rc\r\n",
            b"a\0: b\r\n",
            b"a: b\r\n c\r\n", b"a b: c\r\n", b" a: b\r\n", b"a: \x01\r\n", b"a: \x7f\r\n",
        )
    ),
    Case("bare LF", "2.2", sized(b" 4").replace(b"\r\n", b"\n"), "protocol"),
    Case("large head", "", sized(b" 4", more=b"a: %b\r\n" % (b"b" * 65_000)), "200 ping+"),
    Case("too large a head", "9110 5.4", answer(b"a: %b\r\n" % (b"b" * 66_000)), "protocol"),
    Case("endless value", "9110 5.4", answer(b"a: " + b"b" * 270_000)[:-2], "protocol"),
    Case("endless name", "9110 5.4", answer(b"b" * 270_000)[:-2], "protocol"),
    Case("endless headers", "9110 5.4", answer(b"a: b\r\n" * 50_000), "protocol"),
    Case("endless reason", "9110 5.4", b"HTTP/1.1 200 " + b"a" * 270_000, "protocol"),
]  # fmt: skip

INTERIM = [
    Case("100", "9110 15.2", answer(status=b"1.1 100 Continue") + sized(b" 4"), "200 ping+"),
    Case(
        "102", "9110 15.2", answer(b"a: b\r\n", status=b"1.1 102 X") * 3 + sized(b" 4"),
        "200 ping+",
    ),
    Case("103", "9110 15.2", answer(b"link: </a>\r\n", status=b"1.1 103 X"), "0..."),
    Case(
        "100 with a length", "6.3", sized(b" 4", b"").replace(b"200", b"100") + OTHER, "200 evil+",
    ),
    Case("sixteen", "", answer(status=b"1.1 100 X") * 16 + sized(b" 4"), "200 ping+"),
    Case("seventeen", "", answer(status=b"1.1 100 X") * 17 + sized(b" 4"), "protocol"),
    Case("endless ones", "", answer(status=b"1.1 103 X") * 5000, "protocol"),
    Case(
        "another protocol", "9110 15.2.2", answer(status=b"1.1 101 Switching Protocols"),
        "protocol",
    ),
    Case(
        "another protocol, named", "9110 15.2.2",
        answer(b"connection: upgrade\r\nupgrade: x\r\n", b"\x81\0", b"1.1 101 X"), "protocol",
    ),
    Case(
        "one that is offered", "9110 7.8",
        sized(b" 4", more=b"connection: upgrade\r\nupgrade: h2\r\n"), "200 ping+",
    ),
    Case("100, then closed", "", answer(status=b"1.1 100 X"), "cut 0...", closed=True),
]  # fmt: skip

BODIES = [
    Case("to the end", "6.3", answer(body=b"ping"), "200 ping...") ,
    Case("to the end, closed", "6.3", answer(body=b"ping"), "200 ping", closed=True),
    Case("to the end, nothing", "6.3", answer(), "200", closed=True),
    Case(
        "HTTP/1.0 to the end", "6.3", answer(body=b"a", status=b"1.0 200 OK"), "200 a", closed=True,
    ),
    Case("half of it", "8", sized(b" 8"), "200 ping..."),
    Case("half of it, closed", "8", sized(b" 8"), "cut 200 ping...", closed=True),
    Case("closed at once", "8", b"", "cut 0...", closed=True),
    Case("closed in the head", "8", answer()[:-2], "cut 0...", closed=True),
    Case("closed after it", "9.6", sized(b" 4"), "200 ping+", closed=True),
    Case("more than it says", "9.2", sized(b" 2"), "200 pi"),
    Case("more of what closes", "9.6", sized(b" 2", more=b"connection: close\r\n"), "200 pi"),
    Case("another response", "9.2", sized(b" 4") + OTHER, "200 ping"),
    Case("another head", "9.2", sized(b" 4") + OTHER[:-4], "200 ping"),
    Case("the beginning of one", "9.2", sized(b" 4") + b"H", "200 ping"),
    Case("an interim one", "9.2", sized(b" 4") + answer(status=b"1.1 100 X"), "200 ping"),
    Case("garbage after it", "9.2", sized(b" 4") + b"\0\xff", "200 ping"),
    Case("blank line after it", "9.2", sized(b" 4") + b"\r\n", "200 ping+"),
    *(
        Case(f"length {value!r}", "6.3", sized(value), "protocol")
        for value in (
            b"", b" ", b"-4", b"+4", b"4,4", b"4, 5", b"4 4", b"0x4", b"4.0", b"four", b"4\0",
            b"18446744073709551616", b" 4\r\ncontent-length: 4", b" 4\r\nContent-Length: 5",
        )
    ),
    Case("whitespace around it", "5.1", sized(b" \t4 \t"), "200 ping+"),
]  # fmt: skip

CODINGS = [
    Case("chunked", "7.1", coded(b" chunked"), "200 ping+"),
    Case("upper case", "7", coded(b" CHUNKED "), "200 ping+"),
    Case("with a length", "6.3", coded(b" chunked\r\ncontent-length: 4"), "protocol"),
    Case("after a length", "6.3", sized(b" 4\r\ntransfer-encoding: chunked"), "protocol"),
    Case("HTTP/1.0", "6.1", chunked(b"0\r\n\r\n").replace(b"P/1.1", b"P/1.0"), "protocol"),
    *(
        Case(f"coding {value!r}", "6.1", coded(value), "protocol")
        for value in (
            b"", b" gzip", b" identity", b" gzip, chunked", b" chunked, gzip", b" chunked, chunked",
            b" xchunked", b" chunked\t", b" chunked\x0b", b" chunked\0", b' "chunked"',
            b" chunked,",
            b" chunked;a", b" chunked\r\ntransfer-encoding: chunked",
            b" gzip\r\ntransfer-encoding: chunked", b" chunked\r\ntransfer-encoding: identity",
        )
    ),
    *(
        Case(f"chunk {body[:20]!r}", "7.1", chunked(body), "protocol 200...")
        for body in (
            b"0x4\r\nping", b"+4\r\nping", b"4 \r\nping", b" 4\r\nping", b"\r\nping", b"4\nping",
            b"-1\r\n",
            b"g\r\n", b"1" * 17 + b"\r\n", b"4;\xff\r\nping", b"4;a\nb\r\nping", b"4_\r\nping",
        )
    ),
    *(
        Case(f"after the chunk {end!r}", "7.1", chunked(b"4\r\nping" + end), "protocol 200 ping...")
        for end in (b"0\r\n\r\n", b"X\r\n", b"\n0\r\n\r\n", b"\r\n\r\n", b"\r\n0\r\n\n",
        b"\r\n0\n\r\n")
    ),
    Case("an extension", "7.1.1", chunked(b'4;a="b";c\r\nping\r\n0\r\n\r\n'), "200 ping+"),
    Case("huge extension", "7.1.1", chunked(b"4;" + b"a" * 270_000), "protocol 200..."),
    Case("endless zeros", "7.1", chunked(b"0" * 270_000), "protocol 200..."),
    Case("trailers", "7.1.2", chunked(b"0\r\na: b\r\nc: d\r\n\r\n"), "200+"),
    Case(
        "a length in trailers", "7.1.2", chunked(b"0\r\ncontent-length: 4\r\n\r\n"),
        "protocol 200...",
    ),
    Case("endless trailers", "7.1.2", chunked(b"0\r\n" + b"a: b\r\n" * 50_000), "protocol 200..."),
    Case("endless trailer", "7.1.2", chunked(b"0\r\na: " + b"b" * 270_000), "protocol 200..."),
    Case("many small ones", "7.1", chunked(b"1\r\na\r\n" * 20_000), f"200 {'a' * 20_000}..."),
    Case("no last one, closed", "8", chunked(b"4\r\nping\r\n"), "cut 200 ping...", closed=True),
    Case(
        "no last line, closed", "8", chunked(b"4\r\nping\r\n0\r\n"), "cut 200 ping...", closed=True,
    ),
    Case("another response after it", "9.2", coded(b" chunked") + OTHER, "200 ping"),
    Case("close", "9.6", coded(b" chunked\r\nconnection: close"), "200 ping"),
]  # fmt: skip

WITHOUT = [
    Case("HEAD", "6.3", sized(b" 4", b""), "200+", "HEAD"),
    Case("HEAD, chunked", "6.3", chunked(b""), "200+", "HEAD"),
    Case("HEAD, no framing", "6.3", answer(), "200", "HEAD"),
    Case("HEAD, a body", "6.3", sized(b" 4"), "200", "HEAD"),
    Case("HEAD, a chunked body", "6.3", coded(b" chunked"), "200", "HEAD"),
    Case("HEAD, a body of no length", "6.3", answer(body=b"ping"), "200", "HEAD"),
    Case("HEAD, another response", "9.2", sized(b" 0", b"") + OTHER, "200", "HEAD"),
    Case("HEAD, closed", "9.6", sized(b" 4", b""), "200+", "HEAD", closed=True),
    Case("HEAD, nothing", "8", b"", "cut 0...", "HEAD", closed=True),
    Case("204", "6.3", NO_CONTENT, "204+"),
    Case("204, closed", "9.6", NO_CONTENT, "204+", closed=True),
    Case("204, a body", "6.3", NO_CONTENT + b"ping", "204"),
    Case("204, a length", "6.3", sized(b" 4", b"").replace(b"200", b"204"), "204+"),
    Case("204, a length and a body", "6.3", sized(b" 4").replace(b"200", b"204"), "204"),
    Case("204, another response", "9.2", NO_CONTENT + OTHER, "204"),
    Case("304", "6.3", answer(b'etag: "a"\r\n', status=b"1.1 304 X"), "304+"),
    Case("304, a length", "6.3", sized(b" 4", b"").replace(b"200", b"304"), "304+"),
    Case("304, a length and a body", "6.3", sized(b" 4").replace(b"200", b"304"), "304"),
    Case("304, another response", "9.2", answer(status=b"1.1 304 X") + OTHER, "304"),
    Case("205", "9110 15.3.6", sized(b" 0", b"").replace(b"200", b"205"), "205+"),
]  # fmt: skip

TABLE = [
    pytest.param(case, id=f"{group}: {case.name}")
    for group, cases in (
        ("head", HEADS),
        ("interim", INTERIM),
        ("body", BODIES),
        ("coding", CODINGS),
        ("without", WITHOUT),
    )
    for case in cases
]


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Return the data in pieces of these sizes, the last one again and again."""
    pieces, start, size = [], 0, 1
    remaining = iter(sizes)
    while start < len(data):
        size = next(remaining, size)
        pieces.append(data[start : start + size])
        start += size
    return pieces


def told(pieces: Iterable[bytes], method: str = "GET", closed: bool = False) -> str:
    parser = ResponseParser()
    parser.expect(method)
    failure, body = "", bytearray()
    try:
        for piece in [*pieces, *([b""] if closed else [])]:
            parser.feed(piece)
            body += parser.take()
    except ProtocolError:
        failure = "protocol "
    except CutError:
        failure = "cut "
    body += parser.take()
    if failure == "protocol " and not parser.status:
        return "protocol"
    text = f"{failure}{parser.status} {body.decode('latin-1')}".rstrip(" ")
    return text + "+" * parser.reusable if parser.complete else text + "..."


@pytest.mark.parametrize("case", TABLE)
def test_what_comes_of_it_in_whatever_pieces(case: Case) -> None:
    chance = random.Random(case.name)
    most = chance.choice((3, 40, 1000))
    sizes = [chance.randint(1, most) for _ in range(len(case.data) // most * 2 + 2)]
    for pieces in (cut(case.data, [READ]), cut(case.data, [1]), cut(case.data, sizes)):
        assert told(pieces, case.method, case.closed) == case.told


def test_one_response_after_the_other_is_read_whatever_their_methods() -> None:
    parser = ResponseParser()
    assert (parser.complete, parser.reusable) == (True, True)
    for method, data, status, body in [
        ("GET", sized(b" 4"), 200, b"ping"),
        ("HEAD", sized(b" 4", b""), 200, b""),
        ("HEAD", chunked(b""), 200, b""),
        ("POST", coded(b" chunked"), 200, b"ping"),
        ("GET", NO_CONTENT, 204, b""),
        ("GET", answer(status=b"1.1 100 Continue") + sized(b" 4"), 200, b"ping"),
    ]:
        parser.expect(method)
        assert (parser.status, parser.complete, parser.reusable) == (0, False, False)
        parser.feed(data)
        assert (parser.status, parser.take(), parser.complete) == (status, body, True)
        assert parser.reusable


def test_what_comes_before_it_was_asked_for_answers_nothing() -> None:
    parser = ResponseParser()
    parser.feed(OTHER)
    assert not parser.reusable


def test_headers_are_as_they_came_with_no_whitespace_around_values() -> None:
    parser = ResponseParser()
    parser.expect("GET")
    parser.feed(answer(b"Set-Cookie: a \r\nset-cookie:\tb\xe9\t\r\nX:\r\n"))
    assert parser.headers == [(b"set-cookie", b"a"), (b"set-cookie", b"b\xe9"), (b"x", b"")]
    parser.feed(b"body")
    assert len(parser.headers) == 3


def test_interim_headers_and_trailers_are_none_of_the_response() -> None:
    parser = ResponseParser()
    parser.expect("GET")
    parser.feed(answer(b"link: </a>\r\n", status=b"1.1 103 Early Hints"))
    parser.feed(chunked(b"0\r\na: b\r\n\r\n"))
    assert parser.headers == [(b"transfer-encoding", b"chunked")]


def by_h11(data: bytes, method: str) -> tuple[int, bytes, bool]:
    """Return status, body and whether it has ended, as another reader of the same RFC has them.

    Raises:
        h11.RemoteProtocolError: it is no response.
    """
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    client.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    if data:  # nothing would be the end of the connection
        client.receive_data(data)
    while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, body, True
    return status, body, False


def assert_read_as_by_others(data: bytes, method: str, sizes: list[int]) -> None:
    ours = told(cut(data, [READ]), method)
    assert told(cut(data, sizes), method) == ours
    if ours.startswith("protocol"):
        return
    try:
        status, body, ended = by_h11(data, method)
    except h11.RemoteProtocolError:
        return
    text = f"{status} {body.decode('latin-1')}".rstrip(" ")
    assert ours.removesuffix("+") == text + "..." * (not ended)


SIZES_OF_PIECES = st.lists(st.integers(1, 60), min_size=1, max_size=20)
TOKENS = st.sampled_from(
    [
        b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\t", b" ", b"\x0b", b"\x80", b":", b";", b",",
        b"0", b"1", b"-", b"+", b"0x", b"chunked", b"identity", b"close", b"0\r\n\r\n", b"\r\n ",
        b"\r\ncontent-length: 3", b"\r\ntransfer-encoding: chunked", b"\r\nconnection: close",
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0", b"HTTP/1.1 100 X\r\n\r\n", b"204", b"304", b"101",
        b"\r\nupgrade: h2", b"\r\nconnection: upgrade",
    ]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 4), TOKENS | st.binary(max_size=2)), max_size=4
)
VALID = st.lists(
    st.sampled_from(
        [
            OTHER,
            NO_CONTENT,
            coded(b" chunked"),
            chunked(b"4;a=b\r\nping\r\na\r\n0123456789\r\n0\r\nx: y\r\n\r\n"),
            answer(status=b"1.1 100 Continue"),
            answer(body=b"ping"),
            answer(b'etag: "a"\r\ncontent-length: 4\r\n', status=b"1.1 304 Not Modified"),
            answer(b"content-length: 4\r\nconnection: keep-alive\r\n", b"ping", b"1.0 200 OK"),
        ]
    ),
    min_size=1,
    max_size=3,
).map(b"".join)


@given(VALID, st.sampled_from(["GET", "HEAD"]), EDITS, SIZES_OF_PIECES)
@settings(max_examples=1000)
def test_a_response_that_was_tampered_with_is_read_as_others_read_it(
    data: bytes, method: str, edits: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    for place, removed, token in edits:
        place %= len(data) + 1
        data = data[:place] + token + data[place + removed :]
    assert_read_as_by_others(data, method, sizes)


@given(st.binary(max_size=300), SIZES_OF_PIECES)
def test_bytes_at_random_are_read_as_others_read_them(data: bytes, sizes: list[int]) -> None:
    assert_read_as_by_others(data, "GET", sizes)
    assert_read_as_by_others(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\nping", "GET", sizes)
    assert_read_as_by_others(chunked(data), "GET", sizes)
