"""Large bodies full of findings, posted over and over, and a clock beside them."""

import http.client
import random
import socket
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BODY_BYTES = 16 * 2**20
PROTOBUF, NDJSON, JSON = "application/x-protobuf", "application/x-ndjson", "application/json"
# Much sooner than Retry-After asks for.
_AGAIN_SECONDS = 0.1
_LETTERS = string.ascii_letters + string.digits
_PROSE = "The quick brown fox jumps over the lazy dog, and then it goes home again. " * 5


def traces(size: int = BODY_BYTES, seed: int = 1, prose: int = 0) -> bytes:
    """Return OTLP traces of one resource, somewhat less than ``size`` bytes.

    With ``prose``, each record has so many characters without a finding on top, which are quick.
    """
    draw = random.Random(seed)
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    taken = 0
    while taken < size - 4096 - prose:
        span = spans.add(name="chat", trace_id=draw.randbytes(16), span_id=draw.randbytes(8))
        span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
        for key, value in _values(draw, prose):
            attribute = span.attributes.add(key=key)
            attribute.value.string_value = value
        taken += span.ByteSize() + 4
    return request.SerializeToString()


def events(size: int = BODY_BYTES, seed: int = 1, prose: int = 0) -> bytes:
    """Return events as NDJSON, as `traces` does."""
    draw = random.Random(seed)
    lines, taken = [], 0
    while taken < size - 4096 - prose:
        line = msgspec.json.encode({"event": "chat", "payload": dict(_values(draw, prose))})
        lines.append(line)
        taken += len(line) + 1
    return b"\n".join(lines)


def _values(draw: random.Random, prose: int) -> Iterator[tuple[str, str]]:
    """Yield what one record holds: 1 KiB with five findings, and the prose."""
    name = "".join(draw.choices(string.ascii_lowercase, k=8))
    token = "".join(draw.choices(_LETTERS, k=36))
    yield "model", "gpt-mini"
    yield "prompt", f"{_PROSE}Please write to {name}@example.com today. {_PROSE}"
    yield "http.url", f"https://example.com/items?email={name}%40example.com&page=3"
    yield "header", f"Authorization: Bearer ghp_{token}"
    if prose:
        yield "note", (_PROSE * (prose // len(_PROSE) + 1))[:prose]
    yield "answer", f"It was sent to {name}@example.org and +1 415 555 {draw.randint(1000, 9999)}."


def post(url: str, body: bytes, media_type: str, *, seconds: float = 120.0) -> int:
    """Post a body on a connection of its own; return the status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    try:
        connection.request("POST", parts.path, body, {"content-type": media_type})
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def flood(url: str, body: bytes, media_type: str, senders: int = 1) -> Iterator[list[int]]:
    """Post a body over and over until the block ends; yields the statuses so far.

    Raises:
        OSError, http.client.HTTPException: at the end, what a sender failed with.
    """
    statuses: list[int] = []
    failures: list[Exception] = []
    over = threading.Event()

    def send() -> None:
        try:
            while not over.is_set():
                statuses.append(post(url, body, media_type))
                if statuses[-1] == 429:
                    over.wait(_AGAIN_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=send, daemon=True) for _ in range(senders)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def answer_times(url: str, seconds: float, every: float = 0.01) -> list[float]:
    """GET a URL over and over on one connection; return each time to the answer, sorted."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60.0)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    end = time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}")
        times.append(time.monotonic() - started)
        time.sleep(every)
    connection.close()
    return sorted(times)


def trickle(url: str, clients: int) -> list[socket.socket]:
    """Open connections whose clients announce 100 kB and have sent one byte of it."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"content-type: {PROTOBUF}\r\ncontent-length: 100000\r\n\r\n"
    )
    opened = []
    for _ in range(clients):
        opened.append(socket.create_connection((parts.hostname or "", parts.port or 0)))
        opened[-1].sendall(head.encode() + b"\n")
    return opened


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that this share of sorted values does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
