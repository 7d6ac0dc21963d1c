"""Requests of HTTP/1.1 (RFC 9112), parsed by llhttp: bytes in, heads and pieces of bodies out.

No I/O. Strict: whatever two readers could understand in two ways is refused, since another one may
stand in front (RFC 9112 section 11.2). After a refusal nothing more is read from the connection.
"""

import re
from collections import deque

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from sidecar.http.messages import HTTPError

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
# RFC 9112 section 7.1.1: what frames a body (chunk sizes, extensions, trailers) may take so much,
# and so much for every byte of the body itself.
_MAX_FRAMING_BYTES = 64 * 1024
_FRAMING_PER_BYTE = 16
# At the beginning of a request: what is a method, though none that llhttp knows.
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [/*]")
# RFC 3986 sections 3.2.2 and 3.2.3.
_AUTHORITY = rb"(?:[\w.~!$&'()*+,;=%-]+|\[[\w.:]+\])(?::[0-9]*)?"
_HOST = re.compile(_AUTHORITY)
_ABSOLUTE = re.compile(rb"https?://" + _AUTHORITY + rb"(?=[/?]|\Z)", re.IGNORECASE)


class RequestError(HTTPError):
    """The request is refused, and its connection is closed."""


class Incoming:
    """A request whose head has come.

    Attributes:
        method: upper case.
        path, query: of the target, as they were sent; the path of ``*`` is ``*``.
        headers: names in lower case and values, in their order.
        is_1_1: whether its version is 1.1, not 1.0.
        keep_alive: whether the client would send another one on its connection.
        expects_continue: whether it waits with its body (RFC 9110 section 10.1.1).
        has_body: whether it frames one.
        pieces: of the body, that have come since they were taken last.
        ended: whether its whole body has come.
    """

    __slots__ = (
        "ended",
        "expects_continue",
        "has_body",
        "headers",
        "is_1_1",
        "keep_alive",
        "method",
        "path",
        "pieces",
        "query",
    )

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.is_1_1 = True
        self.keep_alive = True
        self.expects_continue = False
        self.has_body = False
        self.pieces: list[bytes] = []
        self.ended = False

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class RequestParser:
    """Reads the requests of one connection.

    Attributes:
        error: why nothing more is read; it is about what comes after the requests in the queue.
    """

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._queue: deque[Incoming] = deque()
        self._last: Incoming | None = None
        self._fed_bytes = 0
        self._is_repeated = False
        self._begin()
        self.error: RequestError | None = None

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        # Of all that was fed since its first byte, so at least its own.
        self._head_bytes = 0
        self._framing_bytes = 0
        self._in_head = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come of a request that is not in the queue."""
        return self._in_head and not self._head_bytes

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the connection; see `error` for what is wrong with them."""
        if self.error is not None:
            return
        self._fed_bytes = size = len(data)
        if self._head_bytes:
            self._head_bytes += size
        else:
            self._framing_bytes += size
        last = self._last
        try:
            self._parse(data)
        except HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, RequestError):
                self.error = cause
            elif (
                isinstance(error, HttpParserInvalidMethodError)
                and self._last is last
                and _METHOD.match(data)
            ):
                self.error = RequestError(501, "There is no such method.")
            else:
                self.error = RequestError(400, "The request is not HTTP/1.1.")
        else:
            if self._head_bytes > 2 * MAX_HEAD_BYTES:
                self.error = _too_large()
            elif self._framing_bytes > _MAX_FRAMING_BYTES + size:
                self.error = RequestError(400, "There is too little in too many bytes.")

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._after_upgrade(data[upgrade.args[0] :])
            else:
                return

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Return what to read after the head of a request that asks for another protocol.

        It is answered in this one (RFC 9110 section 7.8). llhttp takes it that the request is over,
        so another parser gets a head that frames the same body.
        """
        request = self._last
        assert request is not None
        self._parser = HttpRequestParser(self)
        if not request.has_body:
            return rest
        request.ended = self._in_head = False
        self._is_repeated = True
        framing = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in request.headers
            if name in (b"content-length", b"transfer-encoding")
        )
        return b"POST / HTTP/1.1\r\n%b\r\n" % framing + rest

    def next(self) -> Incoming | None:
        """Return the next request whose head has come, once."""
        return self._queue.popleft() if self._queue else None

    def on_message_begin(self) -> None:
        """llhttp: the first byte of a head has come."""
        self._head_bytes = self._fed_bytes

    def on_url(self, target: bytes) -> None:
        """llhttp: a part of the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: a header, or a trailer."""
        if self._in_head:
            name = name.lower()
            # llhttp does not take every value that RFC 9112 section 6.1 has for this one.
            if name == b"transfer-encoding" and value.rstrip(b" ").lower() != b"chunked":
                raise RequestError(501, "The only transfer coding is chunked.")
            # RFC 9112 section 5.1: llhttp leaves out only the whitespace before a value.
            self._headers.append((name, value.rstrip(b" \t")))
            if len(self._headers) > MAX_HEADERS:
                raise _too_large()

    def on_headers_complete(self) -> None:
        """llhttp: a head has come."""
        fed, self._head_bytes = self._head_bytes, 0
        if self._is_repeated:
            self._is_repeated = False
            return
        parser = self._parser
        target = self._target
        if fed > MAX_HEAD_BYTES:
            lines = sum(len(name) + len(value) + 4 for name, value in self._headers)
            if len(target) + lines > MAX_HEAD_BYTES:
                raise _too_large()
        method = parser.get_method().decode("ascii")
        # What else may not stand there llhttp refuses.
        if b"#" in target:
            raise RequestError(400, "The target of the request is malformed.")
        if target[:1] != b"/" or method == "CONNECT":
            target = _origin_form(method, target)
        request = Incoming(method, target, self._headers)
        version = parser.get_http_version()
        request.is_1_1 = version == "1.1"
        _read_headers(request, version)
        request.keep_alive = parser.should_keep_alive()
        self._last = request
        self._queue.append(request)
        self._in_head = False
        self._framing_bytes = 0

    def on_body(self, piece: bytes) -> None:
        """llhttp: a piece of a body."""
        assert self._last is not None
        self._last.pieces.append(piece)
        self._framing_bytes = max(0, self._framing_bytes - _FRAMING_PER_BYTE * len(piece))

    def on_message_complete(self) -> None:
        """llhttp: a request is over."""
        assert self._last is not None
        self._last.ended = True
        self._begin()


def _origin_form(method: str, target: bytes) -> bytes:
    """Return path and query of a target of another form (RFC 9112 section 3.2).

    Raises:
        RequestError: it is none that the method takes.
    """
    if method == "CONNECT":
        raise RequestError(405, "There are no tunnels here.")
    if target == b"*" and method == "OPTIONS":
        return target
    if authority := _ABSOLUTE.match(target):
        rest = target[authority.end() :]
        return rest if rest[:1] == b"/" else b"/" + rest
    raise RequestError(400, "The target of the request is malformed.")


def _read_headers(request: Incoming, version: str) -> None:
    """Take what this server needs from the headers; raises `RequestError` where they are faulty."""
    hosts = codings = 0
    for name, value in request.headers:
        if name == b"content-length":
            request.has_body = value.strip(b"0") != b""
        elif name == b"transfer-encoding":
            codings += 1
            request.has_body = True
        elif name == b"host":
            hosts += 1
            if value and not _HOST.fullmatch(value):
                raise RequestError(400, "The Host is malformed.")
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise RequestError(417, "There is no such expectation.")
            request.expects_continue = True
    if version not in ("1.0", "1.1"):
        raise RequestError(505, "The version must be HTTP/1.1 or HTTP/1.0.")
    if hosts > 1 or (version == "1.1" and not hosts):
        raise RequestError(400, "A request has one Host.")
    # RFC 9112 section 6.1.
    if codings > (version == "1.1"):
        raise RequestError(400, "A request has one Transfer-Encoding, in HTTP/1.1.")
    request.expects_continue = request.expects_continue and version == "1.1" and request.has_body


def _too_large() -> RequestError:
    return RequestError(431, f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.")
