"""An upstream of the proxy: an OpenAI-compatible server and an Ollama on one real socket.

It answers as slowly and as wrongly as it is told, notes what it got, and sees at once when its
client goes away. As a process of its own: ``python -m tests.upstream --port 9999``.
"""

import argparse
import base64
import hashlib
import itertools
import math
import socket
import ssl
import struct
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import h11
import msgspec
import trio

NEVER = math.inf
PROMPT_TOKENS = 9
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Headers = list[tuple[str, str]]

_PIECE = 64 * 1024
_KEPT_BYTES = 2**20
_CREATED = 1_700_000_000


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is answered; seconds and bytes.

    Attributes:
        head_delay: before the head of the response, or `NEVER`.
        body_delay: between the head and the first piece of the body.
        pause: between two pieces, each of which is one send.
        chunks: content pieces of a streamed answer; as many completion tokens.
        dimensions: of an embedding.
        status: a fault to answer with, in the shape of the API; 0: none.
        headers: of the response, in place of its own of these names.
        pieces: the body in place of the path's own.
        etag: of ``/v1/models``.
        gzip: compress the body when the client accepts it, piece by piece.
        error_event: end a stream in its middle with an event that tells of an error.
        informational: statuses of responses before the final one.
        trailers: after a body of which the length was not announced.
        early: answer before the body of the request is read.
        cut: close the connection before the head, in its middle, in the middle of the body, or
            before the last chunk that ends it.
        reset: cut by a reset rather than by closing.
        raw: bytes to send in place of an HTTP response, after which the connection is closed.
    """

    head_delay: float = 0.0
    body_delay: float = 0.0
    pause: float = 0.0
    chunks: int = 5
    dimensions: int = 8
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    pieces: tuple[bytes, ...] | None = None
    etag: str = '"models-1"'
    gzip: bool = False
    error_event: bool = False
    informational: tuple[int, ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    early: bool = False
    cut: Literal["before_head", "head", "body", "last_chunk"] | None = None
    reset: bool = False
    raw: bytes | None = None


class Call:
    """One request, from the moment its head has come.

    Attributes:
        method, target: as they came.
        headers: pairs of lower-case name and value, in order.
        body: what has come of it, up to a MiB.
        size, digest: bytes that have come of the body, and their SHA-256.
        sent: bytes of the response's body that the socket took.
        started: when the head had come; times are of `time.monotonic`.
        complete: set when the whole request has come.
        closed, closed_at: set when the client went away before it had its answer (it has gone, too,
            for one that only shuts down its sending side), and when that was.
        finished: set when the last piece of the response goes to the socket.
    """

    def __init__(self, head: h11.Request) -> None:
        self.method = head.method.decode()
        self.target = head.target.decode()
        self.path = urlsplit(self.target).path
        self.headers: Headers = [(n.decode(), v.decode("latin-1")) for n, v in head.headers]
        self.body = bytearray()
        self.size = 0
        self.digest = hashlib.sha256()
        self.sent = 0
        self.started = time.monotonic()
        self.complete = trio.Event()
        self.closed = trio.Event()
        self.closed_at: float | None = None
        self.finished = trio.Event()

    def header(self, name: str) -> str:
        """Return the values of a header, joined by commas."""
        return ", ".join(value for other, value in self.headers if other == name)

    def json(self) -> dict[str, Any]:
        """Return the body; an object without fields when it is no JSON object."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.DecodeError:
            return {}

    def query(self, name: str) -> str | None:
        """Return the first value of a parameter of the query."""
        values = parse_qs(urlsplit(self.target).query, keep_blank_values=True).get(name)
        return values[0] if values else None

    def take(self, data: bytes) -> None:
        """Note a piece of the body."""
        self.size += len(data)
        self.digest.update(data)
        self.body += data[: _KEPT_BYTES - len(self.body)]

    def close(self, at: float) -> None:
        """Note that the client went away."""
        if not self.closed.is_set() and not self.finished.is_set():
            self.closed_at = at
            self.closed.set()


class Reply(msgspec.Struct):
    """What a path answers; ``length`` None: it is not announced."""

    status: int
    headers: Headers
    pieces: Iterable[bytes] = ()
    length: int | None = None


