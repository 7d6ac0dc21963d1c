"""The cache as its users see it: this pod's memory, and Redis where there is one.

While Redis is connected it is the truth: it is asked first, and memory is a copy. Whenever it is
not, or does not answer in the call, memory answers.

A write goes to memory first and then to Redis. Until it is known to be there, its key is *unsent*:
memory alone answers for it, and `Cache.run` carries it over as soon as Redis takes it. So no reader
of this pod, and after the carry-over none of another, gets a value older than the last write. Where
two pods wrote one key while Redis was away, the one that carries over last wins.
"""

import time
from collections.abc import Callable, Iterator

import msgspec
import structlog
import trio

from sidecar import metrics
from sidecar.cache.memory import Found, MemoryCache, ValueTooLargeError
from sidecar.cache.redis import RedisCache, RefusedError, UnavailableError
from sidecar.cache.redis_url import RedisURLError
from sidecar.settings import SettingsError

MAX_VALUE_BYTES = 2**20

_TICK_SECONDS = 1.0
_UNSENT_BYTES = 2 * 2**20
_UNSENT_OVERHEAD = 200  # of a str and a row in a dict

_log = structlog.get_logger(__name__)


class Stats(msgspec.Struct, frozen=True):
    """Look-ups since the start: counts, and the share of hits from 0 to 1."""

    hit_rate: float
    total_hits: int
    total_misses: int
    total_requests: int


