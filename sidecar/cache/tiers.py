"""The cache: memory alone, or memory with a Redis that all pods share.

While Redis answers it is asked first, because another pod may have written since; memory gets a
copy. While it does not, memory answers. A key whose newest write did not reach Redis is *pending*:
memory alone answers for it until that write is carried over, so what was written is read again
and what it replaced is not. When several pods write a key while Redis is away, the one that is
carried over last stays.
"""

import contextlib
from collections import OrderedDict

import msgspec
import structlog
import trio

from sidecar import metrics
from sidecar.cache.memory import Found, MemoryCache, ValueTooLargeError
from sidecar.cache.redis import RedisCache, RefusedError, UnavailableError

_log = structlog.get_logger(__name__)

MAX_VALUE_BYTES = 2**20
# What pending keys may take, as a share of the memory bound and on top of it.
_PENDING_SHARE = 8
_PENDING_OVERHEAD = 200
# Pending keys that are carried over at the same time.
_CARRY_TASKS = 32


class Stats(msgspec.Struct, frozen=True):
    """Look-ups since the start; the rate is 0 before the first."""

    hit_rate: float
    total_hits: int
    total_misses: int
    total_requests: int


class Cache:
    """Keys to JSON, each with a time to live.

    Args:
        max_bytes: the bound of the in-memory cache.
        redis: what is shared with other pods, or None.
    """

    def __init__(self, max_bytes: int, redis: RedisCache | None = None) -> None:
        self._memory = MemoryCache(max_bytes)
        self._redis = redis
        self._pending = _Pending(max_bytes // _PENDING_SHARE)
        self._hits = 0
        self._misses = 0
        self._refusing = False
        if redis is not None:
            redis.on_tick = self._carry_over

    @classmethod
    def from_url(cls, redis_url: str, max_bytes: int) -> "Cache":
        """Return a cache that is not connected yet; an empty URL is for memory alone.

        Raises:
            RedisURLError: the URL cannot be used.
        """
        return cls(max_bytes, RedisCache(redis_url) if redis_url else None)

    @property
    def redis_connected(self) -> bool:
        """Whether there is a Redis and it answers."""
        return self._redis is not None and self._redis.connected

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep Redis connected until cancelled; return at once when there is none."""
        if self._redis is None:
            task_status.started()
        else:
            await self._redis.run(task_status)

    async def get(self, key: str) -> Found | None:
        """Return what is under the key, with the seconds it has left."""
        found = await self._look_up(key)
        if found is None:
            self._misses += 1
            metrics.CACHE_MISSES.inc()
        else:
            self._hits += 1
            metrics.CACHE_HITS.inc()
        metrics.CACHE_HIT_RATE.set(self.stats().hit_rate)
        self._measure()
        return found

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep JSON for ``ttl`` seconds.

        Raises:
            ValueTooLargeError: it has more than `MAX_VALUE_BYTES`, or more than the memory bound.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise ValueTooLargeError(MAX_VALUE_BYTES)
        self._memory.set(key, value, ttl)
        await self._write(key)

    async def delete(self, key: str) -> None:
        """Forget the key; it need not be there."""
        self._memory.delete(key)
        await self._write(key)

    def stats(self) -> Stats:
        """Return the counts of look-ups."""
        total = self._hits + self._misses
        return Stats(self._hits / total if total else 0.0, self._hits, self._misses, total)

    async def _look_up(self, key: str) -> Found | None:
        if self._redis is None or key in self._pending:
            return self._memory.get(key)
        writes = self._pending.writes
        try:
            found = await self._redis.get(key)
        except (UnavailableError, RefusedError):
            return self._memory.get(key)
        if key in self._pending:
            return self._memory.get(key)
        if self._pending.writes != writes:
            # Something was written here meanwhile, maybe this key: too late for a copy.
            return found
        self._memory.delete(key)
        if found is not None:
            # Another pod may have more room.
            with contextlib.suppress(ValueTooLargeError):
                self._memory.set(key, found.value, found.ttl)
        return found

    async def _write(self, key: str) -> None:
        """Bring what memory has for the key, or its absence, to Redis, else leave it pending."""
        self._measure()
        if self._redis is None:
            return
        # Pending until it is there, and whoever made it so carries every later write of it too:
        # so the newest write is the last to arrive.
        waiting = key in self._pending
        self._pending.add(key)
        if waiting:
            return
        try:
            await self._carry(self._redis, key)
        except UnavailableError:
            pass
        except RefusedError as error:
            self._report_refusal(str(error))

    async def _carry(self, redis: RedisCache, key: str) -> None:
        """Write the key to Redis until what it has is the newest."""
        while (version := self._pending.version(key)) is not None:
            found = self._memory.get(key)
            if found is None:
                await redis.delete(key)
            else:
                await redis.set(key, found.value, found.ttl)
            if self._pending.version(key) == version:
                self._pending.discard(key)

    async def _carry_over(self) -> None:
        """Write the pending keys to Redis; the first refusal ends it until the next tick."""
        redis = self._redis
        assert redis is not None
        had = len(self._pending)
        keys = iter(self._pending.keys())
        refused = False

        async def carry() -> None:
            nonlocal refused
            for key in keys:
                if refused or not redis.connected:
                    return
                try:
                    await self._carry(redis, key)
                except UnavailableError:
                    return
                except RefusedError as error:
                    refused = True
                    # Others first the next time: what deletes, say, may not be refused.
                    self._pending.postpone(key)
                    self._report_refusal(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(min(_CARRY_TASKS, had)):
                nursery.start_soon(carry)
        if had and not self._pending:
            self._refusing = False
            _log.info("redis_carried_over", keys=had)

    def _report_refusal(self, reason: str) -> None:
        if not self._refusing:
            self._refusing = True
            _log.warning("redis_refuses", reason=reason)

    def _measure(self) -> None:
        metrics.CACHE_ENTRIES.set(len(self._memory))
        metrics.CACHE_BYTES.set(self._memory.bytes)


class _Pending:
    """Keys whose newest write is not in Redis yet, each with the number of that write.

    Bounded by bytes; the oldest are forgotten first, and that is logged, because what Redis has
    of those may be out of date until it expires.
    """

    def __init__(self, max_bytes: int) -> None:
        self.writes = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._full = False

    def __contains__(self, key: str) -> bool:
        return key in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def keys(self) -> list[str]:
        return list(self._versions)

    def version(self, key: str) -> int | None:
        return self._versions.get(key)

    def add(self, key: str) -> None:
        self.discard(key)
        self.writes += 1
        self._versions[key] = self.writes
        self._bytes += _pending_size(key)
        while self._bytes > self._max_bytes and len(self._versions) > 1:
            self.discard(next(iter(self._versions)))
            if not self._full:
                self._full = True
                _log.warning("redis_writes_forgotten")

    def postpone(self, key: str) -> None:
        if key in self._versions:
            self._versions.move_to_end(key)

    def discard(self, key: str) -> None:
        if self._versions.pop(key, None) is not None:
            self._bytes -= _pending_size(key)
        if not self._versions:
            self._full = False


def _pending_size(key: str) -> int:
    return len(key.encode()) + _PENDING_OVERHEAD
