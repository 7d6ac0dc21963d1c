"""Redis as a part that may be away: asked only while it answers, and hardly ever waited for.

A supervisor task connects, pings every second and connects again. A call fails at once while
there is no connection, else within its time limit (twice that after a stall of the event loop);
such a failure ends the connection, so that the next call does not wait.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio
from coredis import exceptions

from sidecar import metrics
from sidecar.cache.memory import Found
from sidecar.cache.redis_url import CONNECT_SECONDS, Client, open_client, parse_url

T = TypeVar("T")

_log = structlog.get_logger(__name__)

PREFIX = "telemetry-cache:"
# The format of a stored value: this byte, then JSON. Another one is read as a miss.
FORMAT = b"\x01"

# An answer of the API may take 50 ms when Redis hangs. Within a data centre Redis takes under 2.
CALL_SECONDS = 0.02
PROBE_SECONDS = 1.0
# Late by more than this, the event loop stood still: the time limit says nothing about Redis.
_STALL_SECONDS = 0.005

# Errors of the client that say nothing about the command.
_LOSSES = (
    exceptions.ConnectionError,
    exceptions.SentinelError,
    exceptions.InvalidResponse,
)


class UnavailableError(Exception):
    """Redis is not connected, or the connection failed in the call."""


class RefusedError(Exception):
    """Redis does not do this: it is out of memory, read-only, it is not permitted, …"""


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()


class RedisCache:
    """The shared cache in Redis.

    Args:
        url: as `sidecar.cache.redis_url` says.
        call_seconds: how long a call may take.

    Attributes:
        on_tick: called by the supervisor after each connect and each ping that was answered.

    Raises:
        RedisURLError: the URL cannot be used.
    """

    def __init__(self, url: str, call_seconds: float = CALL_SECONDS) -> None:
        self.on_tick: Callable[[], Awaitable[None]] = _nothing
        self._server = parse_url(url)
        self._call_seconds = call_seconds
        self._client: Client | None = None
        self._lost = trio.Event()
        self._reported = ""

    @property
    def connected(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._client is not None

    async def get(self, key: str) -> Found | None:
        """Return what is under the key.

        Raises:
            UnavailableError, RefusedError: as the classes say.
        """
        name = (PREFIX + key).encode()
        return await self._call(lambda client: _get(client, name))

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Store JSON for so many seconds, at least one millisecond; raises as `get` does."""
        name = (PREFIX + key).encode()
        milliseconds = max(1, round(ttl * 1000))
        await self._call(lambda client: client.set(name, FORMAT + value, px=milliseconds))

    async def delete(self, key: str) -> None:
        """Forget the key; raises as `get` does."""
        name = (PREFIX + key).encode()
        await self._call(lambda client: client.delete([name]))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection until cancelled, and close it then."""
        metrics.REDIS_CONNECTED.set(0)
        task_status.started()
        while True:
            reason = await self._session()
            self._report_loss(reason)
            await trio.sleep(PROBE_SECONDS)

    async def _session(self) -> str:
        """Connect, stay connected, and return why that ended."""
        try:
            return await self._connect()
        except Exception as error:  # whatever the client raises, the supervisor must live on
            # The type alone, since messages name hosts or quote what a server said.
            return type(_cause(error)).__name__
        finally:
            self._disconnect()

    async def _connect(self) -> str:
        with trio.CancelScope(deadline=trio.current_time() + CONNECT_SECONDS) as connecting:
            try:
                async with open_client(self._server) as client:
                    await client.ping()
                    connecting.deadline = float("inf")
                    await self._watch(client)
                    return "the connection failed"
            except Exception:
                # coredis turns the cancellation of a connect into an error of its own.
                if not connecting.cancel_called:
                    raise
        return TimeoutError.__name__

    async def _watch(self, client: Client) -> None:
        self._lost = lost = trio.Event()
        self._client = client
        metrics.REDIS_CONNECTED.set(1)
        self._report_connect()
        while not lost.is_set():
            await self.on_tick()
            with trio.move_on_after(PROBE_SECONDS):
                await lost.wait()
                return
            with trio.fail_after(CONNECT_SECONDS):
                await client.ping()

    async def _call(self, command: Callable[[Client], Awaitable[T]]) -> T:
        client = self._client
        if client is None:
            await trio.lowlevel.checkpoint()
            raise UnavailableError
        try:
            for last in (False, True):
                with trio.move_on_after(self._call_seconds) as scope:
                    return await command(client)
                # Every command is idempotent, so it may be sent again.
                if last or trio.current_time() - scope.deadline < _STALL_SECONDS:
                    break
            kind = "timeout"
        except exceptions.RedisError as error:
            if not isinstance(error, _LOSSES):
                metrics.REDIS_ERRORS.labels("refused").inc()
                raise RefusedError(type(error).__name__) from None
            kind = "connection"
        except Exception:
            # A connection that is being closed raises whatever its streams and pool do.
            kind = "connection"
        # Those who were in flight with the first that failed are not counted again.
        if client is self._client:
            metrics.REDIS_ERRORS.labels(kind).inc()
            self._disconnect()
        raise UnavailableError

    def _disconnect(self) -> None:
        self._client = None
        metrics.REDIS_CONNECTED.set(0)
        self._lost.set()

    def _report_connect(self) -> None:
        self._reported = "redis_connected"
        _log.info("redis_connected", kind=self._server.kind)

    def _report_loss(self, reason: str) -> None:
        event = {"": "redis_unreachable", "redis_connected": "redis_lost"}.get(self._reported)
        if event:
            self._reported = event
            _log.warning(event, kind=self._server.kind, reason=reason)


async def _get(client: Client, name: bytes) -> Found | None:
    stored = await client.get(name)
    if stored is None or not stored.startswith(FORMAT):
        return None
    # A second round trip, which only hits pay: a pipeline would keep the one connection to
    # itself until it has its answer.
    milliseconds = await client.pttl(name)
    if milliseconds <= 0:  # it ended meanwhile, or somebody stored it without an end
        return None
    return Found(stored[len(FORMAT) :], milliseconds / 1000)


def _cause(error: BaseException) -> BaseException:
    """Return what lies under groups, and under coredis' own error for a failed connect."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, exceptions.ConnectionError) and error.__cause__ is not None:
            error = error.__cause__
        else:
            return error
