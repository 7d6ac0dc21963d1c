"""One gRPC call of an exporter: send a message, and return what the answer says.

Unary calls, one at a time, over one HTTP/2 connection that is kept open, and opened again when it
is gone. The protocol is https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. As for
HTTP, proxies of the environment are not trusted.
"""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import msgspec
import trio

from sidecar.exporters.target import MAX_ANSWER_BYTES, USER_AGENT, is_tls, split_credentials
from sidecar.pipeline.exporter import Retryable
from sidecar.pipeline.retry import grpc_code
from sidecar.tls import default_context

_READ_BYTES = 64 * 1024
_PREFIX_BYTES = 5  # one byte: compressed or not; four: the length, big-endian
_DEFAULT_PORTS = {"http": 80, "https": 443}
# They say how HTTP/1.1 carries a request (https://www.rfc-editor.org/rfc/rfc9113#section-8.2.2),
# or are set here.
_NOT_METADATA = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-timeout",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)

# https://www.rfc-editor.org/rfc/rfc9113#name-frame-format
_FRAME_HEAD_BYTES = 9
_MAX_FRAME_BYTES = 2**14
_GOAWAY = 7
_GOAWAY_BYTES = 8


class Reply(msgspec.Struct, frozen=True):
    """What the server said.

    Attributes:
        code: one of ``google.rpc.Code``.
        details: ``grpc-status-details-bin`` as it came, or None.
        message: the answer; empty where there is none, or none that can be read.
    """

    code: int
    details: str | None
    message: bytes


class _NotAnswered(Retryable):
    """No answer had begun: the connection may have been gone before the call."""


