"""Answers from the cache, and into it: what RFC 9111 says, done with a cache that pods share.

What may be stored and given is told by `sidecar.cache.rfc9111`, where it is by `entries`; here is
what happens in between. Of calls that miss at the same time one goes to the upstream, and the
others wait for its answer. When it turns out that the answer is of no use to them, they go on at
once, all together, and those that follow soon after do not wait for each other.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import msgspec

from sidecar.cache.cache_status import with_forward, with_hit
from sidecar.cache.fields import directives
from sidecar.cache.rfc9111 import (
    SERVER_ERRORS,
    Forward,
    Forwarded,
    Fresh,
    NotCached,
    Stale,
    Verdict,
    answer_headers,
    at_once,
    current_age,
    judge,
    serves_others,
    storable,
)
from sidecar.cache.stored import Stored
from sidecar.cache.tiers import Cache
from sidecar.cache.validation import (
    conditional_headers,
    freshens,
    head_agrees,
    is_conditional,
    not_modified,
    not_modified_headers,
    unconditional,
    updated,
)
from sidecar.http.headers import HeaderList
from sidecar.http.messages import HTTPError
from sidecar.pressure import Held, Overloaded
from sidecar.proxy.call import Call
from sidecar.proxy.entries import Entries, Entry, Kept, key_for, length_of, options_of
from sidecar.proxy.upstream import Answer, Whole
from sidecar.redaction.walk_otlp import Outcome

# For so long calls do not wait for each other after an answer that is of no use to others.
_PASS_SECONDS = 30.0
_MOST_PASSES = 4096
_REASONS_TO_WAIT: frozenset[Forwarded] = frozenset({"uri-miss", "vary-miss", "stale"})

# What is done while nobody waits for it, with what it takes beside the call.
Background = Callable[[Outcome, Held], Awaitable[None]]


class ResponseCache:
    """The cache of answers.

    Args:
        cache: where they are.
        in_background: runs a function as a task that the caller does not wait for, if there is
            room for another.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        cache: Cache,
        in_background: Callable[[Background], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._entries = Entries(cache)
        self._in_background = in_background
        self._clock = clock
        self._passes: dict[str, float] = {}

    async def answer(self, call: Call) -> None:
        """Answer a call: with what is stored, or from the upstream.

        Raises:
            HTTPError: there is no answer.
            Overloaded: there is no room for it.
        """
        key = key_for(call)
        if key is None:
            await self._pass_on(call)
            return
        entry = await self._entries.look(key, call)
        verdict = self._judge(call, entry)
        self._cache.count(hit=at_once(verdict))
        if await self._give(call, entry, verdict):
            return
        if self._waits(call, entry, verdict):
            await self._fetch_for_all(call, entry, verdict)
        else:
            await self._fetch(call, entry, verdict, AsyncExitStack())

    async def _pass_on(self, call: Call) -> None:
        """Let a call through in which the cache has no part; forget what it makes untrue."""
        fwd: Forwarded = "bypass" if call.outgoing.method in ("GET", "HEAD") else "method"

        async def use(answer: Answer) -> None:
            await self._entries.forget_untrue(call, answer)
            answer.headers = with_forward(answer.headers, fwd)
            await call.deliver(answer)

        await call.fetch([], use)

    def _judge(self, call: Call, entry: Entry) -> Verdict:
        outgoing = call.outgoing
        return judge(
            outgoing.method, outgoing.headers, entry.found, options_of(call), self._clock()
        )

    async def _give(
        self, call: Call, entry: Entry, verdict: Verdict, collapsed: Forwarded | None = None
    ) -> bool:
        """Answer with what is stored if it may be; tell whether that was done.

        Raises:
            HTTPError: 504, only what is stored was wanted, and it may not be given.
        """
        if isinstance(verdict, NotCached):
            raise HTTPError(504, "The request is only-if-cached, and the cache has no answer.")
        stored = entry.stored
        if stored is None or isinstance(verdict, Forward):
            return False
        if isinstance(verdict, Stale):
            if not verdict.while_revalidate:
                return False
            self._refresh(call, entry)
        headers = answer_headers(stored, verdict.age)
        if collapsed:
            headers = with_forward(headers, collapsed, ttl=verdict.ttl, collapsed=True)
        else:
            headers = with_hit(headers, verdict.ttl)
        await _deliver(call, stored, headers)
        return True

    def _refresh(self, call: Call, entry: Entry) -> None:
        """Ask for a stored answer again in the background, unless somebody does already."""
        outgoing = msgspec.structs.replace(
            call.outgoing, headers=unconditional(call.outgoing.headers)
        )

        async def refresh(outcome: Outcome, held: Held) -> None:
            alone = Call(
                call.destination, outgoing, call.via, call.max_body_bytes, None, held, outcome
            )
            with alone.destination.upstream, suppress(HTTPError, Overloaded):
                async with AsyncExitStack() as turn:
                    flight = await turn.enter_async_context(self._cache.try_lead(entry.place))
                    if not flight.leads:
                        return
                    again = await self._entries.look(entry.key, alone)
                    verdict = self._judge(alone, again)
                    if not isinstance(verdict, Fresh):
                        await self._fetch(alone, again, verdict, turn)

        self._in_background(refresh)

    async def _fetch_for_all(self, call: Call, entry: Entry, verdict: Verdict) -> None:
        """Answer as `_fetch` does, or with what another call has fetched meanwhile."""
        fwd = _forwarded(verdict)
        seconds = call.destination.route.timeouts.first_byte
        failure: HTTPError | Overloaded | None = None
        async with AsyncExitStack() as turn:
            flight = await turn.enter_async_context(self._cache.flight(entry.place, seconds))
            again = await self._entries.look(entry.key, call)
            verdict = self._judge(call, again)
            if not flight.leads and again.place != entry.place and not again.stored:
                # It has turned out that answers vary, and the one that came is for others.
                await turn.aclose()
                await self._fetch_for_all(call, again, verdict)
                return
            try:
                if not await self._give(call, again, verdict, None if flight.leads else fwd):
                    await self._fetch(call, again, verdict, turn)
            except (HTTPError, Overloaded) as error:
                # Not out of the block: those who wait would try it one after the other.
                failure = error
                self._pass(entry.place)
        if failure is not None:
            raise failure

    async def _fetch(
        self, call: Call, entry: Entry, verdict: Verdict, turn: AsyncExitStack
    ) -> None:
        """Answer from the upstream, and store the answer if it may be.

        Args:
            call: to answer.
            entry: what is stored for it.
            verdict: of that.
            turn: is closed, so that others who wait go on, when the answer is of no use to them.

        Raises:
            HTTPError: there is no answer, and no stale one that may be given for that.
            Overloaded: there is no room for it.
        """
        stored, fwd = entry.stored, _forwarded(verdict)
        conditions: HeaderList = []
        if stored is not None and (isinstance(verdict, Stale) or _validates(verdict)):
            conditions = conditional_headers(call.outgoing.headers, stored)
        in_error = stored if isinstance(verdict, Stale) and verdict.if_error else None
        try:
            if not await self._ask(call, entry, fwd, conditions, turn, in_error):
                await self._ask(call, entry, fwd, [], turn, in_error)
        except HTTPError:
            if in_error is None or call.delivering:
                raise
            self._pass(entry.place)
            await turn.aclose()
            age = current_age(in_error, self._clock())
            ttl = verdict.ttl + verdict.age - age if isinstance(verdict, Stale) else 0.0
            headers = with_hit(answer_headers(in_error, age), ttl, detail="if-error")
            await _deliver(call, in_error, headers)

    async def _ask(
        self,
        call: Call,
        entry: Entry,
        fwd: Forwarded,
        conditions: HeaderList,
        turn: AsyncExitStack,
        in_error: Stored | None,
    ) -> bool:
        """Call the upstream once and answer with what it says.

        Returns:
            False: nothing is answered, because it says that something has not changed which is not
            what is stored here.

        Raises:
            HTTPError: there is no answer, or it is one in place of which ``in_error`` may be given.
            Overloaded: there is no room for it.
        """
        request, method = call.outgoing.headers, call.outgoing.method
        asked = self._clock()

        async def use(answer: Answer) -> bool:
            stored, came = entry.stored, self._clock()
            if in_error is not None and answer.status in SERVER_ERRORS:
                if call.model is not None:
                    call.model.end()
                raise HTTPError(answer.status, "The upstream failed.")
            if stored is not None and answer.status == 304:
                confirmed = freshens(stored, answer.headers, ours=bool(conditions))
                if confirmed:
                    stored = updated(stored, request, answer.headers, asked, came)
                    await self._store(call, entry, stored)
                if conditions:
                    if confirmed:
                        headers = answer_headers(stored, current_age(stored, came))
                        await _deliver(call, stored, with_forward(headers, fwd, fwd_status=304))
                    return confirmed
            if stored is not None and method == "HEAD" and answer.status == 200:
                # RFC 9111 section 4.3.5.
                if head_agrees(stored, answer.headers):
                    fresh = updated(stored, request, answer.headers, asked, came)
                    await self._store(call, entry, fresh)
                else:
                    await self._entries.forget(entry.place)
            fresh = Stored.of(method, request, answer.status, answer.headers, asked, came)
            keeps = self._keeps(call, answer, fresh)
            if keeps:
                self._keep(call, entry, answer, fresh, turn)
            elif answer.status != 304 and self._may_share(call, entry, fwd):
                self._pass(entry.place)
                await turn.aclose()
            answer.headers = with_forward(answer.headers, fwd, stored=keeps)
            await call.deliver(answer)
            return True

        return await call.fetch(conditions, use)

    def _keeps(self, call: Call, answer: Answer, fresh: Stored) -> bool:
        """Tell by its head whether an answer is to be stored."""
        options = options_of(call)
        return (
            not answer.incomplete
            and (length_of(answer) or 0) <= options.max_bytes
            and storable(call.outgoing.headers, fresh, options) is not None
        )

    def _keep(
        self, call: Call, entry: Entry, answer: Answer, fresh: Stored, turn: AsyncExitStack
    ) -> None:
        """Have an answer stored when its body has come."""

        async def keep(pieces: list[bytes] | None) -> None:
            if pieces is not None and not call.outcome.failed and not call.outcome.dropped:
                fresh.pieces.extend(pieces)
                if await self._store(call, entry, fresh):
                    return
            self._pass(entry.place)
            await turn.aclose()

        answer.pieces = Kept(answer, options_of(call).max_bytes, call.held.take, keep)

    async def _store(self, call: Call, entry: Entry, stored: Stored) -> bool:
        """Store an answer; tell whether it is, and can answer other calls as it is."""
        kept = await self._entries.store(call, entry, stored)
        if not serves_others(stored, options_of(call), self._clock()):
            self._pass(entry.place)
        elif kept:
            self._passes.pop(entry.place, None)
        return kept

    def _may_share(self, call: Call, entry: Entry, fwd: Forwarded) -> bool:
        """Tell whether an answer to this call may be one to others that ask for the same now."""
        method, request, stored = call.outgoing.method, call.outgoing.headers, entry.stored
        if method == "HEAD" or fwd not in _REASONS_TO_WAIT or "no-store" in directives(request):
            return False
        # What is answered to the client's own condition says something of what is stored, or of
        # nothing that is here.
        return not is_conditional(request) or (
            stored is not None and not_modified(method, request, stored)
        )

    def _waits(self, call: Call, entry: Entry, verdict: Verdict) -> bool:
        """Tell whether a call waits for another one that asks for the same."""
        if self._passes.get(entry.place, 0.0) > self._clock():
            return False
        return self._may_share(call, entry, _forwarded(verdict))

    def _pass(self, place: str) -> None:
        self._passes.pop(place, None)
        while len(self._passes) >= _MOST_PASSES:
            del self._passes[next(iter(self._passes))]
        self._passes[place] = self._clock() + _PASS_SECONDS


def _forwarded(verdict: Verdict) -> Forwarded:
    return verdict.fwd if isinstance(verdict, Forward) else "stale"


def _validates(verdict: Verdict) -> bool:
    return isinstance(verdict, Forward) and verdict.validate


async def _deliver(call: Call, stored: Stored, headers: HeaderList) -> None:
    if call.model is not None:
        body = call.outgoing.body
        if isinstance(body, bytes):
            call.model.request(body)
        call.model.cached()
    if not_modified(call.outgoing.method, call.outgoing.headers, stored):
        await call.deliver(Answer(304, not_modified_headers(headers), Whole()))
    else:
        await call.deliver(Answer(stored.status, headers, Whole(*stored.pieces)))
