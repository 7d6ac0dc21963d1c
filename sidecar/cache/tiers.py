"""The cache as its users see it: this pod's memory, and Redis where there is one.

Memory is the first tier. While Redis tells what changes, see `redis`, what memory has of it is the
same as what Redis has, but for the moment the message takes, and is answered without asking. What
memory does not have, Redis is asked for. Whenever Redis is not to be had, memory answers alone.

A write goes to memory first and then to Redis. Until it is known to be there, its key is *unsent*:
memory alone answers for it, and `Cache.run` carries it over as soon as Redis takes it. So no reader
of this pod, and after the carry-over none of another, gets a value older than the last write. Where
two pods wrote one key while Redis was away, the one that carries over last wins.

Values are kept for exactly the time that the caller asks for, in both tiers, because callers are
told when they end. Who writes many values at one time, and need not tell, spreads their ends with
`spread`, so that they do not all go at the same moment.
"""

import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import structlog
import trio

from sidecar import metrics
from sidecar.cache.flights import Flight, Flights
from sidecar.cache.memory import Found, MemoryCache, ValueTooLargeError
from sidecar.cache.redis import RedisCache, RefusedError, UnavailableError
from sidecar.cache.redis_url import RedisURLError
from sidecar.cache.unsent import Unsent
from sidecar.cache.values import MAX_VALUE_BYTES, CacheKeys, Codec
from sidecar.settings import SettingsError

__all__ = ["MAX_VALUE_BYTES", "Cache", "Flight", "Stats", "spread"]

_TICK_SECONDS = 1.0
_UNSENT_BYTES = 2 * 2**20
_SPREAD = 0.05
_MEMORY_HITS, _REDIS_HITS = map(metrics.CACHE_TIER_HITS.labels, ("memory", "redis"))

_log = structlog.get_logger(__name__)


class Stats(msgspec.Struct, frozen=True):
    """Look-ups since the start: counts, and the share of hits from 0 to 1."""

    hit_rate: float
    total_hits: int
    total_misses: int
    total_requests: int


def spread(ttl: float) -> float:
    """Return a time to live that is up to `_SPREAD` shorter, by chance."""
    return ttl * random.uniform(1 - _SPREAD, 1)


