"""How long Redis is waited for, and when it is no longer asked.

A call that takes too long is given up. After one such call, or `_SLOW_CALLS` one after the other
that were merely slow, the breaker is open: no call is made any more, so that a slow Redis costs a
request nothing. A probe in the background closes it, once it was answered fast.

The process itself may stand still (throttled, or busy with a large request), which must not look
like a slow Redis. So a call's time is counted in steps, of which each stall costs one, and a call
has been waited for only until the event loop last had nothing to do: then its answer was not there.
"""

import math
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import trio

_STEPS = 10
# Of the time a call may take: more than this share is slow.
_SLOW = 0.15
_SLOW_CALLS = 3

# To ask for what is there already takes less.
_IDLE_SECONDS = 0.00005


class Breaker:
    """Closed while calls may be made.

    Args:
        call_seconds: the longest a call may take.
    """

    def __init__(self, call_seconds: float) -> None:
        self.closed = False
        self._slow_seconds = call_seconds * _SLOW
        self._slow_calls = 0
        self._last_slow = -math.inf

    def is_fast(self, waited: float) -> bool:
        """Tell whether an answer that was waited for so many seconds came soon enough."""
        return waited < self._slow_seconds

    def is_enough(self, asked: float, waited: float, *, given_up: bool) -> bool:
        """Take in how a call went; tell whether no more should be made.

        Args:
            asked: when it was made.
            waited: seconds since then, see `LastIdle`.
            given_up: whether it was not answered in time.
        """
        if self.is_fast(waited) and not given_up:
            self._slow_calls = 0
            return False
        # Of many calls that are under way at once, one hiccup makes many slow.
        if asked >= self._last_slow:
            self._slow_calls += 1
            self._last_slow = asked + waited
        # Given up though hardly waited for: it was rather the process that took the time.
        return self._slow_calls >= _SLOW_CALLS or (given_up and not self.is_fast(waited))

    def close(self) -> None:
        """Let calls through."""
        self.closed = True
        self._slow_calls = 0

    def open(self) -> None:
        """Let no call through."""
        self.closed = False


class LastIdle(trio.abc.Instrument):
    """Knows when the event loop last had nothing to do.

    Whoever waits then and has waited since before, has not got what it waits for until then.

    Attributes:
        until: the end of it, by the clock of `time.perf_counter`; what the loop slept beyond its
            next deadline is not in it.
    """

    def __init__(self) -> None:
        self.until = -math.inf
        self._began = 0.0

    def before_io_wait(self, timeout: float) -> None:
        """Begin to count."""
        self._began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        """Take in a wait that was one."""
        took = min(timeout, time.perf_counter() - self._began)
        if took >= _IDLE_SECONDS:
            self.until = self._began + took

    def waited(self, since: float) -> float:
        """Return for how many seconds what was asked for at that time was not there, at least."""
        return max(0.0, self.until - since)


async def answers(calls: Sequence[Awaitable[Any]], seconds: float) -> list[Any]:
    """Run all calls at once and return their answers; raise the first error of one.

    Raises:
        trio.TooSlowError: not all have answered after ``seconds``.
    """
    got: dict[int, Any] = {}
    errors: list[Exception] = []

    async def run(index: int, call: Awaitable[Any]) -> None:
        try:
            got[index] = await call
        except Exception as error:
            errors.append(error)
        if errors or len(got) == len(calls):
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
        for _ in range(_STEPS):
            await trio.sleep(seconds / _STEPS)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if len(got) < len(calls):
        raise trio.TooSlowError
    return [got[index] for index in range(len(calls))]
