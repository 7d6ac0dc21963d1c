"""Clients as people use them: OpenAI's, httpx, curl, and the one of the standard library."""

import hashlib
import http.client
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
import pytest
import trio

from tests.proxy.conftest import Served, Start
from tests.upstream import Behaviour, Upstream

T = TypeVar("T")

MESSAGES: Any = [{"role": "user", "content": "Who is alice@example.com?"}]


def route(upstream: Upstream, redact: str = "none", **options: Any) -> dict[str, Any]:
    return {"name": "up", "upstream": upstream.url, "redact": redact, **options}


async def asked(served: Served, function: Callable[[openai.OpenAI], T]) -> T:
    """Return what a function gets from OpenAI's client, which waits in a thread."""

    def run() -> T:
        base = f"http://127.0.0.1:{served.port}/proxy/up/v1"
        with openai.OpenAI(base_url=base, api_key="sk-secret", max_retries=0) as client:
            return function(client)

    return await trio.to_thread.run_sync(run)


@pytest.mark.parametrize("redact", ["none", "request", "both"])
async def test_openai_chat(start: Start, upstream: Upstream, redact: str) -> None:
    served = await start(route(upstream, redact, observe="llm"))

    def chat(client: openai.OpenAI) -> tuple[str | None, int]:
        answer = client.chat.completions.create(model="gpt-mini", messages=MESSAGES)
        assert answer.usage is not None
        return answer.choices[0].message.content, answer.usage.completion_tokens

    assert await asked(served, chat) == ("word0 word1 word2 word3 word4 ", 5)
    (call,) = upstream.requests
    assert call.header("authorization") == "Bearer sk-secret"
    assert (b"alice" in call.body) == (redact == "none")
    assert call.json()["model"] == "gpt-mini"


@pytest.mark.parametrize("redact", ["none", "both"])
async def test_openai_chat_as_a_stream(start: Start, upstream: Upstream, redact: str) -> None:
    upstream.behaviour = Behaviour(chunks=20, pause=0.01)
    served = await start(route(upstream, redact, observe="llm"))

    def chat(client: openai.OpenAI) -> tuple[list[str], int]:
        words, tokens = [], 0
        for chunk in client.chat.completions.create(
            model="gpt-mini",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        ):
            words += [c.delta.content for c in chunk.choices if c.delta.content]
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return words, tokens

    assert await asked(served, chat) == ([f"word{i} " for i in range(20)], 20)


async def test_openai_embeddings(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, cache={"post": [{"path": "*/embeddings"}]}))

    def embed(client: openai.OpenAI) -> list[list[float]]:
        answer = client.embeddings.create(model="embed", input=["one", "two"])
        return [one.embedding for one in answer.data]

    first = await asked(served, embed)
    assert [len(vector) for vector in first] == [8, 8]
    assert await asked(served, embed) == first
    assert len(upstream.requests) == 1


async def test_openai_models(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, "both"))
    assert await asked(served, lambda c: [m.id for m in c.models.list()]) == ["gpt-mini"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("redact", ["none", "both"])
@pytest.mark.parametrize("stream", [False, True])
async def test_openai_errors_are_those_of_the_upstream(
    start: Start,
    upstream: Upstream,
    status: int,
    error: type[openai.APIStatusError],
    redact: str,
    stream: bool,
) -> None:
    upstream.behaviour = Behaviour(status=status)
    served = await start(route(upstream, redact, observe="llm"))

    def chat(client: openai.OpenAI) -> None:
        client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)

    with pytest.raises(error) as raised:
        await asked(served, chat)
    assert "It was told to." in raised.value.message
    if status in (429, 503):
        assert raised.value.response.headers["retry-after"] == "1"


async def test_openai_tries_again_what_failed(start: Start, upstream: Upstream) -> None:
    upstream.answers.append(Behaviour(status=503, headers=(("retry-after", "0.01"),)))
    served = await start(route(upstream))

    def chat(client: openai.OpenAI) -> str | None:
        again = client.with_options(max_retries=2)
        answer = again.chat.completions.create(model="m", messages=MESSAGES)
        return answer.choices[0].message.content

    assert (await asked(served, chat) or "").startswith("word0")
    assert len(upstream.requests) == 2


