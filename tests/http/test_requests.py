"""What comes of bytes that are no ordinary request: a table, and the same of bytes at random.

A request is told as ``METHOD path?query body``, with ``...`` when its body has not ended.
"""

import random
import re
from collections.abc import Iterable
from typing import NamedTuple

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.requests import MAX_HEADERS, Incoming, RequestParser

# As much as the server receives at a time.
READ = 64 * 1024
NEXT = b"GET /next HTTP/1.1\r\nhost: h\r\n\r\n"


class Case(NamedTuple):
    """Bytes, and what comes of them.

    Attributes:
        section: of RFC 9112, else with the number of the RFC; "": of none.
        requests: that are accepted.
        error: the status that then ends the connection; None: nothing does.
    """

    name: str
    section: str
    data: bytes
    requests: list[str]
    error: int | None


def accepted(name: str, section: str, data: bytes, *requests: str) -> Case:
    return Case(name, section, data, list(requests), None)


def refused(name: str, section: str, data: bytes, *requests: str, status: int = 400) -> Case:
    return Case(name, section, data, list(requests), status)


def get(
    lines: bytes = b"", target: bytes = b"/", version: bytes = b"1.1", after: bytes = NEXT
) -> bytes:
    """Return a request with further header lines, and what comes after it."""
    return b"GET %b HTTP/%b\r\nhost: h\r\n%b\r\n" % (target, version, lines) + after


def sized(value: bytes, body: bytes = b"ping") -> bytes:
    return b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length:%b\r\n\r\n" % value + body + NEXT


def coded(value: bytes, version: bytes = b"1.1") -> bytes:
    """Return a request whose body ends at once if it is chunked."""
    head = b"POST / HTTP/%b\r\nhost: h\r\ntransfer-encoding:%b\r\n\r\n" % (version, value)
    return head + b"0\r\n\r\n" + NEXT


