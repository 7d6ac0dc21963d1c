"""Ends the calls of clients that have gone away.

A task that waits for that costs more than a small call, so only calls get one that are not over
soon: of all others nobody would notice.
"""

from collections.abc import Awaitable

import trio

from sidecar.http.messages import Disconnected, Exchange

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
                        call.watch = _Watch()
                        nursery.start_soon(call.watch.run, call.exchange)
                    call.is_old = True

    async def while_here(self, exchange: Exchange, work: Awaitable[None]) -> None:
        """Wait for what is done for a request, until the client goes away.

        Raises:
            Disconnected: the client went away, and what was done for it is cancelled.
        """
        call = _Call(exchange)
        if self._idle:
            self._idle.unpark()
        self._young[call] = None
        try:
            await work
        finally:
            self._young.pop(call, None)
            if call.watch is not None:
                await call.watch.end()
                if call.watch.is_gone:
                    raise Disconnected from None


class _Call:
    """A call under way.

    Attributes:
        exchange: with its client.
        is_old: whether it was there at the last tick.
        watch: looks whether its client goes away, once it is old.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.is_old = False
        self.watch: _Watch | None = None


class _Watch:
    """Waits until a client goes away.

    Attributes:
        is_gone: whether it has.
    """

    def __init__(self) -> None:
        self.is_gone = False
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, exchange: Exchange) -> None:
        """Cancel what is done for the client when it goes away."""
        try:
            with self._scope:
                await exchange.gone()
                self.is_gone = True
                exchange.abandon()
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Leave the client to who reads its next request."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