class _Reading:
    """A value on its way from Redis; unanswered when its reader has gone away."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.answered = False
        self.found: Found | None = None


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
        if redis is not None:
            redis.copies = self
        self._flights = Flights(redis)
        self._unsent = Unsent(max_unsent_bytes)
        self._writes = 0
        # By local name: what is on its way to Redis, and what changed there meanwhile.
        self._sending: set[str] = set()
        self._overtaken: set[str] = set()
        # By local name: what is being read from Redis, unless it has changed since.
        self._reading: dict[str, _Reading] = {}
        self._refused = False
        self._overflowed = False
        self._hits = 0
        self._misses = 0
        metrics.CACHE_ENTRIES.set_function(lambda: len(self._memory))
        metrics.CACHE_BYTES.set_function(lambda: self._memory.bytes)
        metrics.CACHE_HIT_RATE.set_function(lambda: self.stats().hit_rate)

    @classmethod
    def from_url(cls, redis_url: str, max_bytes: int, key_file: str = "") -> "Cache":
        """Return a cache on top of the Redis at a URL, or without one when the URL is empty.

        Args:
            redis_url: see `sidecar.cache.redis_url.parse_url`.
            max_bytes: the bound of the memory.
            key_file: see `CacheKeys.load`; empty: what is in Redis can be read by who reaches it.

        Raises:
            SettingsError: the URL or the file cannot be used.
        """
        codec = Codec(CacheKeys.load(key_file) if key_file else None)
        try:
            return cls(max_bytes, RedisCache(redis_url, codec=codec) if redis_url else None)
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
                nursery.start_soon(self._flights.run)
            task_status.started()
            while True:
                self._memory.expire()
                if self._redis is not None:
                    self._redis.codec.refresh()
                await self._carry_over()
                await trio.sleep(_TICK_SECONDS)

    async def get(self, key: str) -> Found | None:
        """Return the value and what is left of its time, or None; counts a hit or a miss."""
        found = await self.look(key)
        self.count(hit=found is not None)
        return found

    def count(self, *, hit: bool) -> None:
        """Count a look-up of a caller that says itself what is a hit."""
        if hit:
            self._hits += 1
            metrics.CACHE_HITS.inc()
        else:
            self._misses += 1
            metrics.CACHE_MISSES.inc()

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for ``ttl`` seconds (more than 0).

        Raises:
            ValueTooLargeError: it has more than `MAX_VALUE_BYTES`, or than memory may hold.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise ValueTooLargeError(MAX_VALUE_BYTES)
        self._memory.set(self._name(key), value, ttl)
        await self._write(key, Found(value, ttl))

    async def delete(self, key: str) -> None:
        """Forget the key; it need not be there."""
        self._memory.delete(self._name(key))
        await self._write(key, None)

    def flight(self, key: str, wait_seconds: float) -> AbstractAsyncContextManager[Flight]:
        """Enter as the one of all pods who fetches the key, or once somebody has fetched it.

        After ``wait_seconds`` the caller enters to fetch for itself. Whoever has entered looks into
        the cache again, and fetches what is not there: the one before may have stored nothing.
        """
        return self._flights.join(key, wait_seconds)

    def try_lead(self, key: str) -> AbstractAsyncContextManager[Flight]:
        """Enter at once: as the one of all pods who fetches the key, or not, see `Flight`."""
        return self._flights.try_lead(key)

    def changed(self, name: str | None) -> None:
        """Forget the copy of what another pod has changed, see `sidecar.cache.redis.Copies`."""
        if name is None:
            self.renewed()
            return
        self._reading.pop(name, None)
        if name in self._sending:
            # Before or after what is on its way? If Redis takes that, the next reader asks it.
            self._overtaken.add(name)
        elif name not in self._unsent:
            self._memory.delete(name)

    def renewed(self) -> None:
        """Forget all copies; what is unsent stays."""
        unsent = [(name, found) for name in self._unsent if (found := self._memory.get(name))]
        self._memory.clear()
        for name, found in unsent:
            self._memory.set(name, found.value, found.ttl)
        self._reading.clear()
        self._overtaken |= self._sending

    def _name(self, key: str) -> str:
        return key if self._redis is None else self._redis.local_name(key)

    async def look(self, key: str) -> Found | None:
        """Do as `get` does, and count nothing."""
        name = self._name(key)
        if self._redis is None or name in self._unsent or self._redis.copies_hold:
            found = self._memory.get(name)
            if found is not None:
                _MEMORY_HITS.inc()
                return found
        if self._redis is None or name in self._unsent or not self._redis.connected:
            return None
        found = await self._read(self._redis, key, name)
        if found is not None:
            _REDIS_HITS.inc()
        return found

    async def _read(self, redis: RedisCache, key: str, name: str) -> Found | None:
        """Return what Redis has, asked once for all who ask now; copy it unless it changes."""
        while (reading := self._reading.get(name)) is not None:
            await reading.ended.wait()
            if reading.answered:
                return reading.found
        reading = self._reading[name] = _Reading()
        try:
            reading.found = await redis.get(key)
            reading.answered = True
            if self._reading.get(name) is reading:
                self._copy(name, reading.found)
        except (UnavailableError, RefusedError):
            reading.answered = True
        finally:
            if self._reading.get(name) is reading:
                del self._reading[name]
            reading.ended.set()
        return reading.found

    def _copy(self, name: str, found: Found | None) -> None:
        if found is not None:
            try:
                self._memory.set(name, found.value, found.ttl)
            except ValueTooLargeError:  # of a pod that may hold more
                self._memory.delete(name)
        else:
            self._memory.delete(name)

    async def _write(self, key: str, found: Found | None) -> None:
        """Bring Redis to what was written just now; if not at once, then later."""
        self._writes += 1
        if self._redis is None:
            return
        name = self._name(key)
        self._reading.pop(name, None)
        if not self._unsent.add(name, key, self._writes) and not self._overflowed:
            self._overflowed = True
            _log.warning("redis_missed_too_many_writes", kept=len(self._unsent))
        await self._send(self._redis, name, key, found)

    async def _send(self, redis: RedisCache, name: str, key: str, found: Found | None) -> bool:
        """Bring Redis to the last write of a key, and tell whether that is done.

        One call at a time for a key, so that an older value never arrives after a newer one; a
        write that comes meanwhile is left to `_carry_over`.
        """
        if name in self._sending:
            return False
        self._sending.add(name)
        write = self._writes
        try:
            if found is None:
                await redis.delete(key)
            else:
                await redis.set(key, found.value, found.ttl)
            self._unsent.sent(name, write)
            if name in self._overtaken and name not in self._unsent:
                self._memory.delete(name)
        except UnavailableError:
            return False
        except RefusedError as error:
            if not self._refused:
                _log.warning("redis_refuses_writes", reason=str(error))
            self._refused = True
            return False
        finally:
            self._sending.discard(name)
            self._overtaken.discard(name)
        self._refused = False
        return True

    async def _carry_over(self) -> None:
        """Send what is unsent, until Redis is lost or refuses one."""
        if self._redis is None:
            return
        for name in list(self._unsent):
            if not self._redis.connected:
                return
            if name in self._sending or name not in self._unsent:
                continue
            key, found = self._unsent.key(name), self._memory.get(name)
            if not await self._send(self._redis, name, key, found):
                # One refused key must not hold up all others for ever.
                self._unsent.postpone(name)
                return
        self._overflowed = False