def chunked(chunks: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" + chunks


BOTH = ("GET /", "GET /next")
UPGRADE = b"connection: upgrade\r\nupgrade: h2c\r\n"
KEPT_UPGRADE = b"connection: keep-alive, upgrade\r\nupgrade: h2c\r\n"
CODED_UPGRADE = b" chunked\r\nconnection: upgrade\r\nupgrade: websocket"
HALF = "POST / " + NEXT[:-9].decode() + "..."

METHODS_AND_VERSIONS = [
    accepted("plain", "3", get(), *BOTH),
    accepted("a method of another RFC", "9110 16.1", b"PATCH" + get()[3:], "PATCH /", "GET /next"),
    refused("unknown method", "9110 15.6.2", b"BREW" + get()[3:], status=501),
    refused("lower-case method", "9110 9.1", b"get" + get()[3:], status=501),
    refused("method in title case", "9110 9.1", b"Get" + get()[3:], status=501),
    refused("a method that goes on", "9110 9.1", b"GETS" + get()[3:], status=501),
    refused("no method", "3", get()[3:]),
    refused("slash in the method", "3", b"GE/T" + get()[3:]),
    refused("NUL in the method", "3", b"GE\0T" + get()[3:]),
    refused("NUL before the method", "3", b"\0" + get()),
    refused("space before the method", "3", b" " + get()),
    refused("tab for a space", "3", b"GET\t/ HTTP/1.1\r\nhost: h\r\n\r\n"),
    refused("tab before the version", "3", b"GET /\tHTTP/1.1\r\nhost: h\r\n\r\n"),
    # RFC 9112 section 3: a server may take words apart by any whitespace; llhttp takes spaces.
    accepted("two spaces before the target", "3", b"GET  / HTTP/1.1\r\nhost: h\r\n\r\n", "GET /"),
    refused("space after the version", "3", b"GET / HTTP/1.1 \r\nhost: h\r\n\r\n"),
    refused("a fourth word", "3", b"GET / HTTP/1.1 HTTP/1.1\r\nhost: h\r\n\r\n"),
    refused("no target", "3", b"GET HTTP/1.1\r\nhost: h\r\n\r\n"),
    refused("a method only", "3", b"GET\r\n\r\n"),
    refused("HTTP/0.9 without a version", "3", b"GET /\r\n\r\n", status=505),
    refused("HTTP/0.9", "2.3", get(version=b"0.9"), status=505),
    accepted("HTTP/1.0", "9.3", b"GET / HTTP/1.0\r\n\r\n", "GET /"),
    refused("HTTP/1.2", "2.3", get(version=b"1.2")),
    refused("HTTP/1.10", "2.3", get(version=b"1.10")),
    refused("HTTP/01.1", "2.3", get(version=b"01.1")),
    refused("HTTP/1", "2.3", get(version=b"1")),
    refused("HTTP/1,1", "2.3", get(version=b"1,1")),
    refused("HTTP/2.0", "9110 15.6.6", get(version=b"2.0"), status=505),
    refused("HTTP/3", "2.3", get(version=b"3")),
    refused("HTTP/9.9", "2.3", get(version=b"9.9")),
    refused("lower-case HTTP", "2.3", b"GET / http/1.1\r\nhost: h\r\n\r\n"),
    refused("another protocol", "2.3", b"GET / HTTPS/1.1\r\nhost: h\r\n\r\n"),
    refused("HTTP/2 at once", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("TLS", "", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))),
    refused("SSH", "", b"SSH-2.0-OpenSSH_9.6\r\n"),
    refused("SMTP", "", b"EHLO example.com\r\n"),
    refused("PROXY protocol", "", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get()),
    refused("PROXY protocol 2", "", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + get()),
    refused("a response", "", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    refused("all bytes", "", bytes(range(256))),
    refused("JSON", "", b'{"a": 1}\r\n\r\n'),
]

TARGETS = [
    accepted("path and query", "3.2.1", get(target=b"/a/b?c=d&e"), "GET /a/b?c=d&e", "GET /next"),
    accepted("empty query", "3.2.1", get(target=b"/a?"), "GET /a", "GET /next"),
    accepted("question marks", "3.2.1", get(target=b"/a?b?c"), "GET /a?b?c", "GET /next"),
    accepted("two slashes", "3.2.1", get(target=b"//a//b"), "GET //a//b", "GET /next"),
    accepted("dots", "3.2.1", get(target=b"/a/../b/./c"), "GET /a/../b/./c", "GET /next"),
    accepted("encoded", "3.2.1", get(target=b"/%2e%2E%2f%00%"), "GET /%2e%2E%2f%00%", "GET /next"),
    accepted("odd marks", "3.2.1", get(target=b'/"<>\\^`{|}'), 'GET /"<>\\^`{|}', "GET /next"),
    accepted("absolute", "3.2.2", get(target=b"http://h/a?b"), "GET /a?b", "GET /next"),
    accepted("absolute, no path", "3.2.2", get(target=b"http://h"), *BOTH),
    accepted("absolute, query only", "3.2.2", get(target=b"http://h?b"), "GET /?b", "GET /next"),
    accepted("absolute, upper case", "3.2.2", get(target=b"HTTP://H:1/a"), "GET /a", "GET /next"),
    accepted("absolute, another host", "3.2.2", get(target=b"http://x/a"), "GET /a", "GET /next"),
    accepted("absolute, IPv6", "3.2.2", get(target=b"http://[::1]:8/a"), "GET /a", "GET /next"),
    refused("absolute, no host", "9110 4.2.1", get(target=b"http:///a")),
    refused("absolute, port only", "9110 4.2.1", get(target=b"http://:80/a")),
    refused("absolute, a name of a user", "9110 4.2.4", get(target=b"http://u:p@h/a")),
    refused("absolute, backslash", "3.2.2", get(target=b"http://h\\x/a")),
    refused("absolute, one slash", "3.2.2", get(target=b"http:/h/a")),
    refused("absolute, another scheme", "3.2.2", get(target=b"ftp://h/a")),
    refused("authority", "3.2.3", get(target=b"h:80")),
    refused("a tunnel", "3.2.3", b"CONNECT h:443 HTTP/1.1\r\nhost: h\r\n\r\n" + NEXT, status=405),
    refused("a tunnel to a path", "3.2.3", b"CONNECT" + get()[3:], status=405),
    accepted("asterisk", "3.2.4", b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n", "OPTIONS *"),
    refused("asterisk of another method", "3.2.4", get(target=b"*")),
    refused("asterisk and more", "3.2.4", b"OPTIONS */a HTTP/1.1\r\nhost: h\r\n\r\n"),
    refused("no slash", "3.2", get(target=b"a/b")),
    refused("query only", "3.2", get(target=b"?a")),
    refused("fragment", "3.2", get(target=b"/a#b")),
    refused("fragment after the query", "3.2", get(target=b"/a?b#c")),
    refused("fragment of an absolute one", "3.2", get(target=b"http://h/#c")),
    refused("space in it", "3.2", get(target=b"/a b")),
    refused("tab in it", "3.2", get(target=b"/a\tb")),
    refused("NUL in it", "3.2", get(target=b"/a\0b")),
    refused("DEL in it", "3.2", get(target=b"/a\x7fb")),
    refused("control in it", "3.2", get(target=b"/a\x1bb")),
    refused("form feed in it", "3.2", get(target=b"/a\x0cb")),
    refused("CR in it", "3.2", get(target=b"/a\rb")),
    refused("LF in it", "3.2", get(target=b"/a\nb")),
    refused("UTF-8", "3.2", get(target="/é".encode())),
    refused("Latin-1", "3.2", get(target=b"/\xe9")),
]

HOSTS = [
    refused("none", "3.2", b"GET / HTTP/1.1\r\n\r\n"),
    accepted("none in HTTP/1.0", "3.2", b"GET / HTTP/1.0\r\n\r\n", "GET /"),
    refused("two", "3.2", get(b"host: h\r\n")),
    refused("two in HTTP/1.0", "3.2", get(b"Host: x\r\n", version=b"1.0")),
    refused("two in other case", "3.2", get(b"HOST: x\r\n")),
    accepted("empty", "3.2", b"GET / HTTP/1.1\r\nhost:\r\n\r\n", "GET /"),
    *(
        accepted(f"the host {host!r}", "3.2", b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host, "GET /")
        for host in (b"a_b.c-d", b"h:", b"h:80", b"127.0.0.1:1", b"[::1]", b"[::1]:80", b"%41")
    ),
    *(
        refused(f"the host {host!r}", "3.2", b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host)
        for host in (
            b"a b", b"a/b", b"a?b", b"a#b", b"a@b", b"a:b", b"a:1:2", b"http://a", b"a\\b", b"[::1",
            b"::1", b"a\tb", b"a\xe9", b":80", b'"a"', b"a\0b",
        )
    ),
]  # fmt: skip

LINES = [
    accepted("blank lines before", "2.2", b"\r\n\r\n" + get(), *BOTH),
    accepted("line feeds before", "2.2", b"\n\n" + get(), *BOTH),
    accepted("blank lines only", "2.2", b"\r\n" * 100),
    accepted("blank line between", "2.2", get() + b"\r\n" + NEXT, "GET /", *["GET /next"] * 2),
    accepted("nothing", "", b""),
    accepted("a part of a head", "", NEXT[:-2]),
    refused("bare LF everywhere", "2.2", get().replace(b"\r\n", b"\n")),
    refused("bare LF after the first line", "2.2", b"GET / HTTP/1.1\nhost: h\r\n\r\n"),
    refused("bare LF after a header", "2.2", get(b"a: b\n")),
    refused("bare LF at the end", "2.2", b"GET / HTTP/1.1\r\nhost: h\r\n\n" + NEXT),
    refused("bare CR after a header", "2.2", get(b"a: b\rc: d\r\n")),
    refused("bare CR at the end", "2.2", b"GET / HTTP/1.1\r\nhost: h\r\n\r" + NEXT),
    refused("bare CR in a value", "2.2", get(b"a: b\rc\r\n")),
    refused("bare CR before a value", "2.2", get(b"a:\r b\r\n")),
    refused("bare CR in a name", "2.2", get(b"a\rb: c\r\n")),
    refused("two CR", "2.2", get(b"a: b\r\r\n")),
    refused("LF and CR", "2.2", get(b"a: b\n\r")),
    refused("folded", "5.2", get(b"a: b\r\n c\r\n")),
    refused("folded by a tab", "5.2", get(b"a: b\r\n\tc\r\n")),
    refused("folded at once", "5.2", get(b"a:\r\n b\r\n")),
    refused("a blank folded line", "5.2", get(b"a: b\r\n \r\n")),
    refused("space before the first header", "2.2", b"GET / HTTP/1.1\r\n host: h\r\n\r\n"),
    refused("space before the colon", "5.1", get(b"a : b\r\n")),
    refused("tab before the colon", "5.1", get(b"a\t: b\r\n")),
    refused("no colon", "5", get(b"a\r\n")),
    refused("no name", "5", get(b": b\r\n")),
    refused("colon only", "5", get(b":\r\n")),
    refused("NUL in a name", "5", get(b"a\0b: c\r\n")),
    refused("space in a name", "5", get(b"a b: c\r\n")),
    refused("bracket in a name", "5", get(b"a(b: c\r\n")),
    refused("UTF-8 in a name", "5", get("é: c\r\n".encode())),
    refused("high byte in a name", "5", get(b"a\xff: c\r\n")),
    refused("quoted name", "5", get(b'"a": c\r\n')),
    refused("NUL in a value", "5.5", get(b"a: b\0c\r\n")),
    refused("NUL for a value", "5.5", get(b"a: \0\r\n")),
    refused("SOH in a value", "5.5", get(b"a: b\x01c\r\n")),
    refused("VT in a value", "5.5", get(b"a: b\x0bc\r\n")),
    refused("DEL in a value", "5.5", get(b"a: b\x7fc\r\n")),
    accepted("UTF-8 in a value", "9110 5.5", get("a: é\r\n".encode()), *BOTH),
    accepted("tab in a value", "9110 5.5", get(b"a: b\tc\r\n"), *BOTH),
    accepted("empty value", "9110 5.5", get(b"a:\r\n"), *BOTH),
    accepted("blank value", "9110 5.5", get(b"a: \t \r\n"), *BOTH),
    accepted("marks in a name", "9110 5.6.2", get(b"!#$%&'*+-.^_`|~0A: b\r\n"), *BOTH),
]  # fmt: skip

LENGTHS = [
    accepted("a length", "6.2", sized(b" 4"), "POST / ping", "GET /next"),
    accepted(
        "no length", "6.3", b"POST / HTTP/1.1\r\nhost: h\r\n\r\n" + NEXT, "POST /", "GET /next",
    ),
    accepted("zero", "6.2", sized(b" 0", b""), "POST /", "GET /next"),
    accepted("zeros", "6.2", sized(b" 000", b""), "POST /", "GET /next"),
    accepted("zeros before it", "6.2", sized(b" 0004"), "POST / ping", "GET /next"),
    accepted("whitespace around it", "5.1", sized(b" \t4 \t"), "POST / ping", "GET /next"),
    accepted("a body of GET", "9110 9.3.1", b"GET" + sized(b"4")[4:], "GET / ping", "GET /next"),
    accepted("more than comes", "8", sized(b"400"), f"POST / ping{NEXT.decode()}..."),
    accepted("2**64 - 1", "6.2", sized(b"18446744073709551615"), f"POST / ping{NEXT.decode()}..."),
    refused("2**64", "6.2", sized(b"18446744073709551616")),
    refused("2**64 + 4", "6.2", sized(b"18446744073709551620")),
    refused("a thousand digits", "6.2", sized(b"9" * 1000)),
    refused("the same twice", "6.3", sized(b" 4\r\ncontent-length: 4")),
    refused("two", "6.3", sized(b" 4\r\ncontent-length: 5")),
    refused("two, one of them zero", "6.3", sized(b" 0\r\nContent-Length: 4")),
    refused("two in other case", "6.3", sized(b" 4\r\nCONTENT-LENGTH: 0")),
    *(
        refused(f"the length {value!r}", "6.2", sized(value))
        for value in (
            b"", b" ", b"+4", b"-4", b"-0", b"4,4", b"4, 4", b"4,5", b"4 4", b"4;", b"0x4", b"4.0",
            b"4e0", b"1_0", b"\x0b4", b"4\x0b", b"4\0", b"'4'", b'"4"', b"four", b"\xb2", b"4\xa0",
            "٤".encode(), b"nan",
        )
    ),
    refused(
        "a name with a space", "5.1", b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length : 4\r\n\r\n",
    ),
    accepted("another name", "5", get(b"content_length: 4\r\n"), *BOTH),
]  # fmt: skip

CODINGS = [
    accepted("chunked", "7.1", coded(b" chunked"), "POST /", "GET /next"),
    accepted("upper case", "7", coded(b" CHUNKED"), "POST /", "GET /next"),
    accepted("no whitespace", "5.1", coded(b"chunked"), "POST /", "GET /next"),
    accepted("spaces around it", "5.1", coded(b"   chunked  "), "POST /", "GET /next"),
    accepted("tab before it", "5.1", coded(b"\tchunked"), "POST /", "GET /next"),
    # llhttp takes no tab there.
    refused("tab after it", "5.1", coded(b" chunked\t"), status=501),
    refused("then a length", "6.3", coded(b" chunked\r\ncontent-length: 5")),
    refused("then a length of zero", "6.3", coded(b" chunked\r\ncontent-length: 0")),
    refused("after a length", "6.3", sized(b"5\r\ntransfer-encoding: chunked", b"0\r\n\r\n")),
    refused("after an empty length", "6.3", sized(b"\r\ntransfer-encoding: chunked", b"0\r\n\r\n")),
    refused("then an empty length", "6.3", coded(b" chunked\r\ncontent-length:")),
    refused("another one after a length", "6.3", sized(b"5\r\ntransfer-encoding: x", b"0\r\n\r\n")),
    refused("in HTTP/1.0", "6.1", coded(b" chunked", b"1.0")),
    refused("in HTTP/1.0, kept", "6.1", coded(b" chunked\r\nconnection: keep-alive", b"1.0")),
    refused("in HTTP/1.0, after a length", "6.1", coded(b" chunked\r\ncontent-length: 5", b"1.0")),
    refused("twice", "6.1", coded(b" chunked\r\ntransfer-encoding: chunked")),
    refused("twice in a line", "6.1", coded(b" chunked, chunked")),
    refused("folded", "5.2", coded(b"\r\n chunked")),
    refused("no value, then chunked", "6.1", coded(b"\r\ntransfer-encoding: chunked")),
    *(
        refused(f"the coding {value!r}", "6.1", coded(b" " + value))
        for value in (
            b"", b" ", b"chunked\0", b"\0chunked", b"chun\0ked", b"chunked\x0b", b"\x0bchunked",
            b"\x0cchunked", b"chunked\r", b"chunked\n", b"chunked\x7f", b"\x1fchunked",
            b"chunked\n chunked", b"chunked\rtransfer-encoding: x",
        )
    ),
    *(
        refused(f"the coding {value!r}", "6.1", coded(b" " + value), status=501)
        for value in (
            b"xchunked", b"chunkedx", b"chunk", b"chun ked", b"x chunked", b"'chunked'",
            b'"chunked"', b"identity", b"gzip", b"x", b"identity, chunked", b"gzip, chunked",
            b",chunked", b"chunked;q=1", b"chunked; a=b", b"chunked-", b"chunked:", b"cow, chunked",
            b"\xa0chunked", b"chunked\xa0", b"\x85chunked", "\u212ahunked".encode(), b"chunked=1",
            b"trailers, chunked", b"gzip\r\ntransfer-encoding: chunked",
            b"identity\r\ntransfer-encoding: chunked", b"x\r\nTransfer-Encoding: chunked",
        )
    ),
    *(
        refused(f"chunked before {value!r}", "6.1", coded(b" chunked" + value))
        for value in (
            b",", b", identity", b", gzip", b" , x", b"\r\ntransfer-encoding: identity",
            b"\r\nTRANSFER-ENCODING: x", b"\r\ntransfer-encoding:",
        )
    ),
    refused("space before the colon", "5.1", coded(b" x").replace(b"encoding:", b"encoding :")),
    refused("NUL in the name", "5", coded(b" chunked").replace(b"-encoding", b"\0-encoding")),
    refused("CR before the name", "2.2", coded(b" chunked").replace(b"transfer", b"\rtransfer")),
    refused("space before the name", "2.2", coded(b" chunked").replace(b"transfer", b" transfer")),
    # Another name, so no body: what follows is no request.
    refused("underscore", "5", coded(b" chunked").replace(b"r-e", b"r_e"), "POST /"),
]  # fmt: skip

PING = "POST / ping"

CHUNKS = [
    accepted("a chunk", "7.1", chunked(b"4\r\nping\r\n0\r\n\r\n") + NEXT, PING, "GET /next"),
    accepted("two", "7.1", chunked(b"1\r\np\r\n3\r\ning\r\n0\r\n\r\n") + NEXT, PING, "GET /next"),
    accepted("zeros before it", "7.1", chunked(b"0004\r\nping\r\n000\r\n\r\n"), PING),
    accepted("upper case", "7.1", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), "POST / 0123456789"),
    accepted("lower case", "7.1", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), "POST / 0123456789"),
    accepted("no end", "8", chunked(b"4\r\nping\r\n"), PING + "..."),
    accepted("no last line", "8", chunked(b"4\r\nping\r\n0\r\n"), PING + "..."),
    accepted("2**64 - 1", "7.1", chunked(b"ffffffffffffffff\r\nping\r\n0"), PING + "\r\n0..."),
    *(
        refused(f"the size {size!r}", "7.1", chunked(size + b"\r\nping\r\n0\r\n\r\n"), "POST / ...")
        for size in (
            b"", b"0x4", b"+4", b"-4", b" 4", b"\t4", b"4 ", b"4\t", b"4_", b"4_0", b"4h", b"g",
            b"4.", b"4,", b"4\0", b"\x004", b"4\x0b", b"4\n", b"\n4", b"4\r", b"\r4", b"\r\n4",
            b"10000000000000004", b"f" * 17, "\uff14".encode(), b"'4'", b";4", b"=4",
        )
    ),
    *(
        refused(f"after the chunk {end!r}", "7.1", chunked(b"4\r\nping" + end), PING + "...")
        for end in (
            b"0\r\n\r\n", b"\n0\r\n\r\n", b"\r0\r\n\r\n", b"X\r\n0\r\n\r\n", b" \r\n0\r\n\r\n",
            b"\r\n\r\n0\r\n\r\n", b"\r\n\0\r\n0\r\n\r\n", b"\n\n", b"\r\r",
        )
    ),
    refused("shorter than it says", "7.1", chunked(b"5\r\nping\r\n0\r\n\r\n"), "POST / ping\r..."),
    refused("LF after the size", "2.2", chunked(b"4\nping\r\n0\r\n\r\n"), "POST / ..."),
    refused("CR after the size", "2.2", chunked(b"4\rping\r\n0\r\n\r\n"), "POST / ..."),
    refused("LF after the last one", "2.2", chunked(b"4\r\nping\r\n0\n\r\n"), PING + "..."),
    refused("LF at the end", "2.2", chunked(b"4\r\nping\r\n0\r\n\n"), PING + "..."),
    refused("another request at once", "7.1", chunked(b"4\r\nping\r\n0\r\n") + NEXT, PING + "..."),
    *(
        accepted(f"extension {text!r}", "7.1.1", chunked(b"4" + text + b"\r\nping"), PING + "...")
        for text in (b";a", b";a=b", b";a=", b';a="b"', b';a="b;c\\""', b";a;b=c;d", b";a" * 100)
    ),
    *(
        refused(f"extension {text!r}", "7.1.1", chunked(b"4" + text + b"\r\np"), "POST / ...")
        for text in (
            b";", b" ;a", b";a\0", b";a\n", b";\n", b";a=\n", b";\r", b';a="', b';a="\n"', b";\xff",
            b';a="\r\n"', b";a=b\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n",
        )
    ),
    refused("a huge extension", "7.1.1", chunked(b"4;" + b"a" * 270_000), "POST / ..."),
    refused("endless zeros", "7.1", chunked(b"0" * 270_000), "POST / ..."),
    accepted(
        "a byte at a time", "7.1", chunked(b"1\r\na\r\n" * 50_000), f"POST / {'a' * 50_000}...",
    ),
    accepted(
        "a trailer", "7.1.2", chunked(b"0\r\na: b\r\nc: d\r\n\r\n") + NEXT, "POST /", "GET /next",
    ),
    accepted(
        "a trailer: host", "7.1.2", chunked(b"0\r\nhost: x\r\n\r\n") + NEXT, "POST /", "GET /next",
    ),
    accepted(
        "a trailer: te", "7.1.2", chunked(b"0\r\nte: x\r\n\r\n") + NEXT, "POST /", "GET /next",
    ),
    *(
        refused(f"the trailer {text!r}", "7.1.2", chunked(b"0\r\n%b\r\n\r\n" % text), "POST / ...")
        for text in (
            b"content-length: 5", b"transfer-encoding: chunked", b"a", b"a : b", b" a: b", b": b",
            b"a: b\0", b"a: b\n", b"a: b\r\n c", b"a: b\rc", b"GET /smuggled HTTP/1.1",
        )
    ),
    refused("endless trailers", "7.1.2", chunked(b"0\r\n" + b"a: b\r\n" * 50_000), "POST / ..."),
    refused("a huge trailer", "7.1.2", chunked(b"0\r\na: " + b"b" * 270_000), "POST / ..."),
]  # fmt: skip

