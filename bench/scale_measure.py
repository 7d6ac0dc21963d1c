"""The prices of `bench.scale_cost`, measured on a real server with the sidecar's own caches.

Where it takes more connections than one machine runs caches, plain sockets do what those do.
"""

import os
import platform
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from bench.cache import _search_results as search_results
from bench.scale_cost import Figures, Price, Storm
from bench.scale_model import Workload
from bench.scale_pods import name_of
from bench.table import progress
from sidecar.cache import locks, redis
from sidecar.cache.values import KEY_PREFIX, Codec
from tests.valkey import Valkey

IDLE = (100, 500, 1000)
CACHES = 40
OPERATIONS = 200
STORM = 300
CROWDS = (1000, 2000, 5000)
TIMES = 3
_PROCESSES = 3
_SMALL, _LARGE = 1024, 65536
# What Redis counts for one of each; a busy machine may keep the caches from asking it.
_COMMANDS = {"read_missing": 2, "set": 3, "fetch": 13, "read_large": 2, "read": 2}
_OFF = 0.05
_ROUNDS = 12
_KEYS = 500
_TRACKERS = 1000


class DisturbedError(Exception):
    """What was to be measured did not happen: calls have not reached Redis."""


class _Server:
    """A server to measure on."""

    def __init__(self) -> None:
        self._valkey = Valkey(config={"maxclients": "20000", "tcp-backlog": "4096", "save": ""})
        self.start()

    @property
    def url(self) -> str:
        return self._valkey.url

    @property
    def port(self) -> int:
        return self._valkey.port

    def start(self) -> None:
        self._valkey._start()
        self.client = self._valkey.client()

    def kill(self) -> None:
        server = self._valkey._server
        assert server is not None and server._process is not None
        server._process.kill()
        server._process.wait()

    def client_of_its_own(self) -> Any:
        """Return another client, for another thread."""
        return self._valkey.client()

    def info(self, section: str) -> dict[str, Any]:
        """Return what it says of itself."""
        told: dict[str, Any]
        told = self.client.info(section)  # type: ignore[assignment]
        return told

    def memory(self) -> int:
        """Return the bytes in use."""
        used: int = self.info("memory")["used_memory"]
        return used

    def table(self) -> tuple[int, int]:
        """Return the bytes in use without those of connections, and those of the process."""
        before = None
        while before != (used := self._table()):
            before = used
            time.sleep(1.5)  # the server counts what connections take once a second
        return used

    def _table(self) -> tuple[int, int]:
        memory = self.info("memory")
        used: int = memory["used_memory"] - memory["mem_clients_normal"]
        resident: int = memory["used_memory_rss"]
        return used, resident

    def spent(self) -> Price:
        """Return what it has spent since its start."""
        cpu, stats = self.info("cpu"), self.info("stats")
        return Price(
            stats["total_commands_processed"],
            stats["total_net_input_bytes"],
            stats["total_net_output_bytes"],
            cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"],
        )

    def price(self, once: Callable[[], object], idle: Price | None = None) -> Price:
        """Return what it spends on something, without what it spends meanwhile anyhow."""
        before, began = self.spent(), time.monotonic()
        once()
        spent = self.spent().plus(before, -1)
        return spent if idle is None else spent.plus(idle, began - time.monotonic())


@contextmanager
def _server() -> Iterator[_Server]:
    server = _Server()
    try:
        yield server
    finally:
        server.kill()


