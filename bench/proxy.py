"""What the proxy adds: time to a stream, memory to a large body, and how soon it lets go."""

import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bench.process import memory_bytes
from bench.stamps import EVENTS, PAUSE_SECONDS
from bench.table import ROUNDS, Row, Section, median_rate, progress
from tests.process import SidecarProcess, sidecar_process
from tests.upstream import Behaviour, open_upstream

_BODY = os.urandom(2**20) * 10
_DISCONNECTS = 20
_STREAMS = 10


def rows() -> list[Row]:
    with _upstream("bench.stamps") as stamps, _upstream("tests.upstream") as other:
        routes: list[dict[str, object]] = [
            {"name": "stamps", "upstream": stamps, "redact": "none", "observe": "llm"},
            {"name": "other", "upstream": other, "redact": "none"},
            {"name": "cached", "upstream": other, "redact": "none", "cache": {}},
        ]
        with _sidecar(routes) as sidecar:
            proxied = f"{sidecar.url}/proxy"
            return [
                *_stream_rows(stamps, f"{proxied}/stamps"),
                *_memory_rows(sidecar, f"{proxied}/other"),
                _disconnect_row(),
                _cached_row(f"{proxied}/cached/v1/models"),
            ]


@contextmanager
def _upstream(module: str) -> Iterator[str]:
    """Run an upstream as a process of its own; yield its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", module], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        try:
            yield said if said.startswith("http") else f"http://127.0.0.1:{said}"
        finally:
            process.terminate()


@contextmanager
def _sidecar(routes: list[dict[str, object]]) -> Iterator[SidecarProcess]:
    with tempfile.TemporaryDirectory() as folder:
        rules = {"version": 1, "rules": [{"id": "email", "find": "email"}], "routes": routes}
        (Path(folder) / "rules.json").write_text(json.dumps(rules))
        with sidecar_process({"SIDECAR_EXPORTERS": "blackhole", "SIDECAR_RULES": folder}) as made:
            yield made


def _stream_rows(direct: str, proxied: str) -> list[Row]:
    progress("streams, direct and through the proxy")
    first: dict[str, list[float]] = {direct: [], proxied: []}
    later: dict[str, list[float]] = {direct: [], proxied: []}
    for number in range(_STREAMS + 1):
        for url in (direct, proxied):
            took, delays = _stream(url)
            if number:  # the first one opens connections
                first[url].append(took)
                later[url] += delays
    rows = []
    for what, times in (("first byte of a stream", first), ("each event of a stream", later)):
        there, here = (1000 * statistics.median(times[url]) for url in (direct, proxied))
        figure = f"{here - there:.2f} ms added ({here:.2f} against {there:.2f})"
        rows.append(Row(f"{what}, p50", figure, "< 2 ms added"))
    return rows


def _stream(url: str) -> tuple[float, list[float]]:
    """Return the seconds to the first event, and of each how long it was under way."""
    host, port, path = _parts(url)
    with socket.create_connection((host, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        sock.sendall(f"GET {path}/v1/chat HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        delays: list[float] = []
        took, buffered = 0.0, b""
        while len(delays) < EVENTS:
            data = sock.recv(65536)
            now = time.monotonic_ns()
            buffered += data
            while match := re.search(rb"data: (\d+) x+\n\n", buffered):
                took = took or time.monotonic() - started
                delays.append((now - int(match[1])) / 1e9)
                buffered = buffered[match.end() :]
    return took, delays


def _parts(url: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"http://([^:/]+):(\d+)(.*)", url)
    assert match is not None
    return match[1], int(match[2]), match[3]


def _memory_rows(sidecar: SidecarProcess, url: str) -> list[Row]:
    progress("a large body, both ways")
    pid = sidecar.process.pid
    host, port, path = _parts(url)
    connection = http.client.HTTPConnection(host, port)

    def up() -> None:
        connection.request("POST", f"{path}/upload", _BODY)
        assert connection.getresponse().read()

    def down() -> None:
        connection.request("GET", f"{path}/bytes/{len(_BODY)}")
        response = connection.getresponse()
        while response.read(2**16):
            pass

    rows = []
    for what, call in (("up", up), ("down", down)):
        call()
        growths = []
        for _ in range(ROUNDS):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted anew
            before = memory_bytes(pid)
            call()
            growths.append(memory_bytes(pid, "VmHWM") - before)
        figure = f"{max(growths) / 2**20:.2f} MiB"
        rows.append(Row(f"memory that a body of 10 MiB takes, {what}", figure, "< 2 MiB"))
    connection.close()
    return rows


def _disconnect_row() -> Row:
    progress("clients that go away")
    times = trio.run(_disconnects)
    figure = f"p50 {1000 * statistics.median(times):.1f}, max {1000 * max(times):.1f} ms"
    return Row("from a client's close to that of the upstream call", figure, "≤ 100 ms")


async def _disconnects() -> list[float]:
    times = []
    async with open_upstream() as upstream:
        upstream.behaviour = Behaviour(chunks=1000, pause=PAUSE_SECONDS)
        routes: list[dict[str, object]] = [
            {"name": "up", "upstream": upstream.url, "redact": "none"}
        ]
        made = _sidecar(routes)
        sidecar = await trio.to_thread.run_sync(made.__enter__)
        try:
            host, port, path = _parts(f"{sidecar.url}/proxy/up")
            body = b'{"model":"m","stream":true}'
            for number in range(_DISCONNECTS):
                async with await trio.open_tcp_stream(host, port) as stream:
                    head = (
                        f"POST {path}/v1/chat/completions HTTP/1.1\r\nhost: h\r\n"
                        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                    )
                    await stream.send_all(head.encode() + body)
                    received = b""
                    while received.count(b"data:") < 3:
                        received += await stream.receive_some()
                left = time.monotonic()
                call = (await upstream.received(number + 1))[number]
                with trio.fail_after(10):
                    await call.closed.wait()
                assert call.closed_at is not None
                times.append(max(0.0, call.closed_at - left))
        finally:
            await trio.to_thread.run_sync(made.__exit__, None, None, None)
    return times


def _cached_row(url: str) -> Row:
    what = "GET, answered from the cache"
    progress(what)
    host, port, path = _parts(url)
    connection = http.client.HTTPConnection(host, port)

    def calls() -> int:
        for _ in range(100):
            connection.request("GET", path)
            assert connection.getresponse().read()
        return 100

    rate = median_rate(calls)
    connection.close()
    return Row(f"{what}, one connection", f"{rate:,.0f} requests/s")


SECTION = Section(
    "Proxy",
    f"Streams of {EVENTS} events, one every {1000 * PAUSE_SECONDS:.0f} ms, that tell when they "
    "were sent; direct and through the proxy in turn. Client, sidecar and upstream are processes "
    "of one machine.",
    rows,
)
