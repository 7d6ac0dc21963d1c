"""The body of a request: read, decompressed and decoded, never past a bound.

The bound holds for what comes over the wire and for what it decompresses to. The decoders ask for
output piece by piece, so a decompression bomb costs the bound and one piece more, whatever it
claims to hold.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
import trio
import zstandard

from sidecar.http.messages import HTTPError, Request

T = TypeVar("T")

# A client that has not sent its body by then holds memory for nothing.
READ_SECONDS = 60.0

_PIECE = 64 * 1024
# Members of a gzip body, frames of a zstd body: an empty one is 20 bytes of input that cost a
# whole new decoder, so their number is a bound of its own.
_MAX_MEMBERS = 4096
# RFC 9659 section 3: a decoder of the "zstd" content coding takes windows of up to 8 MB.
_ZSTD_WINDOW = 8 * 2**20
# RFC 8878 section 3.1.1.2: a block is at least 4 bytes and holds at most 128 KiB.
_ZSTD_BLOCK, _ZSTD_BLOCK_MIN = 128 * 1024, 4

# The type of a decoder: the compressed bytes and the room for output → pieces of output. A piece
# may be empty: it marks a place to let other tasks run.
_Decoder = Callable[[bytes, int], Iterator[bytes]]


class _TooLarge(Exception):  # noqa: N818 (it is an answer, not a fault)
    """The output does not fit in its room."""


def _gzip(data: bytes, room: int) -> Iterator[bytes]:
    return _zlib(data, room, wbits=16 + zlib.MAX_WBITS, members=_MAX_MEMBERS)


def _deflate(data: bytes, room: int) -> Iterator[bytes]:
    # RFC 9110 section 8.4.1.2 means the zlib format, and notes that some clients send the raw
    # one. No raw stream starts like a zlib header: its first block would be a stored one (bits
    # 000) with a padding bit set.
    wrapped = len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return _zlib(data, room, wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, members=1)


def _zlib(data: bytes, room: int, *, wbits: int, members: int) -> Iterator[bytes]:
    decoder = None
    position, rest = 0, b""
    # A decoder that is left without input may still have output to give.
    while rest or position < len(data) or decoder is not None:
        if not rest:
            # Short slices, because zlib copies at every call what it leaves over.
            rest = data[position : position + _PIECE]
            position += len(rest)
        if decoder is None:
            if members == 0:
                raise ValueError
            members -= 1
            decoder = zlib.decompressobj(wbits)
        piece = decoder.decompress(rest, min(room + 1, _PIECE))
        room -= len(piece)
        if room < 0:
            raise _TooLarge
        if not rest and not piece and not decoder.eof:
            raise ValueError
        yield piece
        if decoder.eof:
            rest, decoder = decoder.unused_data, None
        else:
            rest = decoder.unconsumed_tail


def _zstd(data: bytes, room: int) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoder = None
    frames = 0
    rest = memoryview(data)
    while rest:
        if decoder is None:
            frames += 1
            if frames > _MAX_MEMBERS:
                raise ValueError
            decoder = decompressor.decompressobj()
        # This decoder cannot be told how much output to give, so it gets only as much input as
        # can, at worst, fill the room that is left or a few blocks.
        blocks = min(max(room // _ZSTD_BLOCK, 8), 128)
        step = rest[: blocks * _ZSTD_BLOCK_MIN]
        piece = decoder.decompress(step)
        room -= len(piece)
        if room < 0:
            raise _TooLarge
        yield piece
        rest = rest[len(step) - len(decoder.unused_data) :]
        if decoder.eof:
            decoder = None
    if decoder is not None:
        raise ValueError


_DECODERS: dict[str, _Decoder] = {
    "gzip": _gzip,
    "x-gzip": _gzip,  # RFC 9110 section 8.4.1.3: the same
    "deflate": _deflate,
    "zstd": _zstd,
}
_ACCEPTED = {"accept-encoding": "gzip, deflate, zstd"}


def decompress(data: bytes, coding: str, limit: int) -> bytes:
    """Return the decompressed data.

    Args:
        data: all of it; gzip may have several members, zstd several frames.
        coding: ``identity``, ``gzip``, ``deflate`` (zlib or raw) or ``zstd``, in lower case.
        limit: the most bytes to return.

    Raises:
        HTTPError: 413 when there are more, 415 for another coding, 400 for broken or truncated
            data.
    """
    if coding in ("", "identity"):
        if len(data) > limit:
            raise _too_large(limit)
        return data
    return b"".join(_pieces(data, coding, limit))


def _pieces(data: bytes, coding: str, limit: int) -> Iterator[bytes]:
    decoder = _decoder(coding)
    if not data:
        raise _broken(coding)
    try:
        yield from decoder(data, limit)
    except _TooLarge:
        raise _too_large(limit) from None
    except (ValueError, zlib.error, zstandard.ZstdError):
        raise _broken(coding) from None


def _decoder(coding: str) -> _Decoder:
    try:
        return _DECODERS[coding]
    except KeyError:
        raise HTTPError(415, "This content coding is not supported.", _ACCEPTED) from None


def _broken(coding: str) -> HTTPError:
    return HTTPError(400, f"The body is not valid {coding} data.")


def _too_large(limit: int) -> HTTPError:
    return HTTPError(413, f"The body is larger than {limit} bytes.")


async def read_body(request: Request, limit: int) -> bytes:
    """Read the whole body, decompressed as its ``Content-Encoding`` says.

    Args:
        request: whose body has not been read yet.
        limit: the most bytes, both compressed and decompressed.

    Raises:
        HTTPError: 413 when there are more (unread when ``Content-Length`` announces it), 415
            with ``Accept-Encoding`` (RFC 9110 section 15.5.16) for an unknown coding, 400 for
            broken or truncated data, 408 when it takes longer than `READ_SECONDS` to arrive.
        Overloaded: there is no room for it now.
        Disconnected: the client went away.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        _decoder(coding)
    length = request.headers.get("content-length", "")
    if len(length) > 18 or (length.isdecimal() and int(length) > limit):
        raise _too_large(limit)
    if length.isdecimal():
        request.held.expect(int(length))
    data = await _receive(request, limit)
    if coding in ("", "identity"):
        return data
    pieces = []
    since_checkpoint = 0
    for piece in _pieces(data, coding, limit):
        request.held.take(len(piece))
        pieces.append(piece)
        # Every call counts for a little, so that a body of empty members is not free.
        since_checkpoint += len(piece) + 256
        if since_checkpoint > _PIECE:
            since_checkpoint = 0
            await trio.lowlevel.checkpoint()
    return b"".join(pieces)