async def test_openai_sees_that_a_stream_was_cut(start: Start, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(cut="body", chunks=10)
    served = await start(route(upstream, observe="llm"))

    def chat(client: openai.OpenAI) -> None:
        for _ in client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            pass

    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        await asked(served, chat)


async def test_openai_that_stops_reading_ends_the_call(start: Start, upstream: Upstream) -> None:
    upstream.behaviour = Behaviour(chunks=1000, pause=0.02)
    served = await start(route(upstream, observe="llm"))

    def chat(client: openai.OpenAI) -> None:
        with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
            next(iter(stream))

    await asked(served, chat)
    with trio.fail_after(2):
        await upstream.requests[0].closed.wait()


@pytest.mark.parametrize("redact", ["none", "request", "both"])
async def test_httpx_reads_a_compressed_answer(
    start: Start, upstream: Upstream, redact: str
) -> None:
    upstream.behaviour = Behaviour(gzip=True)
    served = await start(route(upstream, redact))
    response = await served.client.get("/up/v1/models", headers={"accept-encoding": "gzip"})
    assert response.json()["data"][0]["id"] == "gpt-mini"
    # What is to be redacted is not asked for in a coding.
    assert response.headers.get("content-encoding") == (None if redact == "both" else "gzip")


async def test_httpx_uploads_a_stream_and_follows_a_redirect_itself(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d" % number * 1000

    body = b"".join([piece async for piece in pieces()])
    response = await served.client.put("/up/upload", content=pieces())
    assert response.json() == {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    response = await served.client.get("/up/redirect?to=/proxy/up/slow/0", follow_redirects=True)
    assert response.text == "at last"
    async with served.client.stream("GET", "/up/bytes/1000000?chunked") as streamed:
        assert sum([len(piece) async for piece in streamed.aiter_raw()]) == 1_000_000
    response = await served.client.head("/up/bytes/1000000")
    assert response.headers["content-length"] == "1000000"


async def test_the_client_of_the_standard_library(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, "request", unknown="pass"))

    def run() -> list[tuple[int, int, str | None]]:
        told = []
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        for method, path, body in (
            ("GET", "/bytes/1000", None),
            ("HEAD", "/bytes/1000", None),
            ("GET", "/bytes/1000?chunked", None),
            ("POST", "/upload", b"x" * 1000),
            ("GET", "/none", None),
            ("GET", "/bytes/1000", None),
        ):
            connection.request(method, f"/proxy/up{path}", body)
            response = connection.getresponse()
            content = response.read()
            told.append((response.status, len(content), response.getheader("content-length")))
        connection.close()
        return told

    told = await trio.to_thread.run_sync(run)
    assert [status for status, _, _ in told] == [200, 200, 200, 200, 404, 200]
    assert [size for _, size, _ in told][:3] == [1000, 0, 1000]
    assert [length for _, _, length in told][:3] == ["1000", "1000", None]


curl_is_here = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed; any package manager has it"
)


async def curl(served: Served, path: str, *arguments: str, body: bytes = b"") -> bytes:
    """Return what curl prints; it must exit with 0."""
    command = ["curl", "-sS", "--max-time", "10", *arguments]
    url = f"http://127.0.0.1:{served.port}/proxy/up{path}"
    done = await trio.run_process([*command, url], stdin=body, capture_stdout=True)
    return bytes(done.stdout)


@curl_is_here
@pytest.mark.parametrize("redact", ["none", "both"])
async def test_curl_chat(start: Start, upstream: Upstream, redact: str) -> None:
    served = await start(route(upstream, redact))
    sent = json.dumps({"model": "gpt-mini", "messages": MESSAGES})
    as_json = ("-H", "content-type: application/json")
    answer = await curl(served, "/v1/chat/completions", *as_json, "-d", sent)
    assert json.loads(answer)["choices"][0]["message"]["content"]
    (call,) = await upstream.received(1)
    assert ("alice@example.com" in call.body.decode()) is (redact == "none")
    assert call.header("user-agent").startswith("curl/")


@curl_is_here
async def test_curl_shows_a_stream_as_it_comes_and_ends_the_call_when_it_goes(
    start: Start, upstream: Upstream
) -> None:
    upstream.behaviour = Behaviour(chunks=1000, pause=0.05)
    served = await start(route(upstream))
    url = f"http://127.0.0.1:{served.port}/proxy/up/v1/chat/completions"
    sent = json.dumps({"model": "gpt-mini", "messages": MESSAGES, "stream": True})
    command = ["curl", "-sSN", "-H", "content-type: application/json", "-d", sent, url]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    shown = b""
    with trio.fail_after(10):
        while shown.count(b"data: ") < 3:
            shown += await process.stdout.receive_some()
        process.kill()
        await process.wait()
        await process.stdout.aclose()
        (call,) = await upstream.received(1)
        await call.closed.wait()
    assert not call.finished.is_set()


@curl_is_here
async def test_curl_uploads_and_downloads(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    upstream.behaviour = Behaviour(gzip=True)
    served = await start(route(upstream))
    content = b"0123456789abcdef" * 100_000
    (tmp_path / "file").write_bytes(content)
    expected = {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    uploaded = (
        # With a length, after "100 Continue", and in chunks.
        await curl(served, "/upload", "-T", str(tmp_path / "file")),
        await curl(
            served, "/upload", "-H", "expect: 100-continue", "--data-binary", "@-", body=content
        ),
        await curl(served, "/upload", "-T", "-", body=content),
    )
    assert [json.loads(answer) for answer in uploaded] == [expected] * 3
    assert json.loads(await curl(served, "/v1/models", "--compressed"))["data"]
    assert len(await curl(served, "/bytes/100000?chunked")) == 100_000
    assert len(await curl(served, "/bytes/100000?chunked", "--http1.0")) == 100_000
    head = await curl(served, "/bytes/100000", "-I")
    assert b"content-length: 100000\r\n" in head.lower()
    assert head.endswith(b"\r\n\r\n")


@curl_is_here
async def test_curl_asks_many_things_over_one_connection(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, cache={}))
    url = f"http://127.0.0.1:{served.port}/proxy/up/v1/models"
    shown = await curl(
        served,
        "/v1/models",
        "-w",
        "%{num_connects} %{http_code}\n",
        "-o",
        "/dev/null",
        url,
        "-o",
        "/dev/null",
        url,
        "-o",
        "/dev/null",
    )
    assert shown.decode().split("\n")[:3] == ["1 200", "0 200", "0 200"]
    assert len(await upstream.received(1)) == 1