SIZES = [
    accepted("many headers", "", get(b"a: b\r\n" * (MAX_HEADERS - 1)), *BOTH),
    refused("too many headers", "9110 5.4", get(b"a: b\r\n" * MAX_HEADERS), status=431),
    refused("endless headers", "9110 5.4", get(b"a: b\r\n" * 50_000), status=431),
    accepted("a large header", "", get(b"a: %b\r\n" % (b"b" * 65_000)), *BOTH),
    refused("too large a header", "9110 5.4", get(b"a: %b\r\n" % (b"b" * 66_000)), status=431),
    refused("too large a name", "9110 5.4", get(b"%b: b\r\n" % (b"a" * 66_000)), status=431),
    refused("large headers", "9110 5.4", get(b"a: %b\r\n" % (b"b" * 7000) * 10), status=431),
    refused(
        "a header without end", "9110 5.4", b"GET / HTTP/1.1\r\na: " + b"b" * 270_000, status=431,
    ),
    refused("a name without end", "9110 5.4", b"GET / HTTP/1.1\r\n" + b"a" * 270_000, status=431),
    refused("spaces without end", "9110 5.4", b"GET / HTTP/1.1\r\na:" + b" " * 270_000, status=431),
    refused("a target without end", "3", b"GET /" + b"a" * 270_000, status=431),
    refused("too large a target", "3", get(target=b"/" + b"a" * 66_000), status=431),
    accepted(
        "a large target", "3", get(target=b"/" + b"a" * 65_000), "GET /" + "a" * 65_000,
        "GET /next",
    ),
    refused("spaces before the target", "3", b"GET" + b" " * 270_000, status=431),
    refused("blank lines without end", "2.2", b"\r\n" * 135_000),
    accepted(
        "a large head after a large body",
        "",
        sized(b"65000", b"x" * 65_000) + get(b"a: %b\r\n" % (b"b" * 60_000)),
        f"POST / {'x' * 65_000}", "GET /next", "GET /", "GET /next",
    ),
]  # fmt: skip