async def _receive(request: Request, limit: int) -> bytes:
    # One buffer rather than a list: a body of one-byte chunks would cost fifty times its size.
    body = bytearray()
    with trio.move_on_after(READ_SECONDS):
        while piece := await request.receive():
            body += piece
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)
    raise HTTPError(408, f"The body did not arrive within {READ_SECONDS:.0f} seconds.")


def media_type(request: Request) -> str:
    """Return the ``Content-Type`` in lower case without its parameters, ``""`` when absent."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]*)', re.IGNORECASE)


def check_json_type(request: Request) -> None:
    """Raise `HTTPError` 415 when the body is not said to be JSON in UTF-8."""
    kind = media_type(request)
    if kind not in ("", "application/json") and not re.fullmatch(r"application/\S+\+json", kind):
        raise HTTPError(415, "The body must be application/json.", {"accept": "application/json"})
    # RFC 8259 section 8.1: JSON between systems is UTF-8.
    charset = _CHARSET.search(request.headers.get("content-type", ""))
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPError(415, "JSON must be UTF-8.", {"accept": "application/json"})


async def read_json(request: Request, type: type[T], limit: int) -> T:
    """Read the body and decode it as JSON into ``type``.

    Raises:
        HTTPError: what `read_body` raises; 415 for a media type other than ``application/json``
            or ``application/*+json``, or another charset than UTF-8; 400 for malformed or too
            deeply nested JSON; 422, naming the field, for another shape than ``type``.
        Disconnected: the client went away.
    """
    check_json_type(request)
    return decode_json(await read_body(request, limit), type)


def decode_json(data: bytes, type: type[T]) -> T:
    """Decode JSON into ``type``; raises `HTTPError` 400 or 422 as `read_json` does."""
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        _check_syntax(data)
        raise HTTPError(422, f"{_without_values(str(error))}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise HTTPError(400, "The body is not valid JSON.") from None
    except RecursionError:
        raise HTTPError(400, "The JSON is nested too deeply.") from None


def _check_syntax(data: bytes) -> None:
    # The decoder stops at the first fault of shape, so it has not seen what comes after it.
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise HTTPError(400, "The body is not valid JSON.") from None
    except RecursionError:
        raise HTTPError(400, "The JSON is nested too deeply.") from None


def _without_values(message: str) -> str:
    """Return a message of msgspec without the piece of the payload that some of them quote."""
    if message.startswith("Object contains unknown field"):
        return "Object contains an unknown field"
    if message.startswith(("Invalid enum value", "Invalid value")):
        _, at, path = message.rpartition(" - at ")
        return f"Invalid value{at}{path}" if at else "Invalid value"
    return message
