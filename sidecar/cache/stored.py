"""A response as the cache keeps it, and the bytes that it is kept as.

    bytes = "http1", MessagePack of a `Stored` or a `Varies`

Under the key of a call there is its `Stored` response or, when responses to it vary, a `Varies`
that tells which request headers decide; then the responses are under `http_keys.variant_key`.
"""

import hashlib
import json
import math
import re
from typing import Annotated

import msgspec

from sidecar.cache.fields import combined, http_date_of, members, values
from sidecar.http.headers import HeaderList, end_to_end
from sidecar.http.messages import Headers

_FORMAT = b"http1"
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-z]+")


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A response to a call.

    Attributes:
        method: of the request that it answers.
        status: a final one.
        headers: those that may be stored (RFC 9111 section 3.1), as they were received; a ``Date``
            is among them.
        vary: the request headers that ``Vary`` names, in lower case; they may be credentials, so
            what the request had in them is kept as `selected`, a digest.
        request_time, response_time: when the request was sent and the head of the response came,
            in seconds since 1970.
        pieces: the body as it came, so that a stream is answered as one.
    """

    method: str
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    headers: HeaderList
    vary: list[str]
    selected: bytes
    request_time: float
    response_time: float
    pieces: list[bytes] = []

    @classmethod
    def of(
        cls,
        method: str,
        request: Headers,
        status: int,
        headers: Headers,
        request_time: float,
        response_time: float,
    ) -> "Stored":
        """Return the head of a response, to whose `pieces` the body is to be added."""
        kept = end_to_end(headers)
        if method == "POST":
            # Of those that come with a load balancer: for one client (see `rfc9111`).
            kept = [(name, value) for name, value in kept if name != b"set-cookie"]
        if not any(name == b"date" for name, _ in kept):
            # RFC 9110 section 6.6.1 asks this of who keeps it or passes it on.
            kept.append((b"date", http_date_of(response_time)))
        names = vary_names(kept)
        selected = selection(names, request)
        return cls(method, status, kept, names, selected, request_time, response_time)

    @property
    def complete(self) -> bool:
        """Whether the body has the length that the head tells, if it tells one (RFC 9112 8)."""
        told = values(self.headers, b"content-length")
        return all(length == str(sum(map(len, self.pieces))) for length in told)

    def matches(self, request: Headers) -> bool:
        """Tell whether it was chosen by what this request has, too (RFC 9111 section 4.1)."""
        return "*" not in self.vary and self.selected == selection(self.vary, request)


class Varies(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Which request headers decide what the response is.

    Attributes:
        names: in lower case and in order.
        born: when this was found out, in seconds since 1970. It is part of the responses' keys,
            so that none of before an invalidation is found again.
    """

    names: list[str]
    born: float


_decoder = msgspec.msgpack.Decoder(Stored | Varies)


def pack(entry: Stored | Varies) -> bytes:
    """Return the bytes that an entry is kept as."""
    return _FORMAT + msgspec.msgpack.encode(entry)


def unpack(data: bytes) -> Stored | Varies | None:
    """Return the entry that was kept as these bytes; None: they are something else."""
    if not data.startswith(_FORMAT):
        return None
    try:
        entry = _decoder.decode(memoryview(data)[len(_FORMAT) :])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    times = [entry.born] if isinstance(entry, Varies) else [entry.request_time, entry.response_time]
    return entry if all(map(math.isfinite, times)) else None


def vary_names(headers: Headers) -> list[str]:
    """Return what ``Vary`` names: in lower case, in order, each once.

    What is malformed is read as ``*``, with which no other request is answered.
    """
    names = sorted(set(members((combined(headers, b"vary") or "").lower())))
    return names if all(map(_NAME.fullmatch, names)) else ["*"]


def selection(names: list[str], request: Headers) -> bytes:
    """Return a digest of what a request has in these headers: the same for the same content.

    Lines with one name are combined and white space between members is left out, which is all that
    RFC 9111 section 4.1 allows for every field.
    """
    if not names:
        return _NOTHING_SELECTED
    chosen: list[list[str] | None] = []
    for name in names:
        value = combined(request, name.encode())
        chosen.append(None if value is None else members(value))
    return _digest(names, chosen)


def _digest(names: list[str], chosen: list[list[str] | None]) -> bytes:
    return hashlib.sha256(json.dumps([names, chosen]).encode()).digest()


_NOTHING_SELECTED = _digest([], [])