CONNECTIONS = [
    accepted("thousands", "9.3.2", NEXT * 5000, *["GET /next"] * 5000),
    accepted("with bodies", "9.3.2", sized(b"4") * 1000, *[PING, "GET /next"] * 1000),
    refused("the last one faulty", "9.3.2", NEXT * 3000 + get(b"a b\r\n"), *["GET /next"] * 3000),
    refused("garbage after one", "9.3.2", NEXT + b"\x16\x03\x01", "GET /next"),
    refused("garbage after a body", "9.3.2", sized(b"2"), "POST / pi"),
    refused("after close", "9.6", get(b"connection: close\r\n"), "GET /"),
    refused("after close, in a list", "9.6", get(b"connection: x, Close\r\n"), "GET /"),
    refused("after HTTP/1.0", "9.3", get(version=b"1.0"), "GET /"),
    accepted("HTTP/1.0, kept", "9.3", get(b"connection: keep-alive\r\n", version=b"1.0"), *BOTH),
    accepted(
        "blank line after close", "9.6", get(b"connection: close\r\n", after=b"\r\n"), "GET /",
    ),
    accepted("100-continue", "9110 10.1.1", sized(b"4\r\nexpect: 100-Continue"), PING, "GET /next"),
    refused("expect of another kind", "9110 10.1.1", get(b"expect: 200-ok\r\n"), status=417),
    refused("expect of two kinds", "9110 10.1.1", get(b"expect: 100-continue, x\r\n"), status=417),
    refused("empty expect", "9110 10.1.1", get(b"expect:\r\n"), status=417),
    accepted("h2c", "9110 7.8", get(UPGRADE), *BOTH),
    accepted("upgrade without the option", "9110 7.8", get(b"upgrade: h2c\r\n"), *BOTH),
    accepted("the option without upgrade", "9110 7.8", get(b"connection: upgrade\r\n"), *BOTH),
    accepted("upgrade in HTTP/1.0", "9110 7.8", get(KEPT_UPGRADE, version=b"1.0"), *BOTH),
    accepted("upgrade with a body", "9110 7.8", sized(b"4\r\n" + UPGRADE[:-2]), PING, "GET /next"),
    accepted(
        "upgrade with no body", "9110 7.8", sized(b"0\r\n" + UPGRADE[:-2], b""),
        "POST /", "GET /next",
    ),
    accepted(
        "upgrade with half a body", "9110 7.8", sized(b"90\r\n" + UPGRADE[:-2], b"")[:-9], HALF,
    ),
    accepted("upgrade with chunks", "9110 7.8", coded(CODED_UPGRADE), "POST /", "GET /next"),
    refused(
        "upgrade with faulty chunks", "7.1", coded(CODED_UPGRADE).replace(b"0\r", b"-\r"),
        "POST / ...",
    ),
    refused("upgrade, then garbage", "9110 7.8", get(UPGRADE, after=b"\0"), "GET /"),
    refused(
        "upgrade with a body, then garbage", "9110 7.8", sized(b"2\r\n" + UPGRADE[:-2]),
        "POST / pi",
    ),
    refused("upgrade with two lengths", "6.3", sized(b"4\r\ncontent-length: 4\r\n" + UPGRADE[:-2])),
    refused(
        "upgrade with both", "6.3", sized(b"4\r\ntransfer-encoding: chunked\r\n" + UPGRADE[:-2]),
    ),
    refused(
        "upgrade of too many headers", "9110 5.4", get(UPGRADE + b"a: b\r\n" * MAX_HEADERS),
        status=431,
    ),
    accepted("thousands of upgrades", "9110 7.8", get(UPGRADE) * 1000, *BOTH * 1000),
    accepted(
        "thousands with bodies", "9110 7.8", sized(b"4\r\n" + UPGRADE[:-2]) * 1000,
        *[PING, "GET /next"] * 1000,
    ),
]  # fmt: skip

