"""Responses of HTTP/1.1 (RFC 9112), parsed by llhttp: bytes in, head and pieces out. No I/O.

One parser reads the responses of one connection, one after the other, as a client that sends a
request only when it has the whole response to the one before.
"""

from httptools import HttpParserError, HttpResponseParser

MAX_HEAD_BYTES = 64 * 1024
_MAX_INFORMATIONAL = 16
# RFC 9112 section 7.1.1: what frames a body (chunk sizes, extensions, trailers) may take so much,
# and so much for every byte of the body itself.
_MAX_FRAMING_BYTES = 64 * 1024
_FRAMING_PER_BYTE = 16


class ProtocolError(Exception):
    """What came is no HTTP response, or too large a head."""


class CutError(Exception):
    """The connection was closed before the response was complete."""


class ResponseParser:
    """Reads responses.

    Attributes:
        status: of the response that is being read; 0 until its head has come.
        headers: names in lower case and values, in their order.
        pieces: of the body, that have come since they were taken last.
        complete: whether all of it has come.
        reusable: whether another request may be sent after it.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._head_only = False
        self._head_bytes = 0
        self._framing_bytes = 0
        self._informational = 0
        self._delimited = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.complete = True
        self.reusable = True

    def expect(self, method: str) -> None:
        """Begin with the response to a request of this method."""
        if self._head_only:
            # llhttp does not know of requests, and would wait for the body.
            self._parser = HttpResponseParser(self)
        self._head_only = method == "HEAD"
        self._head_bytes = self._framing_bytes = self._informational = 0
        self._delimited = False
        self.status = 0
        self.headers = []
        self.pieces = []
        self.complete = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the connection; ``b""`` when it was closed.

        Raises:
            ProtocolError, CutError: see there.
        """
        if not data:
            self._end()
            return
        size = len(data)
        if self.status:
            self._framing_bytes += size
        else:
            self._head_bytes += size
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if not self.complete:
                raise ProtocolError from None
            # RFC 9112 section 9.2: what comes after the response does not belong to any.
            self.reusable = False
        # A head and the beginning of a body come in one.
        is_head_too_large = not self.status and self._head_bytes > 2 * MAX_HEAD_BYTES
        if is_head_too_large or self._framing_bytes > _MAX_FRAMING_BYTES + size:
            raise ProtocolError

    def _end(self) -> None:
        if self.complete:
            return
        if not self.status or self._delimited:
            raise CutError
        self.complete = True

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def on_message_begin(self) -> None:
        """llhttp: a message begins."""
        if self.complete:
            raise ProtocolError

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: a header, or a trailer."""
        if self.status:  # a trailer
            return
        name = name.lower()
        # RFC 9112 section 7.4: no other coding was asked for.
        if name == b"transfer-encoding" and value.rstrip(b" ").lower() != b"chunked":
            raise ProtocolError
        # Section 5.1: llhttp leaves out only the whitespace before a value.
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """llhttp: the head has come."""
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        names = [name for name, _ in self.headers]
        codings = names.count(b"transfer-encoding")
        # RFC 9112 section 6.1.
        if version not in ("1.0", "1.1") or codings > (version == "1.1"):
            raise ProtocolError
        if status < 200:
            # RFC 9110 section 15.2: there may be several before the response itself.
            self._informational += 1
            if status < 100 or status == 101 or self._informational > _MAX_INFORMATIONAL:
                raise ProtocolError
            self.headers = []
            return
        # What was fed is at least the head.
        if status > 599 or (self._head_bytes > MAX_HEAD_BYTES and self._is_head_too_large()):
            raise ProtocolError
        self.status = status
        # RFC 9112 section 6.3: without any framing the body ends with the connection.
        self._delimited = codings > 0 or b"content-length" in names
        if self._head_only:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _is_head_too_large(self) -> bool:
        return sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        """llhttp: some of the body."""
        if self.complete:
            raise ProtocolError
        self.pieces.append(body)
        self._framing_bytes = max(0, self._framing_bytes - _FRAMING_PER_BYTE * len(body))

    def on_message_complete(self) -> None:
        """llhttp: the message is over."""
        if self.status and not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()
