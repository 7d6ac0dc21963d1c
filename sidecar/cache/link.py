"""The connection to Redis, which may be away or slow at any time.

A supervisor, `Link.run`, owns it: it connects, probes, and connects again. A call never waits for a
connection. It is answered within `CALL_SECONDS` or raises `UnavailableError`, and the first one
that finds Redis silent, or the third in a row that finds it slow, ends that for all others: see
`breaker`. The connection stays, and with it what it tells of changes, until a probe is not answered
within `PROBE_SECONDS`; a connection that is broken goes at once.

Copies of what Redis holds may be used while the connection tells what changes, see `tracking`. When
it is lost they rest, for at most `REST_SECONDS`: another pod may write what this one is not told.
The next attempt to connect is made at once. When it shows that Redis cannot be reached, copies are
used again, since there is nothing better; when there is a connection again, the copies go first.
"""

import math
import random
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import trio

from sidecar import metrics
from sidecar.cache.breaker import Breaker, LastIdle, answers
from sidecar.cache.redis_url import Server

if TYPE_CHECKING:
    from sidecar.cache.commands import Commands
    from sidecar.cache.tracking import Tracker

# What imports coredis: a third of all that a start would import, in time and in memory. A pod whose
# Redis is away has no use of it.
_LIBRARY = "sidecar.cache.commands"

# An API call makes one call to Redis at most and has 50 ms in all.
CALL_SECONDS = 0.02
# Together the worst case between "Redis is back" and "Redis is used": under 4 s.
CONNECT_SECONDS = 2.0
PROBE_SECONDS = 1.0
REST_SECONDS = 0.25

# The pause before the next probe or attempt, which doubles up to `PROBE_SECONDS`.
_FIRST_PAUSE_SECONDS = 0.02

# More than this takes time on its way, which tells nothing about Redis.
_LARGE_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class UnavailableError(Exception):
    """Redis is not in use, or was found silent in this call; whether it did the work is unknown."""


class RefusedError(Exception):
    """Redis answered with an error: out of memory, read-only, no permission."""


class _Session(msgspec.Struct):
    """One connection, and the module that made it; cancelling the scope closes it."""

    client: "Commands"
    scope: trio.CancelScope
    tracker: "Tracker"
    library: Any
    used: bool = False


