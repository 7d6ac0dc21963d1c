"""Who, of all pods, is fetching a key: a short lock in Redis.

The lock of a key is its holder's token, kept for `LOCK_SECONDS` and for longer while it is renewed;
a holder that dies costs at most that. Who has fetched leaves ``done`` for a moment, so that those
who wait can tell that from a fetch that was given up, where the lock just goes.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from enum import Enum

from sidecar.cache.redis import RedisCache
from sidecar.cache.values import KEY_PREFIX

LOCK_SECONDS = 10.0
_DONE_SECONDS = 2.0

# Not UTF-8, so it is the name of no value.
_PREFIX = KEY_PREFIX + b"\xfflock:"

_TAKE = """
local held = redis.call('GET', KEYS[1])
if held == 'done' and ARGV[3] == '1' then return 2 end
if held and held ~= 'done' and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_DROP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_FINISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2])
return 1
"""


class Taken(Enum):
    """What came of asking for a lock."""

    BY_ANOTHER = 0
    BY_US = 1
    FINISHED = 2


class Locks:
    """The locks of keys; each call raises what `RedisCache.eval` raises.

    Args:
        redis: where they are.
    """

    def __init__(self, redis: RedisCache) -> None:
        self._redis = redis

    async def take(self, key: str, token: bytes, *, waited: bool) -> Taken:
        """Take the lock of a key unless another token has it.

        Args:
            key: the cache key.
            token: tells this holder from all others.
            waited: whether it was held before, so that it matters how it was left.
        """
        args = (token, _milliseconds(LOCK_SECONDS), int(waited))
        return Taken(await self._redis.eval(_TAKE, self._name(key), *args))

    async def renew(self, key: str, token: bytes) -> None:
        """Keep the lock for `LOCK_SECONDS` from now on, if it is held with this token."""
        await self._redis.eval(_RENEW, self._name(key), token, _milliseconds(LOCK_SECONDS))

    async def leave(self, key: str, token: bytes, *, finished: bool) -> None:
        """Let go of the lock, if it is held with this token."""
        if finished:
            await self._redis.eval(_FINISH, self._name(key), token, _milliseconds(_DONE_SECONDS))
        else:
            await self._redis.eval(_DROP, self._name(key), token)

    def watch(self, key: str) -> AbstractContextManager[Callable[[], Awaitable[None]]]:
        """Yield what waits for a change of the lock after `take`, see `RedisCache.watch`."""
        return self._redis.watch(self._name(key))

    def _name(self, key: str) -> bytes:
        return _PREFIX + self._redis.codec.stored_name(key)[len(KEY_PREFIX) :]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
