"""A coredis client whose connections tell what has changed in Redis.

Redis remembers which keys a connection has read, and tells it once when one of them is written,
deleted, evicted or expires (``CLIENT TRACKING``, over RESP3). After that the key must be read again
to be told of again. What a connection writes itself it is not told of (``NOLOOP``), though its own
write, too, ends what Redis remembers of the key.

Not ``BCAST``: there every write goes to every pod, which for thousands of pods that each write is
a square. Here a write goes to the pods that have read the key. What that costs Redis is bounded by
its ``tracking-table-max-keys``: beyond it, keys are told as changed that are not.

The same connection carries the commands and the messages. So there is one to a single server; with
Sentinel one more, to a sentinel; in a cluster one to each primary, however many calls run at once.
coredis' own client-side cache needs a second connection to each node, the replicas too.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import coredis
import structlog
import trio
from coredis.client import Client
from coredis.connection import (
    BaseConnection,
    ClusterConnection,
    SentinelManagedConnection,
    TCPConnection,
    TCPLocation,
)
from coredis.exceptions import ConnectionError as LostError
from coredis.exceptions import RedisError, ResponseError
from coredis.pool import ClusterConnectionPool, ConnectionPool, SentinelConnectionPool
from coredis.retry import NoRetryPolicy

from sidecar.cache.redis_url import Server

# For one attempt to connect to one node, and for each answer of the handshake.
_NODE_SECONDS = 1.0

# A primary that is replaced while it works is demoted only some 10 s later.
_FOLLOW_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Tracker:
    """Turns tracking on for each connection of one client, and listens.

    Args:
        nursery: runs the listeners, and what else goes on as long as the client is open.
        changed: is told the name of each key that has changed, None for all of them.
        lost: is called when a connection is gone, and with it what it would have told.

    Attributes:
        nursery: the same.
        refused: whether Redis has refused to track, so that nothing is told.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        changed: Callable[[bytes | None], None],
        lost: Callable[[], None],
    ) -> None:
        self.refused = False
        self.nursery = nursery
        self._changed = changed
        self._lost = lost

    async def __call__(self, connection: BaseConnection) -> None:
        """Start with a connection whose handshake is about to end."""
        try:
            await connection.create_request(b"CLIENT TRACKING", b"ON", b"NOLOOP")
        except ResponseError:
            if not self.refused:
                _log.warning("redis_tracking_refused")
            self.refused = True
        self.nursery.start_soon(self._listen, connection.push_messages)

    async def _listen(self, messages: AsyncGenerator[list[Any], None]) -> None:
        try:
            async for kind, *rest in messages:
                if kind == b"invalidate":
                    (names,) = rest
                    for name in [None] if names is None else names:
                        self._changed(name)
        except LostError:
            self._lost()


class _Tracked(BaseConnection):
    """A connection that stays good while a message waits in it, and sends many commands at once."""

    @property
    def reusable(self) -> bool:
        return self.usable

    async def _writer_task(self) -> None:
        # coredis' own collects one command in each turn of the event loop, so that the first of a
        # hundred is sent after a hundred turns.
        while self.stream is not None:
            commands = await self._write_buffer_out.receive()
            while self._write_buffer_out.statistics().current_buffer_used:
                commands.extend(self._write_buffer_out.receive_nowait())
            packed = self._packer.pack_commands([(name, *args) for name, args in commands])
            try:
                await self.stream.send(b"".join(packed))
            except Exception as error:
                self._transport_failed = True
                raise LostError("Connection lost while sending request") from error


class _SingleConnection(_Tracked, TCPConnection):
    pass


class _PrimaryConnection(_Tracked, SentinelManagedConnection):
    pass


class _NodeConnection(_Tracked, ClusterConnection):
    pass


class _PrimaryPool(SentinelConnectionPool):
    """A pool whose one connection is made by ``connection_class``, which coredis ignores here."""

    def __init__(self, *args: Any, tracker: Tracker, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tracker = tracker

    async def _construct_connection(self) -> SentinelManagedConnection:
        location = await self.get_primary_location()
        connection = _PrimaryConnection(location, self.service_name, True, **self.connection_kwargs)
        connection.register_connect_callback(self._tracker)
        return connection


class _ClusterPool(ClusterConnectionPool):
    async def _make_node_connection(self, node: Any) -> ClusterConnection:
        try:
            return await super()._make_node_connection(node)
        except trio.Cancelled:
            # Otherwise the place of this connection would be lost to the pool for good.
            self._node_pool(TCPLocation(node.host, node.port)).append_nowait(None)
            raise


@asynccontextmanager
async def open_client(server: Server, tracker: Tracker) -> AsyncIterator[Client[bytes]]:
    """Yield a client; everything it opens is closed at the end of the block.

    It sends the commands of all tasks over its connections without waiting for answers in between,
    and never repeats a command by itself.
    """
    common: dict[str, Any] = {
        "connect_timeout": _NODE_SECONDS,
        "stream_timeout": _NODE_SECONDS,
        "max_connections": 1,
        "ssl_context": server.tls,
    }
    account = {**common, "username": server.username, "password": server.password}
    options: dict[str, Any] = {"retry_policy": NoRetryPolicy(), "verify_version": False}

    def tracked(kind: Callable[..., BaseConnection]) -> Any:
        def make(*args: Any, **kwargs: Any) -> BaseConnection:
            connection = kind(*args, **kwargs)
            connection.register_connect_callback(tracker)
            return connection

        return make

    if server.kind == "single":
        ((host, port),) = server.nodes
        pool: ConnectionPool[Any] = ConnectionPool(
            connection_class=tracked(_SingleConnection),
            location=TCPLocation(host, port),
            db=server.db,
            **account,
        )
        single: coredis.Redis[bytes] = coredis.Redis(connection_pool=pool, **options)
        async with single:
            yield single
    elif server.kind == "cluster":
        nodes = _ClusterPool(
            startup_nodes=[TCPLocation(*node) for node in server.nodes],
            connection_class=tracked(_NodeConnection),
            max_connections_per_node=True,
            # Managed clusters often forbid CONFIG, which that check needs.
            skip_full_coverage_check=True,
            **account,
        )
        cluster: coredis.RedisCluster[bytes] = coredis.RedisCluster(
            connection_pool=nodes, **options
        )
        async with cluster:
            yield cluster
    else:
        sentinels: coredis.Sentinel[bytes] = coredis.Sentinel(
            [TCPLocation(*node) for node in server.nodes],
            sentinel_kwargs={
                **common,
                "username": server.sentinel_username,
                "password": server.sentinel_password,
            },
            retry_policy=NoRetryPolicy(),
            db=server.db,
            **account,
        )
        primary = sentinels.primary_for(
            server.service, connection_pool_class=_PrimaryPool, tracker=tracker
        )
        async with sentinels, primary:
            tracker.nursery.start_soon(_follow, primary.connection_pool)
            yield primary


async def _follow(pool: Any) -> None:
    """Ask the sentinels again and again; the pool leaves a primary that is none any more."""
    while True:
        await trio.sleep(_FOLLOW_SECONDS * random.uniform(0.5, 1.5))
        with suppress(RedisError):
            await pool.get_primary_location()
