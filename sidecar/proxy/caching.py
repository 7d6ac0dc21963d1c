"""Answers from the cache, and into it: what RFC 9111 says, done with a cache that pods share.

What may be stored and given is told by `sidecar.cache.rfc9111`; here is what happens in between. Of
calls that miss at the same time one goes to the upstream, and the others have its answer; where it
turns out that an answer is not stored, those that follow soon after do not wait for each other.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from sidecar.cache.cache_status import with_forward, with_hit
from sidecar.cache.http_keys import invalidated, key_of, placed, variant_key
from sidecar.cache.memory import ValueTooLargeError
from sidecar.cache.rfc9111 import (
    SERVER_ERRORS,
    Forward,
    Forwarded,
    Fresh,
    NotCached,
    Stale,
    Verdict,
    answer_headers,
    current_age,
    judge,
    storable,
)
from sidecar.cache.stored import Stored, Varies, pack, unpack
from sidecar.cache.tiers import Cache, spread
from sidecar.cache.validation import (
    conditional_headers,
    freshens,
    head_agrees,
    not_modified,
    not_modified_headers,
    updated,
)
from sidecar.http.messages import HTTPError
from sidecar.proxy.call import Call
from sidecar.proxy.outgoing import cached_post
from sidecar.proxy.route import RouteCache
from sidecar.proxy.upstream import Answer, Whole

# For so long calls do not wait for each other after an answer that was not stored.
_PASS_SECONDS = 30.0
_MOST_PASSES = 4096
_REASONS_TO_WAIT: frozenset[Forwarded] = frozenset({"uri-miss", "vary-miss", "stale"})


class _Looked(msgspec.Struct, frozen=True):
    """What is in the cache for a call.

    Attributes:
        entry: what may be its answer, or how answers vary, or None.
        primary: what is under the primary key, and
        seconds: for how long.
    """

    entry: Stored | Varies | None = None
    primary: Stored | Varies | None = None
    seconds: float = 0.0


class ResponseCache:
    """The cache of answers.

    Args:
        cache: where they are.
        in_background: runs a function as a task that the caller does not wait for; tells whether
            there was room for another.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        cache: Cache,
        in_background: Callable[[Callable[[], Awaitable[None]]], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._in_background = in_background
        self._clock = clock
        self._passes: dict[str, float] = {}

    async def answer(self, call: Call) -> None:
        """Answer a call: with what is stored, or from the upstream.

        Raises:
            HTTPError: there is no answer.
        """
        key = self._key(call)
        if key is None:
            await self._pass_on(call)
            return
        looked = await self._look(key, call)
        verdict = self._judge(call, looked)
        self._cache.count(hit=_is_answer(verdict))
        if await self._give(key, call, looked, verdict):
            return
        if not self._waits(key, call, verdict):
            await self._fetch(key, call, looked, verdict)
            return
        failure = await self._fetch_for_all(key, call, _forwarded(verdict))
        if failure is not None:
            raise failure

    async def _fetch_for_all(self, key: str, call: Call, fwd: Forwarded) -> HTTPError | None:
        """Answer as `_fetch` does, or with what another call has fetched meanwhile."""
        seconds = call.destination.route.timeouts.first_byte
        async with self._cache.flight(key, seconds) as flight:
            looked = await self._look(key, call)
            verdict = self._judge(call, looked)
            try:
                collapsed = None if flight.leads else fwd
                if not await self._give(key, call, looked, verdict, collapsed):
                    await self._fetch(key, call, looked, verdict)
            except HTTPError as error:
                # Not out of the block: those who wait would try it one after the other.
                self._pass(key)
                return error
        return None

    def _key(self, call: Call) -> str | None:
        outgoing, options = call.outgoing, _options(call)
        body = b""
        if outgoing.method == "POST":
            post = cached_post(call.destination, outgoing)
            if post is None or not isinstance(outgoing.body, bytes):
                return None
            body = outgoing.body
            if not _has(body, post.when):
                return None
        return key_of(
            call.destination.cache_name,
            outgoing.method,
            call.destination.upstream.url(outgoing.target),
            outgoing.headers,
            shared=options.shared,
            body=body,
        )

    async def _pass_on(self, call: Call) -> None:
        """Let a call through in which the cache has no part; forget what it makes untrue."""
        async with call.fetch([]) as answer:
            for key in invalidated(
                call.destination.cache_name,
                call.outgoing.method,
                call.destination.upstream.url(call.outgoing.target),
                call.outgoing.headers,
                answer.status,
                answer.headers,
                shared=_options(call).shared,
            ):
                await self._cache.delete(key)
            answer.headers = with_forward(answer.headers, "method")
            await call.deliver(answer)

    async def _look(self, key: str, call: Call) -> _Looked:
        found = await self._cache.look(key)
        primary = None if found is None else unpack(found.value)
        if found is None or not isinstance(primary, Varies):
            return _Looked(primary, primary, 0.0 if found is None else found.ttl)
        variant = await self._cache.look(variant_key(key, primary, call.outgoing.headers))
        entry = None if variant is None else unpack(variant.value)
        return _Looked(entry or primary, primary, found.ttl)

    def _judge(self, call: Call, looked: _Looked) -> Verdict:
        outgoing = call.outgoing
        return judge(outgoing.method, outgoing.headers, looked.entry, _options(call), self._clock())

    def _waits(self, key: str, call: Call, verdict: Verdict) -> bool:
        """Tell whether a call waits for another one that asks for the same."""
        if call.outgoing.method == "HEAD" or _forwarded(verdict) not in _REASONS_TO_WAIT:
            return False
        return self._passes.get(key, 0.0) <= self._clock()

    async def _give(
        self,
        key: str,
        call: Call,
        looked: _Looked,
        verdict: Verdict,
        collapsed: Forwarded | None = None,
    ) -> bool:
        """Answer with what is stored if it may be; tell whether that was done.

        Raises:
            HTTPError: 504, only what is stored was wanted, and it may not be given.
        """
        if isinstance(verdict, NotCached):
            raise HTTPError(504, "The request is only-if-cached, and the cache has no answer.")
        stored = looked.entry
        if not isinstance(stored, Stored) or isinstance(verdict, Forward):
            return False
        if isinstance(verdict, Stale):
            if not verdict.while_revalidate:
                return False
            self._refresh(key, call, looked, verdict)
        headers = answer_headers(stored, verdict.age)
        if collapsed:
            headers = with_forward(headers, collapsed, ttl=verdict.ttl, collapsed=True)
        else:
            headers = with_hit(headers, verdict.ttl)
        await _deliver(call, stored, headers)
        return True

    def _refresh(self, key: str, call: Call, looked: _Looked, verdict: Stale) -> None:
        """Ask for a stored answer again, unless somebody does already."""
        alone = msgspec.structs.replace(call, exchange=None, model=None)

        async def refresh() -> None:
            with alone.destination.upstream.in_use(), suppress(HTTPError):
                async with self._cache.try_lead(key) as flight:
                    if flight.leads:
                        await self._fetch(key, alone, looked, verdict)

        self._in_background(refresh)

    async def _fetch(self, key: str, call: Call, looked: _Looked, verdict: Verdict) -> None:
        """Answer from the upstream, and store the answer if it may be.

        Raises:
            HTTPError: there is no answer, and no stale one that may be given for that.
        """
        stored = looked.entry if isinstance(looked.entry, Stored) else None
        may_validate = isinstance(verdict, Stale) or (
            isinstance(verdict, Forward) and verdict.validate
        )
        headers = call.outgoing.headers
        extra = conditional_headers(headers, stored) if stored and may_validate else []
        in_error = stored if isinstance(verdict, Stale) and verdict.if_error else None
        try:
            if await self._fetch_with(extra, key, call, looked, verdict, in_error):
                return
        except HTTPError:
            if in_error is None or call.delivering:
                raise
        if in_error is not None:
            age = current_age(in_error, self._clock())
            ttl = verdict.ttl if isinstance(verdict, Stale) else 0.0
            answered = with_hit(answer_headers(in_error, age), ttl, detail="if-error")
            await _deliver(call, in_error, answered)
            return
        # The upstream says that something has not changed that is not what is stored here.
        await self._fetch_with([], key, call, looked, verdict, None)

    async def _fetch_with(
        self,
        extra: list[tuple[bytes, bytes]],
        key: str,
        call: Call,
        looked: _Looked,
        verdict: Verdict,
        in_error: Stored | None,
    ) -> bool:
        """Call the upstream once; tell whether that was the answer."""
        request, method = call.outgoing.headers, call.outgoing.method
        stored = looked.entry if isinstance(looked.entry, Stored) else None
        fwd = _forwarded(verdict)
        asked = self._clock()
        async with call.fetch(extra) as answer:
            came = self._clock()
            if in_error is not None and answer.status in SERVER_ERRORS:
                return False
            if stored is not None and answer.status == 304:
                confirmed = freshens(stored, answer.headers, ours=bool(extra))
                if confirmed:
                    stored = updated(stored, request, answer.headers, asked, came)
                    await self._store(key, call, stored, looked)
                if extra:
                    if not confirmed:
                        return False
                    kept = answer_headers(stored, current_age(stored, came))
                    await _deliver(call, stored, with_forward(kept, fwd, fwd_status=304))
                    return True
            fresh = Stored.of(method, request, answer.status, answer.headers, asked, came)
            seconds = None if answer.incomplete else storable(request, fresh, _options(call))
            collected = _Collected(_options(call).max_bytes) if seconds is not None else None
            answer.headers = with_forward(answer.headers, fwd, stored=collected is not None)
            await call.deliver(answer, collected.add if collected else None)
            if method == "HEAD" and stored is not None and answer.status == 200:
                await self._check(key, call, stored, looked, answer, asked, came)
            if collected is None or collected.pieces is None:
                if fwd in _REASONS_TO_WAIT and method != "HEAD" and answer.status != 304:
                    self._pass(key)
                return True
            fresh.pieces.extend(collected.pieces)
            if fresh.complete and not call.outcome.failed and not call.outcome.dropped:
                await self._store(key, call, fresh, looked)
            return True

    async def _store(self, key: str, call: Call, stored: Stored, looked: _Looked) -> None:
        request = call.outgoing.headers
        seconds = storable(request, stored, _options(call))
        if seconds is None:
            return
        places = placed(key, request, stored, seconds, looked.primary, looked.seconds)
        # A client that has its answer may go away now; each write has a time limit of its own.
        with trio.CancelScope(shield=True), suppress(ValueTooLargeError):
            for place, entry, kept in places:
                await self._cache.set(place, pack(entry), spread(kept))

    async def _check(
        self,
        key: str,
        call: Call,
        stored: Stored,
        looked: _Looked,
        answer: Answer,
        asked: float,
        came: float,
    ) -> None:
        """Take over what an answer to ``HEAD`` says of what is stored (RFC 9111 section 4.3.5)."""
        if head_agrees(stored, answer.headers):
            fresh = updated(stored, call.outgoing.headers, answer.headers, asked, came)
            await self._store(key, call, fresh, looked)
        else:
            await self._cache.delete(key)

    def _pass(self, key: str) -> None:
        while len(self._passes) >= _MOST_PASSES:
            del self._passes[next(iter(self._passes))]
        self._passes[key] = self._clock() + _PASS_SECONDS


class _Collected:
    """The pieces of a body, as long as they are not too many bytes; then None."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self.pieces: list[bytes] | None = []

    def add(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0:
            self.pieces = None
        elif self.pieces is not None:
            self.pieces.append(piece)


def _options(call: Call) -> RouteCache:
    cache = call.destination.route.cache
    assert cache is not None
    return cache


def _is_answer(verdict: Verdict) -> bool:
    return isinstance(verdict, Fresh) or (isinstance(verdict, Stale) and verdict.while_revalidate)


def _forwarded(verdict: Verdict) -> Forwarded:
    return verdict.fwd if isinstance(verdict, Forward) else "stale"


async def _deliver(call: Call, stored: Stored, headers: list[tuple[bytes, bytes]]) -> None:
    if call.model is not None:
        body = call.outgoing.body
        if isinstance(body, bytes):
            call.model.request(body)
        call.model.cached()
    if not_modified(call.outgoing.method, call.outgoing.headers, stored):
        await call.deliver(Answer(304, not_modified_headers(headers), Whole()))
    else:
        await call.deliver(Answer(stored.status, headers, Whole(*stored.pieces)))


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