class _Fleet:
    """Caches in several processes, see `bench.scale_pods`."""

    def __init__(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        self._processes = processes

    def begin(self, what: str, *args: object) -> Callable[[], list[Any]]:
        """Let all processes do the same; return what waits for their answers."""
        for process in self._processes:
            _send(process, what, *args)
        return lambda: [_answer(process) for process in self._processes]

    def do(self, what: str, *args: object) -> list[Any]:
        """Let all processes do the same, and return their answers."""
        return self.begin(what, *args)()

    def share(self, what: str, count: int, *args: object) -> None:
        """Let each process do it with a part of so many keys."""
        step = -(-count // len(self._processes))
        for index, process in enumerate(self._processes):
            _send(process, what, index * step, min(count, (index + 1) * step), *args)
        for process in self._processes:
            _answer(process)

    def open(self, count: int) -> None:
        """Have so many caches more."""
        for index, process in enumerate(self._processes):
            _send(process, "open", (count + index) // len(self._processes))
        for process in self._processes:
            _answer(process)


def _send(process: "subprocess.Popen[bytes]", what: str, *args: object) -> None:
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode([what, *args]) + b"\n")
    process.stdin.flush()


def _answer(process: "subprocess.Popen[bytes]") -> Any:
    assert process.stdout is not None
    return msgspec.json.decode(process.stdout.readline())


@contextmanager
def _fleet(server: _Server, caches: int = 0) -> Iterator[_Fleet]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.scale_pods", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(_PROCESSES)
    ]
    try:
        fleet = _Fleet(processes)
        fleet.open(caches)
        yield fleet
    finally:
        for process in processes:
            process.kill()
            process.wait()


def idle() -> tuple[dict[int, float], Price, Price]:
    """Return the memory of a connection, by how many there are, and what a second of idling costs.

    The first price is without a connection, the other what one adds.
    """
    memory, at_rest = {}, []
    with _server() as server, _fleet(server) as fleet:
        nobody = _at_rest(server)
        before, have = server.memory(), 0
        for count in IDLE:
            progress(f"scale, {count} idle connections")
            fleet.open(count - have)
            have = count
            at_rest = [_at_rest(server) for _ in range(TIMES)]
            memory[count] = (server.memory() - before) / count
    crowd = min(at_rest, key=lambda price: price.cpu)
    return memory, nobody, _shared(crowd.plus(nobody, -1), have)


def _at_rest(server: _Server, seconds: float = 4.0) -> Price:
    """Return what a second costs in which nobody does anything."""
    return _shared(server.price(lambda: time.sleep(seconds)), seconds)


def _shared(price: Price, by: float) -> Price:
    return Price().plus(price, 1 / by)


def operations() -> tuple[dict[str, Price], float]:
    """Return the prices of calls, the least of some times, and of a byte of a value.

    Raises:
        DisturbedError: in too many rounds not all calls reached Redis.
    """
    rounds: list[dict[str, Price]] = []
    for _ in range(_ROUNDS):
        progress(f"scale, calls, {len(rounds) + 1} of {TIMES}")
        with _server() as server, _fleet(server, CACHES) as fleet, suppress(DisturbedError):
            rounds.append(_operations(server, fleet))
        if len(rounds) == TIMES:
            break
    else:
        raise DisturbedError(f"only {len(rounds)} of {_ROUNDS} rounds reached Redis")
    best = {
        kind: min((prices[kind] for prices in rounds), key=lambda price: price.cpu)
        for kind in rounds[0]
    }
    codec, name = Codec(), name_of(0)
    small, large = (len(codec.encode(name, search_results(size))) for size in (_SMALL, _LARGE))
    per_byte = max(0.0, best["read_large"].cpu - best["read"].cpu) / (large - small)
    fetch = best.pop("fetch")
    best["lock"] = _shared(fetch.plus(best["read_missing"], -2).plus(best["set"], -1), 2)
    del best["read_large"]
    best["read"].bytes_out -= small
    best["set"].bytes_in -= small
    for kind in ("read", "set"):
        best[kind].cpu -= small * per_byte
    return best, per_byte


def _operations(server: _Server, fleet: _Fleet) -> dict[str, Price]:
    at_rest = _at_rest(server, 2.0)
    many = CACHES * OPERATIONS
    prices: dict[str, Price] = {}

    def price(act: Callable[[], object], times: int) -> Price:
        return _shared(server.price(act, at_rest), times)

    def calls(kind: str, act: Callable[[], object], times: int) -> None:
        prices[kind] = price(act, times)
        if abs(prices[kind].commands / _COMMANDS[kind] - 1) > _OFF:
            raise DisturbedError(kind)

    calls("read_missing", lambda: fleet.do("look", 0, OPERATIONS), many)
    server.client.flushall()
    calls("set", lambda: fleet.share("store", many, _SMALL), many)
    server.client.flushall()
    calls("fetch", lambda: fleet.share("fetch", many // 4, _SMALL), many // 4)
    codec, names = Codec(), [name_of(number) for number in range(OPERATIONS)]

    def write(size: int) -> None:
        value = search_results(size)
        for name in names:
            server.client.set(codec.stored_name(name), codec.encode(name, value), px=3_600_000)

    server.client.flushall()
    write(_LARGE)
    calls("read_large", lambda: fleet.do("look", 0, OPERATIONS), many)
    server.client.flushall()
    alone = price(lambda: write(_SMALL), OPERATIONS)
    calls("read", lambda: fleet.do("look", 0, OPERATIONS), many)
    telling = _shared(price(lambda: write(_SMALL), OPERATIONS).plus(alone, -1), CACHES)
    prices["told"] = Price(bytes_out=telling.bytes_out, cpu=telling.cpu)
    return prices


def storm() -> Storm:
    """Return how many pods come back after ``kill -9`` and a start."""
    progress(f"scale, {STORM} pods come back")
    with _server() as server, _fleet(server, STORM) as fleet:
        server.kill()
        server.start()
        began = time.monotonic()
        rates: list[float] = []
        done = threading.Event()

        def watch() -> None:
            with server.client_of_its_own() as client:
                then, before = time.monotonic(), 0
                while not done.wait(0.1):
                    count = client.info("stats")["total_commands_processed"]
                    now = time.monotonic()
                    rates.append((count - before) / (now - then))
                    then, before = now, count

        watcher = threading.Thread(target=watch)
        watcher.start()
        fleet.do("connected")
        took = time.monotonic() - began
        done.set()
        watcher.join()
        attempts = server.info("stats")["total_connections_received"]
        cpu = server.spent().cpu
    return Storm(STORM, took, max(rates), attempts, cpu)


def connecting() -> Price:
    """Return the price of a connection with its tracking."""
    prices = []
    with _server() as server, _fleet(server) as fleet:
        for _ in range(TIMES):
            prices.append(_shared(server.price(lambda: fleet.open(90)), 90))
    return min(prices, key=lambda price: price.cpu)


class _Crowd:
    """So many connections that track, as plain sockets; one request on each is sent at one time."""

    def __init__(self, server: _Server, count: int) -> None:
        self._server = server
        self.sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                self.sockets.append(socket.create_connection(("127.0.0.1", server.port)))
            self.ask(lambda _: _command("HELLO", 3), b"*0\r\n")
            for what in ("LIB-NAME", "LIB-VER"):
                self.ask(
                    lambda _, what=what: _command("CLIENT", "SETINFO", what, "crowd")  # type: ignore[misc]
                )
            self.ask(lambda _: _command("CLIENT", "TRACKING", "ON", "NOLOOP"))
            self.ask(lambda _: _command("GET", KEY_PREFIX))
        except BaseException:
            self.close()
            raise

    def ask(self, request: Callable[[int], bytes], end: bytes = b"\r\n", lines: int = 1) -> None:
        """Send a request on each connection, and take in answers of so many lines."""
        for index, sock in enumerate(self.sockets):
            sock.sendall(request(index))
        self.take(end, lines)

    def take(self, end: bytes = b"\r\n", lines: int = 1) -> None:
        """Take in what has been sent to each connection: so many lines and this end."""
        for sock in self.sockets:
            got = b""
            while not got.endswith(end) or got.count(b"\r\n") < lines:
                got += sock.recv(65536)

    def price(self, act: Callable[[], object]) -> float:
        """Return the seconds of the server's core for what is done once for each connection."""
        return min(self._server.price(act).cpu for _ in range(TIMES)) / len(self.sockets)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def _command(*parts: bytes | str | int) -> bytes:
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(e), e) for e in encoded)])