class Cache:
    """Values (encoded JSON) by key, each with a time to live.

    Args:
        max_bytes: the bound of the memory, see `MemoryCache`.
        redis: the shared cache, or None for memory alone.
        clock: seconds that never go backwards.
        max_unsent_bytes: the bound for keys that Redis has missed; beyond it the oldest are
            forgotten, so that other pods may read older values of them until those expire.
    """

    def __init__(
        self,
        max_bytes: int,
        redis: RedisCache | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_unsent_bytes: int = _UNSENT_BYTES,
    ) -> None:
        self._memory = MemoryCache(max_bytes, clock)
        self._redis = redis
        self._unsent = _Unsent(max_unsent_bytes)
        self._writes = 0
        self._sending: set[str] = set()
        self._refused = False
        self._overflowed = False
        self._hits = 0
        self._misses = 0
        metrics.CACHE_ENTRIES.set_function(lambda: len(self._memory))
        metrics.CACHE_BYTES.set_function(lambda: self._memory.bytes)
        metrics.CACHE_HIT_RATE.set_function(lambda: self.stats().hit_rate)

    @classmethod
    def from_url(cls, redis_url: str, max_bytes: int) -> "Cache":
        """Return a cache on top of the Redis at a URL, or without one when the URL is empty.

        Raises:
            SettingsError: the URL cannot be used.
        """
        try:
            return cls(max_bytes, RedisCache(redis_url) if redis_url else None)
        except RedisURLError as error:
            raise SettingsError(f"REDIS_URL=(hidden) is not allowed: {error}") from None

    @property
    def redis_connected(self) -> bool:
        """Tell whether Redis is in use now."""
        return self._redis is not None and self._redis.connected

    def stats(self) -> Stats:
        """Return the counts of `get` since the start."""
        total = self._hits + self._misses
        return Stats(self._hits / total if total else 0.0, self._hits, self._misses, total)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep Redis connected, carry over what it missed, drop what has expired; until cancelled.

        Has started at once, whether Redis can be reached or not.
        """
        async with trio.open_nursery() as nursery:
            if self._redis is not None:
                await nursery.start(self._redis.run)
            task_status.started()
            while True:
                self._memory.expire()
                await self._carry_over()
                await trio.sleep(_TICK_SECONDS)

    async def get(self, key: str) -> Found | None:
        """Return the value and what is left of its time, or None; counts a hit or a miss."""
        found = await self._find(key)
        if found is None:
            self._misses += 1
            metrics.CACHE_MISSES.inc()
        else:
            self._hits += 1
            metrics.CACHE_HITS.inc()
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for ``ttl`` seconds (more than 0).

        Raises:
            ValueTooLargeError: it has more than `MAX_VALUE_BYTES`, or than memory may hold.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise ValueTooLargeError(MAX_VALUE_BYTES)
        self._memory.set(key, value, ttl)
        await self._write(key)

    async def delete(self, key: str) -> None:
        """Forget the key; it need not be there."""
        self._memory.delete(key)
        await self._write(key)

    async def _find(self, key: str) -> Found | None:
        if self._redis is None or key in self._unsent:
            return self._memory.get(key)
        writes = self._writes
        try:
            found = await self._redis.get(key)
        except (UnavailableError, RefusedError):
            return self._memory.get(key)
        # A write that began meanwhile is newer than this answer.
        if writes == self._writes:
            self._copy(key, found)
        return found

    def _copy(self, key: str, found: Found | None) -> None:
        if found is not None:
            try:
                self._memory.set(key, found.value, found.ttl)
            except ValueTooLargeError:  # of a pod that may hold more
                self._memory.delete(key)
        else:
            self._memory.delete(key)

    async def _write(self, key: str) -> None:
        """Bring Redis to what memory holds since just now; if not at once, then later."""
        self._writes += 1
        if self._redis is None:
            return
        if not self._unsent.add(key, self._writes) and not self._overflowed:
            self._overflowed = True
            _log.warning("redis_missed_too_many_writes", kept=len(self._unsent))
        await self._send(self._redis, key)

    async def _send(self, redis: RedisCache, key: str) -> bool:
        """Bring Redis to what memory holds, and tell whether that is done.

        One call at a time for a key, so that an older value never arrives after a newer one; a
        write that comes meanwhile is left to `_carry_over`.
        """
        if key in self._sending:
            return False
        self._sending.add(key)
        write, found = self._writes, self._memory.get(key)
        try:
            if found is None:
                await redis.delete(key)
            else:
                await redis.set(key, found.value, found.ttl)
        except UnavailableError:
            return False
        except RefusedError as error:
            if not self._refused:
                _log.warning("redis_refuses_writes", reason=str(error))
            self._refused = True
            return False
        finally:
            self._sending.discard(key)
        self._refused = False
        self._unsent.sent(key, write)
        return True

    async def _carry_over(self) -> None:
        """Send what is unsent, until Redis is lost or refuses one."""
        if self._redis is None:
            return
        for key in list(self._unsent):
            if not self._redis.connected:
                return
            if key in self._sending or key not in self._unsent:
                continue
            if not await self._send(self._redis, key):
                # One refused key must not hold up all others for ever.
                self._unsent.postpone(key)
                return
        self._overflowed = False


class _Unsent:
    """Keys whose last write is not known to be in Redis, bounded by bytes; the oldest go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._writes: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._writes

    def __iter__(self) -> Iterator[str]:
        return iter(self._writes)

    def __len__(self) -> int:
        return len(self._writes)

    def add(self, key: str, write: int) -> bool:
        """Remember a key and the number of its last write; tell whether all still fit."""
        self._remove(key)
        self._writes[key] = write
        self._bytes += _size(key)
        fits = self._bytes <= self._max_bytes
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._writes)))
        return fits

    def sent(self, key: str, write: int) -> None:
        """Forget a key, unless it was written again after this write."""
        if key in self._writes and self._writes[key] <= write:
            self._remove(key)

    def postpone(self, key: str) -> None:
        """Move a key to the end, if it is here."""
        if key in self._writes:
            self._writes[key] = self._writes.pop(key)

    def _remove(self, key: str) -> None:
        if self._writes.pop(key, None) is not None:
            self._bytes -= _size(key)


def _size(key: str) -> int:
    return len(key.encode()) + _UNSENT_OVERHEAD
