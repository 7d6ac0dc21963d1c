"""The header that tells what the cache did (RFC 9211)."""

from sidecar.cache.rfc9111 import Forwarded
from sidecar.http.headers import HeaderList
from sidecar.http.messages import Headers

_NAME = b"cache-status"
_CACHE = "sidecar"


def with_hit(headers: Headers, ttl: float, *, detail: str = "") -> HeaderList:
    """Return the headers of an answer from the cache.

    Args:
        headers: of the answer, with what caches before this one said.
        ttl: seconds for which it is fresh still; negative: since when it is stale.
        detail: a token, such as why a stale one is given; empty: none.
    """
    return _with(headers, ["hit", _ttl(ttl), f"detail={detail}" if detail else ""])


def with_forward(
    headers: Headers,
    fwd: Forwarded,
    *,
    fwd_status: int | None = None,
    ttl: float | None = None,
    stored: bool = False,
    collapsed: bool = False,
) -> HeaderList:
    """Return the headers of an answer to a request that went on, or waited for one that did.

    Args:
        headers: of the answer, with what caches before this one said.
        fwd: why it went on.
        fwd_status: the status with which it came back, where the answer has another one.
        ttl: seconds for which the answer is fresh; None: not known.
        stored: the cache has stored it.
        collapsed: another request went on for it.
    """
    parameters = [
        f"fwd={fwd}",
        "" if fwd_status is None else f"fwd-status={fwd_status}",
        "" if ttl is None else _ttl(ttl),
        "stored" if stored else "",
        "collapsed" if collapsed else "",
    ]
    return _with(headers, parameters)


def _ttl(seconds: float) -> str:
    return f"ttl={int(seconds)}"


def _with(headers: Headers, parameters: list[str]) -> HeaderList:
    """Add this cache as the last one, which is the next to the client (section 2).

    Without ``key``: it would tell a client how to make another one's key (section 6).
    """
    member = "; ".join([_CACHE, *filter(None, parameters)]).encode()
    before = [value for name, value in headers if name == _NAME]
    others = [(name, value) for name, value in headers if name != _NAME]
    return [*others, (_NAME, b", ".join([*before, member]))]