@contextmanager
def _crowd(server: _Server, count: int) -> Iterator[_Crowd]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = _Crowd(server, count)
    try:
        yield crowd
    finally:
        crowd.close()


def busy(count: int = CROWDS[-1]) -> tuple[dict[str, float], float]:
    """Return the seconds of each call where many come at one time; bytes of a busy connection."""
    progress(f"scale, calls on {count} connections")
    key, value = KEY_PREFIX + name_of(0).encode(), b"v" * 100

    def key_of(index: int) -> bytes:
        return KEY_PREFIX + name_of(index, "crowd").encode()

    with _server() as server:
        before = server.spent(), server.memory()
        with _crowd(server, count) as crowd:
            connect = server.spent().plus(before[0], -1).cpu / count
            memory = (server.memory() - before[1]) / count

            def look(_: int) -> bytes:
                return _command("GET", key) + _command("PTTL", key)

            def leave(index: int) -> bytes:
                return _command("EVAL", locks._FINISH, 1, key_of(index), b"token", 2000)

            def take(index: int) -> bytes:
                return _command("EVAL", locks._TAKE, 1, key_of(index), b"token", 10_000, 0)

            def store(index: int) -> bytes:
                return _command("EVAL", redis._SET, 1, key_of(index), value, 3_600_000)

            prices = {
                "connect": connect,
                "probe": crowd.price(lambda: crowd.ask(lambda _: _command("GET", KEY_PREFIX))),
                "read_missing": crowd.price(lambda: crowd.ask(look, lines=2)),
            }
            server.client.set(key, value, px=3_600_000)
            crowd.take(key + b"\r\n")
            prices["read"] = crowd.price(lambda: crowd.ask(look, lines=3))
            prices["set"] = crowd.price(lambda: crowd.ask(store))
            server.client.flushall()
            crowd.take(b"_\r\n")

            def lock() -> None:
                crowd.ask(take)
                crowd.ask(leave)

            prices["lock"] = crowd.price(lock) / 2
    return prices, memory


