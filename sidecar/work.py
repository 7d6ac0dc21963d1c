"""Work that computes for long, kept away from the event loop."""

import math
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

import trio

T = TypeVar("T")

# Up to here it takes some milliseconds, and a tenth of a second at the worst.
_INLINE_BYTES = 16 * 1024
# A pod has a fraction of a core: two at once would take as long, and twice the memory.
_limiter = trio.CapacityLimiter(1)
# After which whoever waits for the thread has it.
_TURN_SECONDS = 0.05


async def work(size: int, function: Callable[[], T]) -> T:
    """Return what a function returns; in a thread when its input is large.

    A cancelled call returns at once. Its thread goes on to its end, so the function must own all
    that it changes.

    Args:
        size: of the input, in bytes.
        function: neither awaits nor touches what others change.
    """
    if size <= _INLINE_BYTES:
        return function()
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=_limiter)


async def work_in_turns(size: int, steps: Generator[None, None, T], *, at_once: float = 0.0) -> T:
    """Return what a generator returns; in a thread when its input is large, taking turns.

    However long it takes, others wait for one turn of it, which ends at a ``yield``.

    Args:
        size: of the input, in bytes.
        steps: neither awaits nor touches what others change.
        at_once: seconds for which it may go on before there is a thread; each step is to be short.
    """
    seconds = math.inf if size <= _INLINE_BYTES else at_once
    for result in _advance(steps, seconds):
        return result
    while True:
        finished = await trio.to_thread.run_sync(
            partial(_advance, steps, _TURN_SECONDS), abandon_on_cancel=True, limiter=_limiter
        )
        for result in finished:
            return result


def _advance(steps: Generator[None, None, T], seconds: float) -> tuple[T, ...]:
    """Go on for some time; return the result, if it came to that."""
    end = time.perf_counter() + seconds
    try:
        while time.perf_counter() < end:
            next(steps)
    except StopIteration as finished:
        return (finished.value,)
    return ()
