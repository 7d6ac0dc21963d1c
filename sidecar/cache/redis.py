"""The cache that all pods share: values by key in Redis, and who is told of changes.

Stored form: see `values`; every key has an expiry in milliseconds. How Redis is reached, and what
happens while it is not: see `link`.
"""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import trio

from sidecar import metrics
from sidecar.cache.link import CALL_SECONDS, Link, RefusedError, UnavailableError
from sidecar.cache.memory import Found
from sidecar.cache.redis_url import parse_url
from sidecar.cache.values import KEY_PREFIX, Codec

__all__ = ["Copies", "RedisCache", "RefusedError", "UnavailableError"]

# A write ends what Redis remembers of the key; reading it in the same step, so that nobody can
# write in between, has later changes told.
_SET = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('PTTL', KEYS[1])
"""


class Copies(Protocol):
    """Who keeps copies of what Redis holds, by local name."""

    def changed(self, name: str | None) -> None:
        """Take in that the value of one name is another one now, or, with None, of all."""

    def renewed(self) -> None:
        """Take in that changes may have been missed, and will be told from now on."""


class RedisCache:
    """Values by key, in Redis.

    Args:
        url: see `sidecar.cache.redis_url.parse_url`.
        call_seconds: the longest a call may take.
        codec: makes the stored form.

    Attributes:
        codec: the same.
        copies: is told of changes.

    Raises:
        RedisURLError: the URL cannot be used.
    """

    def __init__(
        self, url: str, call_seconds: float = CALL_SECONDS, codec: Codec | None = None
    ) -> None:
        self.codec = codec or Codec()
        self.copies: Copies | None = None
        self._watched: dict[bytes, trio.Event] = {}
        self._link = Link(
            parse_url(url),
            call_seconds,
            changed=self._changed,
            renewed=self._renewed,
            lost=self._lost,
        )

    @property
    def connected(self) -> bool:
        """Tell whether calls go to Redis now."""
        return self._link.connected

    @property
    def copies_hold(self) -> bool:
        """Tell whether copies may be used now, see `link`."""
        return self._link.copies_hold

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep Redis connected until cancelled, see `Link.run`."""
        await self._link.run(task_status)

    def local_name(self, key: str) -> str:
        """Return the name by which `Copies` are told of a key."""
        name = self.codec.stored_name(key)[len(KEY_PREFIX) :].decode()
        return key if name == key else name

    async def get(self, key: str) -> Found | None:
        """Return what is under the key.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        name = self.codec.stored_name(key)
        stored, milliseconds = await self._link.ask(
            lambda client: client.get(name), lambda client: client.pttl(name)
        )
        # Only this program writes here, and always with an expiry; -1 says there is none, -2 that
        # the key has gone between the two commands.
        if stored is None or milliseconds <= 0:
            return None
        value = self.codec.decode(key, stored)
        return None if value is None else Found(value, milliseconds / 1000)

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for ``ttl`` seconds (more than 0); its writer is told of later changes.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        stored = self.codec.encode(key, value)
        await self.eval(_SET, self.codec.stored_name(key), stored, math.ceil(ttl * 1000))

    async def delete(self, key: str) -> None:
        """Forget the key; it need not be there.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        name = self.codec.stored_name(key)
        # UNLINK frees a large value outside the server's main thread.
        await self._link.ask(lambda client: client.unlink([name]))

    async def eval(self, script: str, name: bytes, *args: bytes | int) -> Any:
        """Return what a Lua script returns that uses one key.

        Raises:
            UnavailableError, RefusedError: see there.
        """
        size = sum(len(arg) for arg in args if isinstance(arg, bytes))
        (answer,) = await self._link.ask(
            lambda client: client.eval(script, keys=[name], args=list(args)), sent_bytes=size
        )
        return answer

    @contextmanager
    def watch(self, name: bytes) -> Iterator[Callable[[], Awaitable[None]]]:
        """Yield what waits until a key has changed since it was last read; one watcher a key.

        It also ends when Redis is no longer asked.
        """

        async def changed() -> None:
            await self._watched[name].wait()
            self._watched[name] = trio.Event()

        self._watched[name] = trio.Event()
        try:
            yield changed
        finally:
            del self._watched[name]

    def _changed(self, name: bytes | None) -> None:
        """Pass on that a key has changed."""
        metrics.REDIS_INVALIDATIONS.inc()
        if name is not None and name in self._watched:
            self._watched[name].set()
        elif self.copies is not None:
            self.copies.changed(None if name is None else _local(name))

    def _renewed(self) -> None:
        if self.copies is not None:
            self.copies.renewed()

    def _lost(self) -> None:
        for changed in self._watched.values():
            changed.set()


def _local(name: bytes) -> str:
    # Names that are no text are not those of values, see `locks`.
    return name[len(KEY_PREFIX) :].decode(errors="replace")
