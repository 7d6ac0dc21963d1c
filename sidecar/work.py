"""Work that computes for long, kept away from the event loop."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

# Up to here it takes some milliseconds, and a tenth of a second at the worst.
_INLINE_BYTES = 16 * 1024
# A pod has a fraction of a core: two at once would take as long, and twice the memory.
_limiter = trio.CapacityLimiter(1)


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