_Handler = Callable[[Call, Behaviour], Reply]


def _whole(
    body: bytes, status: int = 200, *headers: tuple[str, str], type: str = "application/json"
) -> Reply:
    return Reply(status, [("content-type", type), *headers], [body] if body else [], len(body))


def _json(value: Any, status: int = 200, *headers: tuple[str, str]) -> Reply:
    return _whole(msgspec.json.encode(value), status, *headers)


def _fault(status: int) -> Reply:
    error = {"message": "It was told to.", "type": "server_error", "param": None, "code": None}
    again = [("retry-after", "1")] if status in (429, 503) else []
    return _json({"error": error}, status, *again)


def _words(behaviour: Behaviour) -> Iterator[str]:
    return (f"word{number} " for number in range(behaviour.chunks))


def _usage(completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
    }


def _events(
    behaviour: Behaviour, values: list[dict[str, Any]], last: list[dict[str, Any]]
) -> Iterator[bytes]:
    if behaviour.error_event:
        yield from map(_event, values[: len(values) // 2])
        yield _event({"error": {"message": "It was told to.", "type": "server_error"}})
        return
    yield from map(_event, values + last)
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(value)


def _stream(pieces: Iterable[bytes], type: str = "text/event-stream") -> Reply:
    return Reply(200, [("content-type", type), ("cache-control", "no-cache")], pieces)


def _chat(call: Call, behaviour: Behaviour) -> Reply:
    def choice(finish: str | None = None, **fields: Any) -> dict[str, Any]:
        return {"index": 0, "logprobs": None, "finish_reason": finish, **fields}

    if not call.json().get("stream"):
        message = {"role": "assistant", "content": "".join(_words(behaviour)), "refusal": None}
        return _completion(call, behaviour, "chat.completion", [choice("stop", message=message)])
    choices = [
        choice(delta={"role": "assistant", "content": ""}),
        *(choice(delta={"content": word}) for word in _words(behaviour)),
        choice("stop", delta={}),
    ]
    return _completion(call, behaviour, "chat.completion.chunk", choices)


def _text(call: Call, behaviour: Behaviour) -> Reply:
    if not call.json().get("stream"):
        text = "".join(_words(behaviour))
        choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]
    else:
        choices = [
            {"index": 0, "text": word, "logprobs": None, "finish_reason": None}
            for word in _words(behaviour)
        ]
    return _completion(call, behaviour, "text_completion", choices)


def _completion(
    call: Call, behaviour: Behaviour, kind: str, choices: list[dict[str, Any]]
) -> Reply:
    asked = call.json()
    common = {"id": "cmpl-1", "object": kind, "created": _CREATED, "model": asked.get("model", "m")}
    usage = {"usage": _usage(behaviour.chunks)}
    if not asked.get("stream"):
        return _json({**common, "choices": choices, **usage})
    wanted = (asked.get("stream_options") or {}).get("include_usage")
    last = [{**common, "choices": [], **usage}] if wanted else []
    return _stream(_events(behaviour, [{**common, "choices": [one]} for one in choices], last))


def _vectors(call: Call, behaviour: Behaviour) -> list[list[float]]:
    """Return a vector for each input, the same one for the same text."""
    asked = call.json().get("input", "")
    texts = asked if isinstance(asked, list) else [asked]
    seeds = (hashlib.sha256(msgspec.json.encode(text)).digest() for text in texts)
    return [
        [seed[place % 32] / 256 - 0.5 for place in range(behaviour.dimensions)] for seed in seeds
    ]


def _embeddings(call: Call, behaviour: Behaviour) -> Reply:
    asked = call.json()
    vectors: list[Any] = _vectors(call, behaviour)
    if asked.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    model = asked.get("model", "m")
    return _json({"object": "list", "data": data, "model": model, "usage": usage})


def _models(call: Call, behaviour: Behaviour) -> Reply:
    validators = (("etag", behaviour.etag), ("cache-control", "max-age=60"))
    if behaviour.etag in [tag.strip() for tag in call.header("if-none-match").split(",")]:
        return Reply(304, list(validators))
    model = {"id": "gpt-mini", "object": "model", "created": _CREATED, "owned_by": "system"}
    return _json({"object": "list", "data": [model]}, 200, *validators)


def _ollama_chat(call: Call, behaviour: Behaviour) -> Reply:
    return _ollama(
        call, behaviour, lambda word: {"message": {"role": "assistant", "content": word}}
    )


def _ollama_generate(call: Call, behaviour: Behaviour) -> Reply:
    return _ollama(call, behaviour, lambda word: {"response": word})


def _ollama(call: Call, behaviour: Behaviour, content: Callable[[str], dict[str, Any]]) -> Reply:
    asked = call.json()
    common = {"model": asked.get("model", "m"), "created_at": "2023-11-14T22:13:20.000000Z"}
    last = {
        "done": True,
        "done_reason": "stop",
        "total_duration": 5_000_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": PROMPT_TOKENS,
        "prompt_eval_duration": 100_000_000,
        "eval_count": behaviour.chunks,
        # Ten tokens per second, in nanoseconds.
        "eval_duration": behaviour.chunks * 100_000_000,
    }
    if not asked.get("stream", True):
        return _json({**common, **content("".join(_words(behaviour))), **last})
    lines = [{**common, **content(word), "done": False} for word in _words(behaviour)]
    if behaviour.error_event:
        lines = [*lines[: len(lines) // 2], {"error": "It was told to."}]
    else:
        lines.append({**common, **content(""), **last})
    pieces = (msgspec.json.encode(line) + b"\n" for line in lines)
    return _stream(pieces, "application/x-ndjson")


def _ollama_embed(call: Call, behaviour: Behaviour) -> Reply:
    vectors = _vectors(call, behaviour)
    model = call.json().get("model", "m")
    times = {"total_duration": 14_000_000, "load_duration": 1_000_000}
    return _json(
        {"model": model, "embeddings": vectors, **times, "prompt_eval_count": PROMPT_TOKENS}
    )


def _echo(call: Call, behaviour: Behaviour) -> Reply:
    body = call.body.decode("utf-8", "replace")
    answer = {"method": call.method, "target": call.target, "headers": call.headers, "body": body}
    return _json(answer)


def _bytes(call: Call, behaviour: Behaviour) -> Reply:
    size = int(call.path.removeprefix("/bytes/"))
    sizes = itertools.chain(itertools.repeat(_PIECE, size // _PIECE), [size % _PIECE])
    filler = bytes(range(256)) * (_PIECE // 256)
    length = None if call.query("chunked") is not None else size
    kind = [("content-type", "application/octet-stream")]
    return Reply(200, kind, (filler[:piece] for piece in sizes if piece), length)


def _upload(call: Call, behaviour: Behaviour) -> Reply:
    return _json({"length": call.size, "sha256": call.digest.hexdigest()})


def _redirect(call: Call, behaviour: Behaviour) -> Reply:
    target = call.query("to") or f"http://{call.header('host')}/echo"
    return Reply(302, [("location", target)], length=0)


def _slow(call: Call, behaviour: Behaviour) -> Reply:
    return _whole(b"at last", type="text/plain")


_EXACT: dict[str, _Handler] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _text,
    "/v1/embeddings": _embeddings,
    "/v1/models": _models,
    "/api/chat": _ollama_chat,
    "/api/generate": _ollama_generate,
    "/api/embed": _ollama_embed,
    "/upload": _upload,
    "/redirect": _redirect,
}
_BELOW: dict[str, _Handler] = {"/echo": _echo, "/bytes/": _bytes, "/slow": _slow}


def reply(call: Call, behaviour: Behaviour) -> Reply:
    """Answer a request.

    Paths: ``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``, ``/v1/models``;
    ``/api/chat``, ``/api/generate``, ``/api/embed``; ``/echo`` and all below it; ``/bytes/<n>``,
    with ``?chunked`` of unannounced length; ``/upload`` (length and SHA-256 of the request's body);
    ``/redirect?to=<target>``; ``/slow/<seconds>`` (before the head; 1 by default). ``/upgrade``
    echoes bytes once it has switched protocols.
    """
    if behaviour.status >= 400:
        answer = _fault(behaviour.status)
    elif call.path in _EXACT:
        answer = _EXACT[call.path](call, behaviour)
    else:
        handlers = [h for prefix, h in _BELOW.items() if call.path.startswith(prefix)]
        answer = handlers[0](call, behaviour) if handlers else _fault(404)
        if 0 < behaviour.status < 400:
            answer.status = behaviour.status
    if behaviour.pieces is not None:
        answer.pieces, answer.length = behaviour.pieces, None
    if behaviour.gzip and answer.status != 304 and "gzip" in call.header("accept-encoding"):
        answer.pieces, answer.length = _gzipped(answer.pieces), None
        answer.headers.append(("content-encoding", "gzip"))
    own = {name.lower(): value for name, value in behaviour.headers}
    answer.headers = [
        (name, value)
        for name, value in [("date", formatdate(usegmt=True)), *answer.headers]
        if name not in own
    ]
    if "content-length" in own:
        answer.length = int(own["content-length"])
    elif answer.length is not None:
        answer.headers.append(("content-length", str(answer.length)))
    answer.headers.extend(behaviour.headers)
    return answer


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


class Upstream:
    """The server while it runs.

    Attributes:
        url: without a path.
        requests: all so far, unless ``recording`` is off.
        calls: how many came to each path.
        answers: for the next requests, one each.
        behaviour: for the others.
        connections, open: how many were opened, and how many are.
    """

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.recording = True
        self.requests: list[Call] = []
        self.calls: Counter[str] = Counter()
        self.answers: deque[Behaviour] = deque()
        self.behaviour = Behaviour()
        self.connections = 0
        self.open = 0
        self._arrived = trio.lowlevel.ParkingLot()

    async def received(self, count: int, seconds: float = 10.0) -> list[Call]:
        """Wait until the heads of that many requests have come; raises `trio.TooSlowError`."""
        with trio.fail_after(seconds):
            while len(self.requests) < count:
                await self._arrived.park()
        return self.requests

    async def serve(self, stream: Stream) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        self.open += 1
        try:
            await _Connection(self, stream).run()
        finally:
            self.open -= 1

    def begin(self, call: Call) -> Behaviour:
        """Note a request; return how to answer it."""
        self.calls[call.path] += 1
        if self.recording:
            self.requests.append(call)
        self._arrived.unpark_all()
        return self.answers.popleft() if self.answers else self.behaviour


class _Cut(Exception):  # noqa: N818 (it is meant to happen)
    """The connection ends here."""


class _Connection:
    def __init__(self, upstream: Upstream, stream: Stream) -> None:
        self._upstream = upstream
        self._stream = stream
        self._protocol = h11.Connection(h11.SERVER)
        self._put, self._pieces = trio.open_memory_channel[bytes](1)
        self._call: Call | None = None
        self._gone_at: float | None = None
        self._answering = trio.CancelScope()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            try:
                while await self._serve_one():
                    self._protocol.start_next_cycle()
            except trio.BrokenResourceError:
                self._gone()
            except (_Cut, h11.ProtocolError):
                pass
            finally:
                await trio.aclose_forcefully(self._stream)
            nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        # One piece ahead of what is asked for, so that the client's end shows during an answer.
        data = b"first"
        while data:
            try:
                data = bytes(await self._stream.receive_some(_PIECE))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self._gone()
            await self._put.send(data)

    def _gone(self) -> None:
        if self._gone_at is None:
            self._gone_at = time.monotonic()
        if self._call:
            self._call.close(self._gone_at)
        self._answering.cancel()

    async def _serve_one(self) -> bool:
        self._call = None
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return False
        call = self._call = Call(head)
        behaviour = self._upstream.begin(call)
        if self._gone_at is not None:
            call.close(self._gone_at)
        if not behaviour.early:
            await self._receive_body(call)
        with trio.CancelScope() as self._answering:
            if self._gone_at is not None:
                return False
            if call.path == "/upgrade" and call.header("upgrade"):
                await self._upgrade()
            else:
                await self._answer(call, behaviour)
        if behaviour.early and self._gone_at is None:
            await self._receive_body(call)
        return self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._protocol.receive_data(await self._pieces.receive())
        return event  # type: ignore[return-value]

    async def _receive_body(self, call: Call) -> None:
        while isinstance(event := await self._next_event(), h11.Data):
            call.take(bytes(event.data))
        if not isinstance(event, h11.EndOfMessage):
            raise _Cut
        call.complete.set()

    async def _send(self, event: h11.Event) -> None:
        # Trio's sockets have TCP_NODELAY: each call is a packet of its own.
        await self._stream.send_all(self._protocol.send(event) or b"")

    async def _upgrade(self) -> None:
        switch = [("upgrade", "echo"), ("connection", "upgrade")]
        await self._send(h11.InformationalResponse(status_code=101, headers=switch))
        data, _ = self._protocol.trailing_data
        while True:
            if data:
                await self._stream.send_all(data)
            data = await self._pieces.receive()
            if not data:
                raise _Cut

    async def _answer(self, call: Call, behaviour: Behaviour) -> None:
        slow = call.path.removeprefix("/slow").strip("/") if call.path.startswith("/slow") else "0"
        await trio.sleep(behaviour.head_delay + float(slow or 1))
        if behaviour.raw is not None:
            await self._stream.send_all(behaviour.raw)
            raise _Cut
        if behaviour.cut == "before_head":
            self._cut(behaviour)
        for status in behaviour.informational:
            await self._send(h11.InformationalResponse(status_code=status, headers=[]))
        answer = reply(call, behaviour)
        head = h11.Response(status_code=answer.status, headers=answer.headers)
        if behaviour.cut == "head":
            await self._stream.send_all((self._protocol.send(head) or b"")[:-9])
            self._cut(behaviour)
        without_body = call.method == "HEAD" or answer.status in (204, 304)
        if without_body or answer.length == 0:
            call.finished.set()
        await self._send(head)
        if not without_body:
            await self._send_body(call, behaviour, answer)
        if behaviour.cut == "last_chunk":
            self._cut(behaviour)
        call.finished.set()
        trailers = [] if answer.length is not None else list(behaviour.trailers)
        await self._send(h11.EndOfMessage(headers=trailers))

    async def _send_body(self, call: Call, behaviour: Behaviour, answer: Reply) -> None:
        pieces: Iterable[bytes] = answer.pieces
        if behaviour.cut == "body":
            pieces = list(pieces)
            # Of a single piece its half.
            pieces = pieces[: len(pieces) // 2] or [piece[: len(piece) // 2] for piece in pieces]
        delay = behaviour.body_delay
        for piece in pieces:
            if delay:
                await trio.sleep(delay)
            delay = behaviour.pause
            # Before it is sent: the client may leave with its answer before this task goes on.
            if answer.length is not None and call.sent + len(piece) >= answer.length:
                call.finished.set()
            await self._send(h11.Data(piece))
            call.sent += len(piece)
        if behaviour.cut == "body":
            self._cut(behaviour)

    def _cut(self, behaviour: Behaviour) -> None:
        if behaviour.reset:
            stream = self._stream
            tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Cut


@asynccontextmanager
async def open_upstream(
    port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Serve on 127.0.0.1, on a free port unless one is given, until the block ends."""
    [tcp] = await trio.open_tcp_listeners(port, host="127.0.0.1")
    upstream = Upstream(tcp.socket.getsockname()[1], "https" if tls else "http")
    async with trio.open_nursery() as nursery:
        if tls:
            listener = trio.SSLListener(tcp, tls, https_compatible=True)
            nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        else:
            nursery.start_soon(trio.serve_listeners, upstream.serve, [tcp])
        yield upstream
        nursery.cancel_scope.cancel()


async def _main(port: int, behaviour: Behaviour) -> None:
    async with open_upstream(port) as upstream:
        upstream.recording = False
        upstream.behaviour = behaviour
        print(upstream.url, flush=True)  # noqa: T201 (whoever started it reads it)
        await trio.sleep_forever()


def main() -> None:
    """Serve until interrupted; the first line of output is the URL."""
    default = Behaviour()
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--head-delay", type=float, default=default.head_delay)
    parser.add_argument("--body-delay", type=float, default=default.body_delay)
    parser.add_argument("--pause", type=float, default=default.pause)
    parser.add_argument("--chunks", type=int, default=default.chunks)
    parser.add_argument("--dimensions", type=int, default=default.dimensions)
    options = vars(parser.parse_args())
    trio.run(_main, options.pop("port"), Behaviour(**options))


if __name__ == "__main__":
    main()
