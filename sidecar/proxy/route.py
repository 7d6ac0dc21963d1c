"""What the ``routes:`` of a rules folder declare: one `ProxyRoute` an upstream.

Decoded strictly, like the rules beside them. Nothing here does I/O; `docs/proxy.md` is the guide.
"""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

_VISIBLE = re.compile(r"[!-~]+")
_Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9-]+\Z",
        max_length=64,
        description="1 to 64 lower-case letters, digits and hyphens",
    ),
]
_Seconds = Annotated[
    float, msgspec.Meta(gt=0, le=3600, description="a number of seconds, at most 3600")
]
_SecondsOrNone = Annotated[
    float, msgspec.Meta(ge=0, le=31_536_000, description="a number of seconds from 0 to a year")
]
_Calls = Annotated[int, msgspec.Meta(ge=1, le=10_000, description="a whole number from 1 to 10000")]
_CachedBytes = Annotated[
    int, msgspec.Meta(ge=1024, le=2**20, description="a whole number of bytes from 1024 to 1048576")
]
_Path = Annotated[str, msgspec.Meta(pattern=r"^[/*]", description="a glob that begins with / or *")]

Direction = Literal["request", "response", "both", "none"]
Unknown = Literal["block", "drop", "pass"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Timeouts(_Strict, frozen=True, kw_only=True):
    """Seconds.

    Attributes:
        connect: to get a connection, TLS included.
        first_byte: from the end of the request to the head of the response.
        idle: between two pieces of a body, either way.
    """

    connect: _Seconds = 5.0
    first_byte: _Seconds = 300.0
    idle: _Seconds = 300.0


class CachedPost(_Strict, frozen=True, kw_only=True):
    """Calls by ``POST`` whose answer depends on nothing but their JSON body.

    Attributes:
        path: a glob of the path behind the route's name.
        when: top-level fields that the body must have, with these values.
    """

    path: _Path
    when: dict[str, Any] = {}


class RouteCache(_Strict, frozen=True, kw_only=True):
    """How answers are kept.

    Attributes:
        post: which calls by ``POST`` are answered from the cache; none by default.
        ttl: seconds for which an answer is fresh that does not say so itself; of ``GET`` and
            ``HEAD`` only with ``ttl`` given, of ``post`` an hour by default.
        shared: share answers between callers with different credentials.
        stale_while_revalidate, stale_if_error: seconds after its freshness in which an answer is
            still given, while it is fetched anew, or when that fails (RFC 5861).
        max_bytes: of a body that is kept.
    """

    post: list[CachedPost] = []
    ttl: _SecondsOrNone | None = None
    shared: bool = False
    stale_while_revalidate: _SecondsOrNone = 0.0
    stale_if_error: _SecondsOrNone = 0.0
    max_bytes: _CachedBytes = 2**20


class ProxyRoute(_Strict, frozen=True, kw_only=True):
    """One upstream, reached as ``/proxy/<name>/<path>``.

    Attributes:
        name: unique in the folder.
        upstream: ``http`` or ``https``, host, port, and the path before every path of a call.
        redact: what the rules of the signal ``http`` are applied to.
        unknown: what becomes of a body of a type that cannot be redacted.
        keep: globs of fields, query parameters and headers whose values pass as they are.
        forwarded: add ``X-Forwarded-For``, ``-Host`` and ``-Proto``; else none is passed on.
        observe: what to measure of the calls.
        cache: how answers are kept; None: they are not.
        timeouts: of a call.
        concurrency: calls under way at a time.
        ca_file: authorities in PEM that the upstream's certificate is checked by; empty: those of
            the system.
    """

    name: _Name
    upstream: str
    description: str = ""
    redact: Direction = "request"
    unknown: Unknown = "block"
    keep: list[str] = []
    forwarded: bool = False
    observe: Literal["llm"] | None = None
    cache: RouteCache | None = None
    timeouts: Timeouts = Timeouts()
    concurrency: _Calls = 100
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Check the upstream's URL, which no call can change the host of."""
        try:
            url = urlsplit(self.upstream)
            port = url.port
            # As whoever looks its address up does: names have labels of up to 63 characters.
            (url.hostname or "").encode("idna")
        except ValueError:  # UnicodeError is one too
            raise ValueError("`upstream` is not a URL") from None
        if url.scheme not in ("http", "https") or not url.hostname or port == 0:
            raise ValueError("`upstream` must be http://host[:port][/path] or https://…")
        if "@" in url.netloc:
            raise ValueError(
                "`upstream` must not hold credentials: a rules folder is no place for secrets, "
                "and the caller sends its own"
            )
        if "?" in self.upstream or "#" in self.upstream or not _VISIBLE.fullmatch(self.upstream):
            raise ValueError(
                "`upstream` must have no query, no fragment and no spaces, and be ASCII"
            )

    @property
    def redacts_request(self) -> bool:
        """Whether what goes to the upstream is redacted."""
        return self.redact in ("request", "both")

    @property
    def redacts_response(self) -> bool:
        """Whether what comes back is redacted."""
        return self.redact in ("response", "both")
