"""Asking whether a stored response still holds, and answering clients that ask (RFC 9111 4.3).

Pure. Only of responses to ``GET``; to a ``POST`` a condition means something else (RFC 9110 13.1).
"""

from sidecar.cache.fields import (
    combined,
    date_field,
    entity_tag,
    entity_tags,
    same_entity,
    values,
)
from sidecar.cache.stored import Stored
from sidecar.http.headers import HeaderList, end_to_end
from sidecar.http.messages import Headers

_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
# What tells of the bytes that are stored, which no 304 changes (RFC 9111 section 3.2). The type is
# among them because a body is redacted by its type. For `Set-Cookie` see `sidecar.cache.rfc9111`.
_OF_THE_BODY = frozenset(
    {b"content-length", b"content-encoding", b"content-type", b"content-range", b"set-cookie"}
)
# Of the message, not of what it stands for: without them in the new one the old ones are wrong.
_OF_THE_MESSAGE = frozenset({b"age", b"date"})
# RFC 9110 section 15.4.5, and what caches say of this answer.
_NOT_MODIFIED = frozenset(
    {
        b"age",
        b"cache-control",
        b"cache-status",
        b"content-location",
        b"date",
        b"etag",
        b"expires",
        b"vary",
    }
)


def is_conditional(request: Headers) -> bool:
    """Tell whether the client asks on its own whether what it has still holds."""
    return any(name in _CONDITIONS for name, _ in request)


def unconditional(request: Headers) -> HeaderList:
    """Return the headers of a request that asks for the response itself."""
    return [(name, value) for name, value in request if name not in _CONDITIONS]


def conditional_headers(request: Headers, stored: Stored) -> HeaderList:
    """Return what to add to a request to ask whether a response still holds (section 4.3.1).

    Nothing if the client asks on its own: then the upstream answers the client.
    """
    if stored.method == "POST" or is_conditional(request):
        return []
    added = []
    if entity_tag(stored.headers) is not None:
        added.append((b"if-none-match", _line(stored, b"etag")))
    if date_field(stored.headers, b"last-modified") is not None:
        added.append((b"if-modified-since", _line(stored, b"last-modified")))
    return added


def freshens(stored: Stored, response: Headers, *, ours: bool) -> bool:
    """Tell whether a 304 is about a stored response (section 4.3.4).

    Args:
        stored: the only one that could have been the answer.
        response: the headers of the 304.
        ours: the condition was that of `conditional_headers`, so that there is nothing else that a
            304 without a validator can be about.
    """
    tag, ours_tag = entity_tag(response), entity_tag(stored.headers)
    if tag is not None and not tag.startswith("W/"):
        return tag == ours_tag
    if tag is not None and ours_tag is not None:
        return same_entity(tag, ours_tag)
    modified = combined(response, b"last-modified")
    if modified is not None:
        return modified == combined(stored.headers, b"last-modified")
    if tag is not None:
        return False
    return ours or (ours_tag is None and combined(stored.headers, b"last-modified") is None)


def head_agrees(stored: Stored, response: Headers) -> bool:
    """Tell whether a 200 to ``HEAD`` is about a stored response (section 4.3.5).

    Then it is to be `updated`, else deleted.
    """
    return all(
        combined(response, name) in (None, combined(stored.headers, name))
        for name in (b"etag", b"last-modified", b"content-length")
    )


def updated(
    stored: Stored,
    request: Headers,
    response: Headers,
    request_time: float,
    response_time: float,
) -> Stored:
    """Return a stored response with what a 304, or a 200 to ``HEAD``, says anew (section 3.2).

    It has to be asked of it again whether it is `sidecar.cache.rfc9111.storable`.

    Args:
        stored: that which it is about.
        request: the headers of the request, which ``Vary`` may name.
        response: the headers of the response.
        request_time, response_time: of it, in seconds since 1970.
    """
    new = [(name, value) for name, value in end_to_end(response) if name not in _OF_THE_BODY]
    replaced = _OF_THE_MESSAGE | {name for name, _ in new}
    kept = [(name, value) for name, value in stored.headers if name not in replaced]
    fresh = Stored.of(
        stored.method, request, stored.status, kept + new, request_time, response_time
    )
    fresh.pieces.extend(stored.pieces)
    return fresh


def not_modified(method: str, request: Headers, stored: Stored) -> bool:
    """Tell whether a client has what would be the answer (RFC 9111 section 4.3.2).

    RFC 9110 section 13.2.2: the entity tags decide if the request has any.
    """
    if method not in ("GET", "HEAD") or stored.status != 200:
        return False
    asked = combined(request, b"if-none-match")
    if asked is not None:
        tag = entity_tag(stored.headers)
        return asked == "*" or (
            tag is not None and any(same_entity(tag, other) for other in entity_tags(asked))
        )
    since = date_field(request, b"if-modified-since")
    if since is None:
        return False
    modified = date_field(stored.headers, b"last-modified")
    if modified is None:
        modified = date_field(stored.headers, b"date")
    return (stored.response_time if modified is None else modified) <= since


def not_modified_headers(answer: Headers) -> HeaderList:
    """Return the headers of a 304 in place of an answer with these (RFC 9110 section 15.4.5)."""
    wanted = _NOT_MODIFIED
    if entity_tag(answer) is None:
        wanted |= {b"last-modified"}
    return [(name, value) for name, value in answer if name in wanted]


def _line(stored: Stored, name: bytes) -> bytes:
    return values(stored.headers, name)[0].encode("latin-1")
