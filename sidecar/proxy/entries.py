"""What is stored of the answers to a call: its key, what is there, and what comes to be.

An answer is stored when all of it has come from the upstream, and before its client has all of it.
So the client's next call finds it, and one that leaves as soon as it has what it wanted takes
nothing away from the others.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from sidecar.cache.http_keys import invalidated, key_of, placed, variant_key
from sidecar.cache.memory import ValueTooLargeError
from sidecar.cache.rfc9111 import storable
from sidecar.cache.stored import Stored, Varies, pack, unpack
from sidecar.cache.tiers import Cache, spread
from sidecar.pressure import Overloaded
from sidecar.proxy.call import Call
from sidecar.proxy.outgoing import cached_post
from sidecar.proxy.route import RouteCache
from sidecar.proxy.upstream import Answer

# Of one body: each takes memory beside its bytes, and an upstream may send one byte at a time.
MOST_PIECES = 2**14


class Entry(msgspec.Struct, frozen=True):
    """What is in the cache for a call.

    Attributes:
        key: of the call.
        place: the key under which its answer is or, as far as is known, would be.
        found: what may be its answer, or how answers vary, or None.
        primary: what is under ``key``, and
        seconds: for how long.
    """

    key: str
    place: str
    found: Stored | Varies | None = None
    primary: Stored | Varies | None = None
    seconds: float = 0.0

    @property
    def stored(self) -> Stored | None:
        """What may be the answer, if there is something."""
        return self.found if isinstance(self.found, Stored) else None


class Entries:
    """The stored answers.

    Args:
        cache: where they are.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def look(self, key: str, call: Call) -> Entry:
        """Return what there is for a call with this key."""
        found = await self._cache.look(key)
        primary = None if found is None else unpack(found.value)
        if found is None or primary is None:
            return Entry(key, key)
        if isinstance(primary, Stored):
            return Entry(key, key, primary, primary, found.ttl)
        place = variant_key(key, primary, call.outgoing.headers)
        variant = await self._cache.look(place)
        stored = None if variant is None else unpack(variant.value)
        return Entry(key, place, stored or primary, primary, found.ttl)

    async def store(self, call: Call, entry: Entry, stored: Stored) -> bool:
        """Store an answer in place of what there is, if that may be; tell whether it is."""
        request = call.outgoing.headers
        seconds = storable(request, stored, options_of(call))
        if seconds is None:
            return False
        places = placed(entry.key, request, stored, seconds, entry.primary, entry.seconds)
        # Whole or not at all, also if the client goes away; each write has a time limit of its own.
        with trio.CancelScope(shield=True):
            try:
                for place, value, kept in places:
                    await self._cache.set(place, pack(value), spread(kept))
            except ValueTooLargeError:
                return False
        return True

    async def forget(self, *keys: str) -> None:
        """Delete what is under these keys."""
        with trio.CancelScope(shield=True):
            for key in keys:
                await self._cache.delete(key)

    async def forget_untrue(self, call: Call, answer: Answer) -> None:
        """Delete what a call that changes something makes untrue (RFC 9111 section 4.4)."""
        destination, outgoing = call.destination, call.outgoing
        keys = invalidated(
            destination.cache_name,
            outgoing.method,
            destination.upstream.url(outgoing.target),
            outgoing.headers,
            answer.status,
            answer.headers,
            shared=options_of(call).shared,
        )
        await self.forget(*keys)


def options_of(call: Call) -> RouteCache:
    """Return how the answers of a call are kept; its route has a cache."""
    cache = call.destination.route.cache
    assert cache is not None
    return cache


def key_for(call: Call) -> str | None:
    """Return the key of a call, or None when the cache has no part in it.

    None too for a ``GET`` with a body: it should mean nothing (RFC 9110 section 9.3.1), but servers
    of searches answer by it.
    """
    outgoing, body = call.outgoing, b""
    if outgoing.method == "POST":
        post = cached_post(call.destination, outgoing)
        if post is None or not isinstance(outgoing.body, bytes):
            return None
        body = outgoing.body
        if not _has(body, post.when):
            return None
    elif outgoing.body:
        return None
    return key_of(
        call.destination.cache_name,
        outgoing.method,
        call.destination.upstream.url(outgoing.target),
        outgoing.headers,
        shared=options_of(call).shared,
        body=body,
    )


class Kept:
    """The body of an answer on its way to the client, kept when it is whole.

    Args:
        answer: that it is of.
        max_bytes: it is not kept if it has more, or more than `MOST_PIECES` pieces.
        take: counts bytes that are held; raises `Overloaded` when there is no room for them.
        keep: gets the pieces, once: before the last one goes on or, where the length was not told,
            after it. Gets None as soon as they are too many. Not called for a body that is cut.
    """

    def __init__(
        self,
        answer: Answer,
        max_bytes: int,
        take: Callable[[int], None],
        keep: Callable[[list[bytes] | None], Awaitable[None]],
    ) -> None:
        self._of = answer.pieces
        self._missing = length_of(answer)
        self._room = max_bytes
        self._take = take
        self._keep = keep
        self._pieces: list[bytes] | None = []
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._of)
        except StopAsyncIteration:
            await self._end()
            raise
        self._add(piece)
        if self._missing is not None:
            self._missing -= len(piece)
        if self._pieces is None or self._missing == 0:
            await self._end()
        return piece

    def _add(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._pieces is None:
            return
        if self._room >= 0 and len(self._pieces) < MOST_PIECES:
            with suppress(Overloaded):
                self._take(len(piece))
                self._pieces.append(piece)
                return
        self._pieces = None

    async def _end(self) -> None:
        if not self._ended:
            self._ended = True
            await self._keep(self._pieces)


def length_of(answer: Answer) -> int | None:
    """Return what ``Content-Length`` tells, or None."""
    told = answer.value(b"content-length")
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 16 else None


def _has(body: bytes, when: dict[str, object]) -> bool:
    """Tell whether a JSON object has these members with these values."""
    if not when:
        return True
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and all(
        name in value
        and value[name] == wanted
        and isinstance(value[name], bool) == isinstance(wanted, bool)
        for name, wanted in when.items()
    )