TABLE = [
    pytest.param(case, id=f"{group}: {case.name}")
    for group, cases in (
        ("request line", METHODS_AND_VERSIONS),
        ("target", TARGETS),
        ("host", HOSTS),
        ("lines", LINES),
        ("length", LENGTHS),
        ("coding", CODINGS),
        ("chunks", CHUNKS),
        ("size", SIZES),
        ("connection", CONNECTIONS),
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


def read(pieces: Iterable[bytes]) -> tuple[list[Incoming], list[bytes], int | None]:
    """Return the requests, their bodies, and the status of what is refused."""
    parser = RequestParser()
    requests: list[Incoming] = []
    for piece in pieces:
        parser.feed(piece)
        while request := parser.next():
            requests.append(request)
    error = parser.error
    return requests, [r.take() for r in requests], None if error is None else error.status


def told(pieces: Iterable[bytes]) -> tuple[list[str], int | None]:
    requests, bodies, error = read(pieces)
    lines = []
    for request, body in zip(requests, bodies, strict=True):
        target = request.path + (b"?" + request.query if request.query else b"")
        text = f"{request.method} {target.decode()} {body.decode('latin-1')}"
        lines.append(text.rstrip(" ") if request.ended else text + "...")
    return lines, error


@pytest.mark.parametrize("case", TABLE)
def test_what_comes_of_it_in_whatever_pieces(case: Case) -> None:
    chance = random.Random(case.name)
    most = chance.choice((3, 40, 1000))
    sizes = [chance.randint(1, most) for _ in range(len(case.data) // most * 2 + 2)]
    assert told(cut(case.data, [READ])) == (case.requests, case.error)
    for pieces in (cut(case.data, [1]), cut(case.data, sizes)):
        requests, error = told(pieces)
        # That something is a method, though none that there is, shows only while it is in one.
        assert (requests, error) in ((case.requests, case.error), (case.requests, 400))
        assert error == case.error or case.data[:4] in (b"BREW", b"get ", b"Get ", b"GETS")


def test_bodies_of_little_in_many_bytes_are_refused_though_some_of_it_comes() -> None:
    data = chunked(b"1;%b\r\na\r\n" % (b"x" * 30_000) * 20)
    for size in (1, 1000, READ):
        (request,), (body,), error = read(cut(data, [size]))
        assert (error, request.ended, len(body) < 10) == (400, False, True)


def test_what_comes_of_a_value_has_no_whitespace_around_it() -> None:
    (request, _), _, _ = read([get(b"A: \t b c \t \r\nb:\t\r\nB:d\xe9\t\r\n")])
    assert request.headers == [(b"host", b"h"), (b"a", b"b c"), (b"b", b""), (b"b", b"d\xe9")]


def test_trailers_are_no_headers_of_any_request() -> None:
    requests, _, _ = read([chunked(b"0\r\na: b\r\nc: d\r\n\r\n") + NEXT])
    assert [len(request.headers) for request in requests] == [2, 1]


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: a\r\nconnection: CLOSE\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade, close\r\nupgrade: x\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nkeep-alive: 5\r\n\r\n", False),
    ],
)
def test_whether_a_connection_is_kept(head: bytes, kept: bool) -> None:
    (request,), _, _ = read([head])
    assert request.keep_alive is kept


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        (b"1.1", b"content-length: 4\r\n", True),
        (b"1.1", b"transfer-encoding: chunked\r\n", True),
        (b"1.1", b"content-length: 0\r\n", False),
        (b"1.1", b"", False),
        (b"1.0", b"content-length: 4\r\n", False),
    ],
)
def test_100_continue_is_expected_only_with_a_body(
    version: bytes, lines: bytes, expected: bool
) -> None:
    head = b"POST / HTTP/%b\r\nhost: h\r\nexpect: 100-continue\r\n%b\r\n" % (version, lines)
    (request,), _, _ = read([head])
    assert request.expects_continue is expected