def telling(count: int) -> tuple[float, float]:
    """Tell so many connections of one change: seconds of the core for each, and of silence."""
    progress(f"scale, {count} are told")
    key = KEY_PREFIX + name_of(0).encode()
    spent, silences = [], []
    with _server() as server, _crowd(server, count) as crowd:
        for _ in range(2 * TIMES):
            crowd.ask(lambda _: _command("GET", key))

            def change() -> None:
                server.client.set(key, b"v")
                began = time.monotonic()
                server.client.ping()
                silences.append(time.monotonic() - began)
                crowd.take(key + b"\r\n")

            spent.append(server.price(change).cpu / count)
            server.client.delete(key)
    return min(spent), min(silences)


def table_bytes() -> tuple[float, float, float]:
    """Return the memory of a key that is tracked, and of each connection that has read it.

    Last the part of the process (RSS) that the latter takes.
    """
    progress("scale, the tracking table")
    reads = b"".join(_command("GET", KEY_PREFIX + name_of(n).encode()) for n in range(_KEYS))
    with _server() as server, _crowd(server, _TRACKERS) as crowd:
        used = [server.table()]
        for some in (crowd.sockets[:1], crowd.sockets[1:]):
            for sock in some:
                sock.sendall(reads)
                got = 0
                while got < _KEYS * len(b"_\r\n"):
                    got += len(sock.recv(65536))
            used.append(server.table())
    alone, many = _KEYS, _KEYS * (_TRACKERS - 1)
    item, resident = ((used[2][i] - used[1][i]) / many for i in (0, 1))
    return (used[1][0] - used[0][0]) / alone - item, item, resident


def key_bytes() -> float:
    """Return the memory of a key with its name and its time, without its value."""
    value = b"v" * 1000
    with _server() as server:
        before = server.memory()
        for number in range(_KEYS * 5):
            server.client.set(KEY_PREFIX + name_of(number).encode(), value, px=3_600_000)
        return (server.memory() - before) / (_KEYS * 5) - len(value)


def stored(load: Workload) -> dict[int, int]:
    """Return bytes of a value → bytes as Redis keeps it."""
    codec = Codec()
    return {size: len(codec.encode(name_of(0), search_results(size))) for size, _ in load.sizes}


def measure(load: Workload) -> Figures:
    """Measure all prices."""
    memory, nobody, probe = idle()
    prices, per_byte = operations()
    prices["probe"] = _shared(probe, probe.commands)
    prices["connect"] = connecting()
    in_crowd, busy_bytes = busy()
    told = {count: telling(count) for count in CROWDS}
    in_crowd["told"] = told[CROWDS[-1]][0]
    for kind, seconds in in_crowd.items():
        prices[kind].busy_cpu = seconds
    key, item, resident = table_bytes()
    with _server() as server:
        version = server.info("server")["valkey_version"]
    return Figures(
        about=f"Valkey {version}, {about_here()}",
        prices=prices,
        nobody=nobody.cpu,
        cpu_per_byte=per_byte,
        connection_bytes=memory[IDLE[-1]],
        busy_connection_bytes=busy_bytes,
        tracked_key_bytes=key,
        tracked_item_bytes=item,
        tracked_item_resident_bytes=resident,
        key_bytes=key_bytes(),
        stored=stored(load),
        silences={count: silence for count, (_, silence) in told.items()},
        storm=storm(),
    )


def about_here() -> str:
    """Return on what and when this is measured."""
    cores, machine = os.cpu_count(), platform.machine()
    return f"{cores} cores ({machine}), {datetime.now(UTC):%Y-%m-%d}"


def live(load: Workload, pods: int, warm_up: float, seconds: float) -> tuple[Price, float]:
    """Let real caches live a workload; return what a second of it costs, and messages told."""
    progress(f"scale, {pods} real pods")
    with _server() as server, _fleet(server, pods) as fleet:
        answers = fleet.begin("play", load, warm_up, seconds, 1)
        time.sleep(warm_up)
        spent = server.price(lambda: time.sleep(seconds))
        told = sum(answers())
    return _shared(spent, seconds), told / seconds
