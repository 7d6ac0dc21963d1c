"""How long Redis is waited for, and when it is no longer asked.

A call that takes too long is given up. After one such call, or `_SLOW_CALLS` in a row that were
merely slow, the breaker is open: no call is made any more, so that a slow Redis costs a request
nothing. A probe in the background closes it, once it was answered fast.

The process itself may stand still (throttled, or busy with a large request), which must not look
like a slow Redis. So a call's time is counted in steps, of which each stall costs one, and slow is
only what the event loop, with nothing else to do, has waited for.
"""

import time
from collections.abc import Awaitable, Sequence
from typing import Any

import trio

_STEPS = 10
# Of the time a call may take: more than this share is slow.
_SLOW = 0.2
_SLOW_CALLS = 3


class Breaker:
    """Closed while calls may be made.

    Args:
        call_seconds: the longest a call may take.
    """

    def __init__(self, call_seconds: float) -> None:
        self.closed = False
        self._slow_seconds = call_seconds * _SLOW
        self._slow_calls = 0

    def is_fast(self, waited: float) -> bool:
        """Tell whether an answer that was waited for so many seconds came soon enough."""
        return waited < self._slow_seconds

    def is_enough(self, waited: float, *, given_up: bool) -> bool:
        """Take in how a call went; tell whether no more should be made.

        Args:
            waited: seconds, see `IdleTime`.
            given_up: whether it was not answered in time.
        """
        if self.is_fast(waited) and not given_up:
            self._slow_calls = 0
            return False
        self._slow_calls += 1
        # Given up though hardly waited for: it was rather the process that took the time.
        return self._slow_calls >= _SLOW_CALLS or (given_up and not self.is_fast(waited))

    def close(self) -> None:
        """Let calls through."""
        self.closed = True
        self._slow_calls = 0

    def open(self) -> None:
        """Let no call through."""
        self.closed = False


class IdleTime(trio.abc.Instrument):
    """Counts for how long the event loop has had nothing to do.

    Attributes:
        seconds: so far; what the loop slept beyond its next deadline is not in it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def before_io_wait(self, timeout: float) -> None:
        """Begin to count."""
        self._began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        """End counting."""
        self.seconds += min(timeout, time.perf_counter() - self._began)


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
