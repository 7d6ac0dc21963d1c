"""The cache that all pods share: Redis, which may be away at any time.

A supervisor, `RedisCache.run`, owns the connection: it connects, probes, and connects again. A call
never waits for a connection. It is answered within `CALL_SECONDS` or raises `UnavailableError`, and
the first call that finds Redis silent or broken ends the connection, so that those after it do not
wait at all until the supervisor is back.

Stored form: the key is `KEY_PREFIX` + key; the value is one byte, `FORMAT`, followed by JSON; every
key has an expiry in milliseconds.
"""

import math
import random
from collections.abc import Awaitable
from typing import Any

import msgspec
import structlog
import trio
from coredis.client import Client
from coredis.exceptions import ResponseError

from sidecar import metrics
from sidecar.cache.memory import Found
from sidecar.cache.redis_url import open_client, parse_url

KEY_PREFIX = "telemetry-cache:"
FORMAT = b"\x01"

# A key that nobody sets. Reading it shows what PING does not: whether this account may read here.
# And PING, but no read, is refused while Redis cannot save to its disk.
_PROBE = KEY_PREFIX.encode()

# An API call makes one call to Redis at most and has 50 ms in all.
CALL_SECONDS = 0.025
# Together the worst case between "Redis is back" and "Redis is used": under 4 s.
CONNECT_SECONDS = 2.0
PROBE_SECONDS = 1.0

# A call's time is counted in so many steps. When the process itself stands still (throttled, or
# busy with a large request), that costs one step, not Redis.
_STEPS = 5

_log = structlog.get_logger(__name__)


class UnavailableError(Exception):
    """Redis is not connected, or was lost in this call; whether it did the work is unknown."""


class RefusedError(Exception):
    """Redis answered with an error: out of memory, read-only, no permission."""


class _Session(msgspec.Struct, frozen=True):
    """One connection; cancelling the scope closes it."""

    client: Client[bytes]
    scope: trio.CancelScope


class RedisCache:
    """Values by key, in Redis.

    Args:
        url: see `sidecar.cache.redis_url.parse_url`.
        call_seconds: the longest a call may take.

    Raises:
        RedisURLError: the URL cannot be used.
    """

    def __init__(self, url: str, call_seconds: float = CALL_SECONDS) -> None:
        self._server = parse_url(url)
        self._call_seconds = call_seconds
        self._session: _Session | None = None
        self._reported: set[str] = set()

    @property
    def connected(self) -> bool:
        """Tell whether calls go to Redis now."""
        return self._session is not None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled.

        Has started at once, whether Redis can be reached or not.
        """
        metrics.REDIS_CONNECTED.set(0)
        task_status.started()
        try:
            while True:
                await self._attend()
                # Thousands of pods lose one Redis at the same moment; they do not come back at one.
                await trio.sleep(PROBE_SECONDS * random.uniform(0.5, 1.5))
        finally:
            self._session = None
            metrics.REDIS_CONNECTED.set(0)

    async def _attend(self) -> None:
        """Open one connection and watch it until it is lost."""
        session = None
        reason = "TimeoutError"
        scope = trio.CancelScope(deadline=trio.current_time() + CONNECT_SECONDS)
        try:
            # The client goes with its connection, because a cancelled attempt to connect costs
            # coredis' pool a place for good.
            with scope:
                async with open_client(self._server) as client:
                    await client.get(_PROBE)
                    scope.deadline = math.inf
                    session = _Session(client, scope)
                    self._begin(session)
                    await self._probe(session)
        except UnavailableError:
            pass
        # Whatever goes wrong inside the library ends this connection, not the process.
        except Exception as error:
            reason = _root_cause(error)
        if session is not None:
            self._end(session, reason)
        elif reason not in self._reported:
            _log.warning("redis_unreachable", reason=reason)
            self._reported.add(reason)

    async def _probe(self, session: _Session) -> None:
        while True:
            await trio.sleep(PROBE_SECONDS)
            await self._ask(session, session.client.get(_PROBE))

    def _begin(self, session: _Session) -> None:
        self._session = session
        self._reported.clear()
        metrics.REDIS_CONNECTED.set(1)
        _log.info("redis_connected")

    def _end(self, session: _Session, reason: str) -> None:
        """Close the connection, unless another call has done so before."""
        if session is self._session:
            self._session = None
            session.scope.cancel()
            metrics.REDIS_CONNECTED.set(0)
            _log.warning("redis_lost", reason=reason)
            self._reported.add(reason)

    async def get(self, key: str) -> Found | None:
        """Return what is under the key.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        session, name = self._connection(), _name(key)
        client = session.client
        value, milliseconds = await self._ask(session, client.get(name), client.pttl(name))
        # Only this program writes here, and always with an expiry; -1 says there is none, -2 that
        # the key has gone between the two commands.
        if value is None or not value.startswith(FORMAT) or milliseconds <= 0:
            return None
        return Found(value[len(FORMAT) :], milliseconds / 1000)

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for ``ttl`` seconds (more than 0).

        Raises:
            UnavailableError, RefusedError: see there.
        """
        session, name = self._connection(), _name(key)
        milliseconds = math.ceil(ttl * 1000)
        await self._ask(session, session.client.set(name, FORMAT + value, px=milliseconds))

    async def delete(self, key: str) -> None:
        """Forget the key; it need not be there.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        session, name = self._connection(), _name(key)
        # UNLINK frees a large value outside the server's main thread.
        await self._ask(session, session.client.unlink([name]))

    def _connection(self) -> _Session:
        if self._session is None:
            raise UnavailableError
        return self._session

    async def _ask(self, session: _Session, *calls: Awaitable[Any]) -> list[Any]:
        """Return the answers to all calls, which run at the same time."""
        try:
            return await _answers(calls, self._call_seconds)
        except trio.TooSlowError:
            kind, reason = "timeout", "TimeoutError"
        except ResponseError as error:
            metrics.REDIS_ERRORS.labels("refused").inc()
            raise RefusedError(_root_cause(error)) from None
        # Also what the library raises when its pool is closed under a call.
        except Exception as error:
            kind, reason = "connection", _root_cause(error)
        metrics.REDIS_ERRORS.labels(kind).inc()
        self._end(session, reason)
        raise UnavailableError


def _name(key: str) -> bytes:
    # Encoded here, because coredis would do it in the task that writes for all calls.
    return (KEY_PREFIX + key).encode()


async def _answers(calls: tuple[Awaitable[Any], ...], seconds: float) -> list[Any]:
    """Run all calls at once and return their answers; raise the first error of one.

    Raises:
        trio.TooSlowError: not all have answered after ``seconds``, see `_STEPS`.
    """
    answers: dict[int, Any] = {}
    errors: list[Exception] = []

    async def run(index: int, call: Awaitable[Any]) -> None:
        try:
            answers[index] = await call
        except Exception as error:
            errors.append(error)
        if errors or len(answers) == len(calls):
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
        for _ in range(_STEPS):
            await trio.sleep(seconds / _STEPS)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if len(answers) < len(calls):
        raise trio.TooSlowError
    return [answers[index] for index in range(len(calls))]


def _root_cause(error: BaseException) -> str:
    """Return the name of the exception at the bottom; messages may quote what was sent."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return type(error).__name__
