"""``python -m bench.peers.paced URL RATE SECONDS``: events at a steady rate, and their times.

A request is due whether or not those before it are answered, and its time counts from then, so
that a server which stops for a moment is charged with all that waited (Tene, "How NOT to measure
latency"). Prints seconds as JSON: ``{"p50": …, "p99": …}``.
"""

import gc
import re
import selectors
import socket
import sys
import time
from collections import deque
from urllib.parse import urlsplit

import msgspec

from bench.peers.batches import events
from tests.flood import quantile

_CONNECTIONS = 32
_TIMEOUT_SECONDS = 30.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.sock.sendall(request)

    def receive(self) -> bool:
        """Take what has come; return whether the answer is complete.

        Raises:
            RuntimeError: it is not 200, or the server hung up.
        """
        data = self.sock.recv(65536)
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not data or (end and (length is None or b" 200" not in head[:12])):
            raise RuntimeError(f"no good answer: {head[:100]!r}")
        if not end or length is None or len(body) < int(length[1]):
            return False
        self._received = b""
        return True


def main() -> None:
    url, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    gc.disable()
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    head = f"POST {parts.path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    requests = [f"{head}content-length: {len(b)}\r\n\r\n".encode() + b for b in events()]
    connections = [_Connection(parts.hostname, parts.port) for _ in range(_CONNECTIONS)]
    times = sorted(_times(connections, requests, rate, int(rate * seconds)))
    figures = {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}
    print(msgspec.json.encode(figures).decode())


def _times(
    connections: list[_Connection], requests: list[bytes], rate: float, count: int
) -> list[float]:
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.sock, selectors.EVENT_READ, connection)
    idle, sent = deque(connections), 0
    times: list[float] = []
    started = time.perf_counter()
    deadline = started + count / rate + _TIMEOUT_SECONDS
    while len(times) < count:
        now = time.perf_counter()
        if now > deadline:
            raise TimeoutError(f"{count - len(times)} of {count} were not answered")
        while idle and sent < count and (due := started + sent / rate) <= now:
            idle.popleft().send(requests[sent % len(requests)], due)
            sent += 1
        # Without a pause: that of epoll is a millisecond at least.
        for key, _ in selector.select(0):
            answered: _Connection = key.data
            if answered.receive():
                times.append(time.perf_counter() - answered.due)
                idle.append(answered)
    return times


if __name__ == "__main__":
    main()
