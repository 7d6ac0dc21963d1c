"""One fetch for many: whoever misses a key first fetches it, and all others wait for that.

In a pod the first one of a key *leads*: it takes the lock of the key in Redis (see `locks`) or,
where another pod has that, waits for it on behalf of all who wait in this pod. It is woken by the
change of the lock, which Redis tells; a slow poll is the net below that. When the leader has
finished, all enter; when it was cancelled or failed, the next one of its pod leads, and where there
is none, one of another pod.

Without Redis each pod fetches once for itself, and nothing waits for Redis.
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import msgspec
import trio

from sidecar.cache.locks import LOCK_SECONDS, Locks, Taken
from sidecar.cache.redis import RedisCache, RefusedError, UnavailableError

_POLL_SECONDS = 1.0

# lead: fetch, on behalf of all; finished: somebody has; late: the time to wait is over.
_Verdict = Literal["lead", "finished", "late"]


class Flight(msgspec.Struct, frozen=True):
    """How a caller has entered: ``leads`` when it fetches for itself or all, else it has waited."""

    leads: bool


class _Waiter:
    """One who waits in this pod, until it is told to go first or that the fetch is finished."""

    def __init__(self) -> None:
        self.woken = trio.Event()
        self.goes_first = False


class _Turn:
    """Who is first for a key in this pod holds this; all others wait in it, in order."""

    def __init__(self) -> None:
        self.token = os.urandom(16).hex().encode()
        self.asked = False  # for the lock, so that it may have to be left
        self.leads = False
        self.waiting: dict[_Waiter, None] = {}

    def pass_on(self) -> bool:
        """Make the one who has waited longest the first; tell whether there is one."""
        if not self.waiting:
            return False
        waiter = next(iter(self.waiting))
        del self.waiting[waiter]
        waiter.goes_first = True
        waiter.woken.set()
        return True

    def finish(self) -> None:
        """Let all enter who wait."""
        for waiter in self.waiting:
            waiter.woken.set()
        self.waiting.clear()


class Flights:
    """The fetches under way.

    Args:
        redis: the shared cache, or None where each pod is alone.
    """

    def __init__(self, redis: RedisCache | None = None) -> None:
        self._locks = None if redis is None else Locks(redis)
        self._turns: dict[str, _Turn] = {}

    async def run(self) -> None:
        """Renew the locks of those who fetch, until cancelled."""
        while self._locks is not None:
            await trio.sleep(LOCK_SECONDS / 4)
            for key, turn in list(self._turns.items()):
                if turn.leads and turn.asked:
                    with suppress(UnavailableError, RefusedError):
                        await self._locks.renew(key, turn.token)

    @asynccontextmanager
    async def join(self, key: str, wait_seconds: float) -> AsyncIterator[Flight]:
        """Enter as the one who fetches the key, or once somebody has, or after ``wait_seconds``."""
        verdict = await self._enter(key, trio.current_time() + wait_seconds)
        async with self._flying(key, verdict):
            yield Flight(verdict != "finished")

    @asynccontextmanager
    async def try_lead(self, key: str) -> AsyncIterator[Flight]:
        """Enter at once, as the one who fetches the key unless somebody does already."""
        verdict: _Verdict = "late"
        if key not in self._turns:
            verdict = await self._enter(key, -math.inf)
        async with self._flying(key, verdict):
            yield Flight(verdict == "lead")

    @asynccontextmanager
    async def _flying(self, key: str, verdict: _Verdict) -> AsyncIterator[None]:
        finished = False
        try:
            yield
            finished = True
        finally:
            if verdict == "lead":
                await self._land(key, finished)

    async def _enter(self, key: str, deadline: float) -> _Verdict:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn()
        else:
            waiter = _Waiter()
            turn.waiting[waiter] = None
            try:
                with trio.move_on_at(deadline):
                    await waiter.woken.wait()
            except trio.Cancelled:
                if waiter.goes_first:
                    await self._land(key, False)
                turn.waiting.pop(waiter, None)
                raise
            if not waiter.woken.is_set():
                del turn.waiting[waiter]
                return "late"
            if not waiter.goes_first:
                return "finished"
        try:
            verdict = await self._wait_for_lock(key, turn, deadline)
        except BaseException:
            await self._land(key, False)
            raise
        if verdict == "lead":
            turn.leads = True
        else:
            if verdict == "finished":
                turn.finish()
            if not turn.pass_on():
                del self._turns[key]
        return verdict

    async def _wait_for_lock(self, key: str, turn: _Turn, deadline: float) -> _Verdict:
        """Take the lock of all pods, wherever there is one to take."""
        if self._locks is None or turn.leads:  # the one before has left it to this one
            return "lead"
        waited = False
        with self._locks.watch(key) as changed:
            while True:
                turn.asked = True
                try:
                    taken = await self._locks.take(key, turn.token, waited=waited)
                except (UnavailableError, RefusedError):
                    return "lead"
                if taken is Taken.BY_US:
                    return "lead"
                if taken is Taken.FINISHED:
                    return "finished"
                waited = True
                with trio.move_on_at(deadline), trio.move_on_after(_POLL_SECONDS):
                    await changed()
                if trio.current_time() >= deadline:
                    return "late"

    async def _land(self, key: str, finished: bool) -> None:
        """End the turn of a key, or pass it on when it was not finished."""
        turn = self._turns[key]
        if not finished and turn.pass_on():
            return
        turn.finish()
        turn.leads = False
        if self._locks is not None and turn.asked:
            with trio.CancelScope(shield=True), suppress(UnavailableError, RefusedError):
                await self._locks.leave(key, turn.token, finished=finished)
        # Those who have come meanwhile.
        if finished:
            turn.finish()
        if not turn.pass_on():
            del self._turns[key]
