"""The commands of Redis that the cache makes, for one server or for a cluster."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import coredis
from coredis.connection import BaseConnection
from coredis.exceptions import ReadOnlyError, ResponseError
from coredis.typing import Key

from sidecar.cache.redis_url import Server
from sidecar.cache.tracking import Tracker, open_client
from sidecar.cache.values import KEY_PREFIX

__all__ = ["Commands", "ReadOnlyError", "ResponseError", "Tracker", "open_commands"]

# A key that nobody sets.
_PROBE = KEY_PREFIX
# Enough to find one for each primary, unless it has but a few of the 16,384 slots.
_MOST_PROBE_NAMES = 10_000


class Commands(Protocol):
    """The commands of Redis that are used here; each is sent at once, or when it is awaited."""

    def get(self, key: bytes) -> Awaitable[bytes | None]:
        """Return a value."""

    def pttl(self, key: bytes) -> Awaitable[int]:
        """Return for how many milliseconds a value is kept, or a negative number."""

    def unlink(self, keys: list[bytes]) -> Awaitable[Any]:
        """Forget keys."""

    def eval(self, script: str, keys: list[bytes], args: list[bytes | int]) -> Awaitable[Any]:
        """Return what a Lua script returns."""

    def ping(self) -> list[Awaitable[Any]]:
        """Return calls that together show whether every server answers, and is the right one."""


class _Direct:
    """Commands for the one connection of a client.

    In coredis' pool the calls that come at one time get the connection one after the other, each in
    a turn of the event loop of its own.
    """

    def __init__(self, connection: BaseConnection) -> None:
        self._request = connection.create_request

    def get(self, key: bytes) -> Awaitable[Any]:
        return self._request(b"GET", key)

    def pttl(self, key: bytes) -> Awaitable[Any]:
        return self._request(b"PTTL", key)

    def unlink(self, keys: list[bytes]) -> Awaitable[Any]:
        return self._request(b"UNLINK", *keys)

    def eval(self, script: str, keys: list[bytes], args: list[bytes | int]) -> Awaitable[Any]:
        return self._request(b"EVAL", script, len(keys), *keys, *args)

    def ping(self) -> list[Awaitable[Any]]:
        # Reading shows what PING does not: whether this account may read here. And PING, but no
        # read, is refused while Redis cannot save to its disk.
        return [self.get(_PROBE)]


class _Cluster:
    """Commands for a cluster, which coredis brings to the right node."""

    def __init__(self, client: coredis.RedisCluster[bytes]) -> None:
        self._pool = client.connection_pool
        self._probes = _probes(client.connection_pool.cluster_layout)
        self.get = client.get
        self.pttl = client.pttl
        self.unlink = client.unlink
        self.eval = client.eval

    def ping(self) -> list[Awaitable[Any]]:
        return [self._read(node, name) for node, name in self._probes]

    async def _read(self, node: Any, name: bytes) -> None:
        # Not by way of the client, which would go on to another node.
        async with self._pool.acquire(node) as connection:
            request = connection.create_request(b"GET", name)
        await request


def _probes(layout: Any) -> list[tuple[Any, bytes]]:
    """Return each primary with a key that nobody sets, and that it must not have passed on."""
    probes: dict[tuple[str, int], tuple[Any, bytes]] = {}
    names = (_PROBE + b"\xffprobe:%d" % number for number in range(_MOST_PROBE_NAMES))
    for name in names:
        node = layout.node_for_slot(Key(name).slot)
        probes.setdefault((node.host, node.port), (node, name))
        if len(probes) == len(layout.primaries):
            break
    return list(probes.values())


@asynccontextmanager
async def open_commands(server: Server, tracker: Tracker) -> AsyncIterator[Commands]:
    """Yield a client's commands; everything it opens is closed at the end of the block.

    The commands of all tasks go over its connections without waiting for answers in between, and
    are never repeated. In a cluster it is connected to every primary.

    Raises:
        RedisError: a server cannot be reached, or does not let this account read.
    """
    async with open_client(server, tracker) as client:
        pool: Any = client.connection_pool
        if isinstance(client, coredis.RedisCluster):
            # Not in the first call to each, which would have no time for it.
            for node in pool.cluster_layout.primaries:
                pool.release(await pool.get_connection(node))
            commands: Commands = _Cluster(client)
        else:
            async with pool.acquire() as connection:
                commands = _Direct(connection)
        await commands.get(_PROBE)
        yield commands
