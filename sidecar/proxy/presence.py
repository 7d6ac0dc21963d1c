"""Ends the calls of clients that have gone away.

A task that waits for that costs more than a small call, so only calls get one that are not over
soon: of all others nobody would notice.
"""

from collections.abc import Awaitable, Callable
from functools import cached_property

import trio

from sidecar.http.messages import Exchange

# A call gets its task after one to two of these.
_TICK_SECONDS = 0.02


class Presence:
    """Looks after the clients of calls; `run` it."""

    def __init__(self) -> None:
        self._young: dict[_Call, None] = {}
        self._idle = trio.lowlevel.ParkingLot()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait for clients to go away, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                if not self._young:
                    await self._idle.park()
                await trio.sleep(_TICK_SECONDS)
                for call in list(self._young):
                    if call.is_old:
                        del self._young[call]
                        nursery.start_soon(call.watch)
                        call.is_watched = True
                    call.is_old = True

    async def while_here(self, exchange: Exchange, function: Callable[[], Awaitable[None]]) -> bool:
        """Run a function until its end, or until the client goes away; tell whether that was so.

        Raises what the function raises.
        """
        call = _Call(exchange)
        if not self._young:
            self._idle.unpark()
        self._young[call] = None
        try:
            with call.scope:
                await function()
        finally:
            self._young.pop(call, None)
            if call.is_watched:
                await call.unwatch()
        return call.scope.cancelled_caught


class _Call:
    """A call under way.

    Attributes:
        scope: what is done for it.
        is_old: whether it was there at the last tick.
        is_watched: whether a task waits for its client to go away.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.scope = trio.CancelScope()
        self.is_old = False
        self.is_watched = False

    @cached_property
    def _watching(self) -> trio.CancelScope:
        return trio.CancelScope()

    @cached_property
    def _unwatched(self) -> trio.Event:
        return trio.Event()

    async def watch(self) -> None:
        """Cancel the call when its client goes away."""
        try:
            with self._watching:
                await self._exchange.gone()
                self.scope.cancel()
        finally:
            self._unwatched.set()

    async def unwatch(self) -> None:
        """Leave the client to who reads its next request."""
        self._watching.cancel()
        with trio.CancelScope(shield=True):
            await self._unwatched.wait()