class Link:
    """One client of Redis at a time.

    Args:
        server: where Redis is.
        call_seconds: the longest a call may take.
        changed: is told the name of each key that has changed, None for all of them.
        renewed: is called when changes may have been missed, and will be told from now on.
        lost: is called when Redis is no longer asked.
    """

    def __init__(
        self,
        server: Server,
        call_seconds: float,
        *,
        changed: Callable[[bytes | None], None],
        renewed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._server = server
        self._call_seconds = call_seconds
        self._changed = changed
        self._renewed = renewed
        self._lost = lost
        self._session: _Session | None = None
        self._breaker = Breaker(call_seconds)
        self._opened = trio.Event()
        self._idle = LastIdle()
        self._rest_until = -math.inf
        self._reported: set[str] = set()

    @property
    def connected(self) -> bool:
        """Tell whether calls go to Redis now."""
        return self._session is not None and self._breaker.closed

    @property
    def copies_hold(self) -> bool:
        """Tell whether copies may be used now."""
        if self._session is None or not self._session.used:
            return trio.current_time() >= self._rest_until
        return not (self._breaker.closed and self._session.tracker.refused)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled.

        Has started at once, whether Redis can be reached or not.
        """
        metrics.REDIS_CONNECTED.set(0)
        trio.lowlevel.add_instrument(self._idle)
        task_status.started()
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                began = trio.current_time()
                await self._attend()
                # Longer than an attempt takes: it was in use.
                if trio.current_time() - began > CONNECT_SECONDS + PROBE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                    continue
                # Thousands of pods lose one Redis at the same moment; they do not come back at one.
                await trio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, PROBE_SECONDS)
        finally:
            trio.lowlevel.remove_instrument(self._idle)
            self._session = None
            metrics.REDIS_CONNECTED.set(0)

    async def _attend(self) -> None:
        """Open one connection and watch it until it is lost."""
        session: _Session | None = None
        reason = "TimeoutError"
        scope = trio.CancelScope(deadline=trio.current_time() + CONNECT_SECONDS)

        def lost() -> None:
            if session is not None:
                self._end(session, "ConnectionError")

        try:
            # The client goes with its connection, because a cancelled attempt to connect costs
            # coredis' pool a place for good.
            with scope:
                library = await _library(self._server)
                async with trio.open_nursery() as nursery:
                    tracker = library.Tracker(nursery, self._changed, lost)
                    async with library.open_commands(self._server, tracker) as client:
                        scope.deadline = math.inf
                        self._session = session = _Session(client, scope, tracker, library)
                        await self._watch(session)
        # Whatever goes wrong inside the library ends this connection, not the process; it may come
        # in a group with the cancellation of a stop.
        except* Exception as error:
            reason = _root_cause(error)
        if session is not None:
            self._end(session, reason)
        if session is None or not session.used:
            self._rest_until = -math.inf
            self._report("redis_unreachable", reason)

    async def _watch(self, session: _Session) -> None:
        """Probe, often while the breaker is open, until a probe fails."""
        pause = _FIRST_PAUSE_SECONDS
        while session is self._session:
            asked = time.perf_counter()
            try:
                await answers(session.client.ping(), PROBE_SECONDS)
            except trio.TooSlowError:
                self._end(session, "TimeoutError")
                return
            if self._breaker.is_fast(self._idle.waited(asked)):
                self._use(session)
            if self._breaker.closed:
                with trio.move_on_after(PROBE_SECONDS) as calm:
                    await self._opened.wait()
                # Opened sooner, Redis is now slow and now not, and is asked less and less.
                if calm.cancelled_caught:
                    pause = _FIRST_PAUSE_SECONDS
            if not self._breaker.closed:
                await trio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, PROBE_SECONDS)

    def _use(self, session: _Session) -> None:
        """Let calls go to Redis from now on."""
        if self._breaker.closed or session is not self._session:
            return
        if not session.used:
            session.used = True
            self._renewed()
        self._breaker.close()
        self._opened = trio.Event()
        self._reported.clear()
        metrics.REDIS_CONNECTED.set(1)
        metrics.REDIS_BREAKER_OPEN.set(0)
        _log.info("redis_connected")

    def _spare(self, session: _Session, reason: str) -> None:
        """Let no call go to Redis until a probe is fast again."""
        if session is self._session and self._breaker.closed:
            self._breaker.open()
            self._opened.set()
            metrics.REDIS_CONNECTED.set(0)
            metrics.REDIS_BREAKER_OPEN.set(1)
            self._report("redis_lost", reason)
            self._lost()

    def _end(self, session: _Session, reason: str) -> None:
        """Close the connection, unless that has been done before."""
        if session is not self._session:
            return
        if session.used:
            self._rest_until = trio.current_time() + REST_SECONDS
        self._spare(session, reason)
        self._session = None
        session.scope.cancel()
        metrics.REDIS_BREAKER_OPEN.set(0)

    def _report(self, event: str, reason: str) -> None:
        if reason not in self._reported:
            _log.warning(event, reason=reason)
            self._reported.add(reason)

    async def ask(
        self, *calls: Callable[["Commands"], Awaitable[Any]], sent_bytes: int = 0
    ) -> list[Any]:
        """Make all calls at the same time and return their answers.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        session = self._session
        if session is None or not self._breaker.closed:
            raise UnavailableError
        asked = time.perf_counter()
        try:
            got = await answers([call(session.client) for call in calls], self._call_seconds)
        except trio.TooSlowError:
            metrics.REDIS_ERRORS.labels("timeout").inc()
            if self._breaker.is_enough(asked, self._idle.waited(asked), given_up=True):
                self._spare(session, "TimeoutError")
            raise UnavailableError from None
        except session.library.ResponseError as error:
            metrics.REDIS_ERRORS.labels("refused").inc()
            # The primary that Sentinel had named has become a replica.
            if self._server.kind == "sentinel" and isinstance(error, session.library.ReadOnlyError):
                self._end(session, _root_cause(error))
                raise UnavailableError from None
            raise RefusedError(_root_cause(error)) from None
        # Also what the library raises when its pool is closed under a call.
        except Exception as error:
            metrics.REDIS_ERRORS.labels("connection").inc()
            self._end(session, _root_cause(error))
            raise UnavailableError from None
        size = sent_bytes + sum(len(part) for part in got if isinstance(part, bytes))
        waited = self._idle.waited(asked)
        if size < _LARGE_BYTES and self._breaker.is_enough(asked, waited, given_up=False):
            metrics.REDIS_ERRORS.labels("slow").inc()
            self._spare(session, "SlowError")
        return got


async def _library(server: Server) -> Any:
    """Return `sidecar.cache.commands`; it is imported, in a thread, when a server is there first.

    Raises:
        OSError: it is not imported yet, and nobody can be connected to.
    """
    if _LIBRARY in sys.modules:
        return import_module(_LIBRARY)
    await _reach(server)
    return await trio.to_thread.run_sync(import_module, _LIBRARY)


async def _reach(server: Server) -> None:
    failures: list[OSError] = []

    async def connect(host: str, port: int) -> None:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            failures.append(error)
        else:
            await stream.aclose()
            connecting.cancel_scope.cancel()

    async with trio.open_nursery() as connecting:
        for node in server.nodes:
            connecting.start_soon(connect, *node)
    if len(failures) == len(server.nodes):
        raise failures[0]


def _root_cause(error: BaseException) -> str:
    """Return the name of the exception at the bottom; messages may quote what was sent."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return type(error).__name__