class Channel:
    """Calls one server.

    Args:
        url: ``http(s)://host:port``; a user and password in it become basic authentication.
        metadata: headers of every call, names in lower case.
        compressed: the messages are gzip.
        tls: for ``https://``, in place of the certificates of the system. Belongs to the channel.
    """

    def __init__(
        self,
        url: str,
        metadata: Mapping[str, str],
        *,
        compressed: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        address, credentials = split_credentials(url)
        parts = urlsplit(address)
        self._host = parts.hostname or ""
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = tls or default_context()
            self._tls.set_alpn_protocols(["h2"])
        own = {"user-agent": USER_AGENT, **credentials, **metadata}
        self._compressed = compressed
        self._headers = [
            (":method", "POST"),
            (":scheme", parts.scheme),
            (":authority", parts.netloc),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-encoding", "gzip" if compressed else "identity"),
            ("grpc-accept-encoding", "identity"),
            *((name, value) for name, value in own.items() if name not in _NOT_METADATA),
        ]
        self._connection: _Connection | None = None
        self._lock = trio.Lock()

    async def call(self, path: str, message: bytes, seconds: float) -> Reply:
        """Make one call.

        Args:
            path: ``/<service>/<method>``.
            message: as gzip when the channel's are.
            seconds: the time limit, that of a new connection included.

        Raises:
            Retryable: there was no answer, or not within the time limit.
        """
        headers = [(":path", path), *self._headers]
        prefix = self._compressed.to_bytes(1) + len(message).to_bytes(4)
        try:
            with trio.fail_after(seconds):
                async with self._lock:
                    answer = await self._answer(headers, prefix + message)
        except trio.TooSlowError:
            raise Retryable("timeout") from None
        code = grpc_code(answer.status, answer.headers.get("grpc-status"))
        return Reply(code, answer.headers.get("grpc-status-details-bin"), answer.content())

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.stream.aclose()

    async def _answer(self, headers: list[tuple[str, str]], data: bytes) -> "_Answer":
        if self._connection is not None:
            # That the server closed it meanwhile shows only when it is used.
            with suppress(_NotAnswered):
                return await self._attempt(headers, data)
        return await self._attempt(headers, data)

    async def _attempt(self, headers: list[tuple[str, str]], data: bytes) -> "_Answer":
        # Out of reach until the call is complete: one that was cancelled leaves no half of it.
        connection, self._connection = self._connection, None
        answer = _Answer()
        try:
            if connection is None:
                connection = await self._open()
            await connection.call(headers, data, answer)
            if connection.reusable:
                self._connection = connection
        except (OSError, UnicodeError, trio.BrokenResourceError, h2.exceptions.H2Error) as error:
            kind = Retryable if answer.status else _NotAnswered
            raise kind(_reason(error)) from None
        finally:
            if connection is not None and self._connection is None:
                await trio.aclose_forcefully(connection.stream)
        return answer

    async def _open(self) -> "_Connection":
        tcp = await trio.open_tcp_stream(self._host, self._port)
        try:
            if self._tls is None:
                connection = _Connection(tcp)
            else:
                tls = trio.SSLStream(
                    tcp, self._tls, server_hostname=self._host, https_compatible=True
                )
                await tls.do_handshake()
                if tls.selected_alpn_protocol() != "h2":
                    raise h2.exceptions.ProtocolError("no HTTP/2")
                connection = _Connection(tls)
            await connection.start()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return connection


class _Answer:
    """What has come of an answer.

    Attributes:
        status: of HTTP; 0 before it has come, or when it is none.
        headers: and trailers.
        ended: nothing more comes.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._data = bytearray()

    def add_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Add headers or trailers."""
        self.headers |= {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        status = self.headers.get(":status", "")
        self.status = int(status) if status.isdecimal() and len(status) == 3 else 0

    def add_data(self, data: bytes) -> None:
        """Add content; what is beyond the bound is left out, since the status decides anyway."""
        self._data += data[: MAX_ANSWER_BYTES - len(self._data)]

    def content(self) -> bytes:
        """Return the message, or nothing when it is not whole or is compressed."""
        length = int.from_bytes(self._data[1:_PREFIX_BYTES])
        message = bytes(self._data[_PREFIX_BYTES:])
        return message if self._data[:1] == b"\0" and len(message) == length else b""


class _Connection:
    """One HTTP/2 connection, for one call at a time.

    Its methods raise `trio.BrokenResourceError` when it is gone, and ``H2Error`` when the server
    does not speak HTTP/2; it is of no more use then.
    """

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self.reusable = False
        self._frames = _Frames()
        self._settled = False
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._http2 = h2.connection.H2Connection(config)
        self._http2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.ENABLE_PUSH: 0}
        )

    async def start(self) -> None:
        """Wait for the server's settings, so that only what speaks HTTP/2 gets any records."""
        self._http2.initiate_connection()
        while not self._settled:
            await self._send()
            await self._receive(0, _Answer())
        await self._send()

    async def call(self, headers: list[tuple[str, str]], data: bytes, answer: _Answer) -> None:
        """Send a request and receive its answer into ``answer``."""
        self.reusable = False
        stream_id = self._http2.get_next_available_stream_id()
        self._http2.send_headers(stream_id, headers)
        rest = memoryview(data)
        while not answer.ended:
            if self._frames.last_stream_id < stream_id:
                raise trio.BrokenResourceError
            room = min(
                self._http2.local_flow_control_window(stream_id),
                self._http2.max_outbound_frame_size,
            )
            if rest and room > 0:
                piece, rest = rest[:room], rest[room:]
                self._http2.send_data(stream_id, bytes(piece), end_stream=not rest)
                await self._send()
            else:
                await self._send()
                await self._receive(stream_id, answer)
        self.reusable = not rest and not self._frames.going_away
        if self.reusable:
            # Such as the answer to a ping. The call is over, so it does not matter here whether
            # the server is still there.
            with suppress(trio.BrokenResourceError):
                await self._send()

    async def _send(self) -> None:
        data = self._http2.data_to_send()
        if data:
            await self.stream.send_all(data)

    async def _receive(self, stream_id: int, answer: _Answer) -> None:
        data = await self.stream.receive_some(_READ_BYTES)
        if not data:
            raise trio.BrokenResourceError
        for event in self._http2.receive_data(self._frames.without_goaway(data)):
            self._handle(event, stream_id, answer)

    def _handle(self, event: h2.events.Event, stream_id: int, answer: _Answer) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._settled = True
        if getattr(event, "stream_id", None) != stream_id:
            return
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                answer.add_headers(event.headers)
            case h2.events.DataReceived():
                answer.add_data(event.data)
                length = event.flow_controlled_length
                self._http2.acknowledge_received_data(length, stream_id)
            case h2.events.StreamEnded():
                answer.ended = True
            case h2.events.StreamReset() if not answer.ended:
                raise Retryable("stream reset")


class _Frames:
    """What the server sends, without the frames that say that it will close the connection.

    The h2 library takes nothing in after them, and so could not end a call that the server still
    answers (https://github.com/python-hyper/h2/issues/1181).

    Attributes:
        last_stream_id: the last call that the server answers.
    """

    def __init__(self) -> None:
        self.last_stream_id = 2**31 - 1
        self.going_away = False
        self._data = bytearray()

    def without_goaway(self, data: bytes | bytearray) -> bytes:
        """Return what is complete so far, or cannot be taken apart."""
        self._data += data
        passed = bytearray()
        while len(self._data) >= _FRAME_HEAD_BYTES:
            length = int.from_bytes(self._data[:3])
            end = _FRAME_HEAD_BYTES + length
            if length > _MAX_FRAME_BYTES:
                end = len(self._data)
            elif len(self._data) < end:
                break
            frame = self._data[:end]
            del self._data[:end]
            if length >= _GOAWAY_BYTES and frame[3] == _GOAWAY:
                self.going_away = True
                field = frame[_FRAME_HEAD_BYTES : _FRAME_HEAD_BYTES + 4]
                self.last_stream_id = int.from_bytes(field) & 0x7FFFFFFF
            else:
                passed += frame
        return bytes(passed)


def _reason(error: BaseException) -> str:
    """Name a failure without its message, in the words that the HTTP client has for it."""
    if is_tls(error):
        return "TLS"
    if isinstance(error, h2.exceptions.H2Error):
        return "the answer is not gRPC"
    return "connection lost" if isinstance(error, trio.BrokenResourceError) else "cannot connect"