def test_an_upgrade_has_its_body_though_that_comes_later() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n" + UPGRADE + b"\r\n")
    request = parser.next()
    assert request is not None
    assert (request.ended, parser.is_idle) == (False, False)
    parser.feed(b"pi")
    parser.feed(b"ng" + NEXT)
    assert (request.ended, request.take(), parser.is_idle) == (True, b"ping", True)
    following = parser.next()
    assert following is not None
    assert (following.path, following.headers) == (b"/next", [(b"host", b"h")])


def test_a_connection_is_idle_between_requests_only() -> None:
    parser = RequestParser()
    assert parser.is_idle
    for byte in b"\r\n":
        parser.feed(bytes([byte]))
        assert parser.is_idle
    for byte in NEXT[:-1]:
        parser.feed(bytes([byte]))
        assert not parser.is_idle
    parser.feed(b"\n")
    assert parser.is_idle
    parser.feed(NEXT + b"G")
    assert not parser.is_idle


def test_after_an_error_nothing_is_read() -> None:
    parser = RequestParser()
    parser.feed(NEXT + b"\0")
    error = parser.error
    parser.feed(NEXT)
    assert parser.next() is not None
    assert (parser.next(), parser.error) == (None, error)


class Read(NamedTuple):
    """A request as a parser has read it; the body is what has come of it."""

    method: bytes
    target: bytes
    body: bytes
    ended: bool


def by_h11(data: bytes) -> list[Read]:
    """Return the requests before the first error, as another reader of the same RFC has them."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    if data:  # nothing would be the end of the connection
        server.receive_data(data)
    found: list[Read] = []
    try:
        while (event := server.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                found.append(Read(event.method, event.target, b"", False))
            elif isinstance(event, h11.Data):
                found[-1] = found[-1]._replace(body=found[-1].body + event.data)
            elif isinstance(event, h11.EndOfMessage):
                found[-1] = found[-1]._replace(ended=True)
                server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                server.send(h11.EndOfMessage())
                if (server.our_state, server.their_state) != (h11.DONE, h11.DONE):
                    break
                server.start_next_cycle()
    except h11.RemoteProtocolError:
        pass
    return found


def by_us(pieces: Iterable[bytes]) -> tuple[list[Read], bool]:
    requests, bodies, error = read(pieces)
    found = []
    for request, body in zip(requests, bodies, strict=True):
        target = request.path + b"?" * bool(request.query) + request.query
        found.append(Read(request.method.encode(), target, body, request.ended))
    return found, error is None


def assert_read_as_by_others(data: bytes, sizes: list[int]) -> None:
    ours, good = by_us([data])
    assert by_us(cut(data, sizes)) == (ours, good)
    # The last one before an error may be cut short by it.
    complete = ours if good else [request for request in ours if request.ended]
    for mine, other in zip(complete, by_h11(data), strict=False):
        expected = other.target
        if not expected.startswith(b"/") and expected != b"*":
            rest = re.sub(rb"(?i)^https?://[^/?]+", b"", expected)
            expected = rest if rest.startswith(b"/") else b"/" + rest
        assert mine == other._replace(target=expected.removesuffix(b"?"))


SIZES_OF_PIECES = st.lists(st.integers(1, 60), min_size=1, max_size=20)
# What goes wrong in practice, and what is told of in research about request smuggling.
TOKENS = st.sampled_from(
    [
        b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\t", b" ", b"\x0b", b"\x7f", b"\x80", b":",
        b";", b",", b"0", b"1", b"-", b"+", b"0x", b"\xff", b"chunked", b"identity", b"close",
        b"0\r\n\r\n",
        b"\r\ncontent-length: 3", b"\r\ntransfer-encoding: chunked", b"\r\nconnection: upgrade",
        b"\r\nupgrade: h2c", b"\r\nexpect: 100-continue", b"\r\nhost: h", b"GET / HTTP/1.1\r\n",
        b"#", b"\r\nconnection: close", b"HTTP/1.0", b"\r\n ", b"\r\n\t", b" HTTP/1.1", b"?", b'"',
        b"\\",
    ]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 4), TOKENS | st.binary(max_size=2)), max_size=4
)
VALID = st.lists(
    st.sampled_from(
        [
            NEXT,
            sized(b" 4"),
            sized(b" 4\r\n" + UPGRADE[:-2]),
            coded(b" chunked"),
            chunked(b"4;a=b\r\nping\r\na\r\n0123456789\r\n0\r\nx: y\r\n\r\n"),
            coded(CODED_UPGRADE),
            get(UPGRADE),
            get(target=b"http://h:80/a?b"),
            get(b"connection: keep-alive\r\n", version=b"1.0"),
            b"OPTIONS * HTTP/1.1\r\nhost: h\r\nx: y z\r\n\r\n",
            b"HEAD /a?b HTTP/1.1\r\nHost: [::1]:8\r\nexpect: 100-continue\r\n\r\n",
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


@given(VALID, EDITS, SIZES_OF_PIECES)
@settings(max_examples=1500)
def test_a_request_that_was_tampered_with_is_read_as_others_read_it(
    data: bytes, edits: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    for place, removed, token in edits:
        place %= len(data) + 1
        data = data[:place] + token + data[place + removed :]
    assert_read_as_by_others(data, sizes)


@given(st.binary(max_size=300), SIZES_OF_PIECES)
def test_bytes_at_random_are_read_as_others_read_them(data: bytes, sizes: list[int]) -> None:
    assert_read_as_by_others(data, sizes)
    assert_read_as_by_others(b"POST / HTTP/1.1\r\nhost: h\r\n" + data + b"\r\n\r\n" + NEXT, sizes)
    assert_read_as_by_others(chunked(data) + NEXT, sizes)
