"""The stub upstream does what the tests of the proxy rely on."""

import hashlib
import ssl
import subprocess
import sys
import time

import httpx2
import msgspec
import pytest
import trio
import trustme
from openai import APIError, AsyncOpenAI, InternalServerError, RateLimitError

from tests.upstream import NEVER, PROMPT_TOKENS, Behaviour, Upstream, open_upstream


def client_of(upstream: Upstream) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="sk-test", max_retries=0)


async def test_the_real_client_gets_a_streamed_answer_and_its_usage() -> None:
    async with open_upstream() as upstream, client_of(upstream) as client:
        stream = await client.chat.completions.create(
            model="gpt-mini",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "word0 word1 word2 word3 word4 "
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 5
    assert upstream.requests[0].json()["model"] == "gpt-mini"
    assert upstream.calls["/v1/chat/completions"] == 1


async def test_the_real_client_gets_whole_answers() -> None:
    async with open_upstream() as upstream, client_of(upstream) as client:
        chat = await client.chat.completions.create(
            model="gpt-mini", messages=[{"role": "user", "content": "hello"}]
        )
        text = await client.completions.create(model="gpt-mini", prompt="hello")
        vectors = await client.embeddings.create(model="e", input=["a", "b", "a"])
        models = await client.models.list()
    assert chat.choices[0].message.content == text.choices[0].text
    assert chat.usage and chat.usage.prompt_tokens == PROMPT_TOKENS
    a, b, again = (one.embedding for one in vectors.data)
    assert a == again != b
    assert [model.id for model in models.data] == ["gpt-mini"]


async def test_faults_are_those_of_the_api() -> None:
    async with open_upstream() as upstream, client_of(upstream) as client:
        upstream.answers.extend([Behaviour(status=429), Behaviour(status=500)])
        with pytest.raises(RateLimitError) as limited:
            await client.models.list()
        with pytest.raises(InternalServerError):
            await client.models.list()
        upstream.behaviour = Behaviour(error_event=True)
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        with pytest.raises(APIError):
            async for _ in stream:
                pass
    assert limited.value.response.headers["retry-after"] == "1"


async def test_models_are_not_sent_to_whoever_has_them() -> None:
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        first = await client.get(f"{upstream.url}/v1/models")
        tag = first.headers["etag"]
        again = await client.get(f"{upstream.url}/v1/models", headers={"if-none-match": tag})
        upstream.behaviour = Behaviour(etag='"models-2"')
        other = await client.get(f"{upstream.url}/v1/models", headers={"if-none-match": tag})
    assert [first.status_code, again.status_code, other.status_code] == [200, 304, 200]
    assert again.content == b"" and again.headers["cache-control"] == "max-age=60"


@pytest.mark.parametrize(
    ("path", "field"), [("/api/chat", "message"), ("/api/generate", "response")]
)
async def test_ollama_streams_lines(path: str, field: str) -> None:
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        answer = await client.post(upstream.url + path, json={"model": "llama"})
        whole = await client.post(upstream.url + path, json={"model": "llama", "stream": False})
    lines = [msgspec.json.decode(line) for line in answer.content.splitlines()]
    assert [line["done"] for line in lines] == [False] * 5 + [True]
    assert all(field in line for line in lines)
    assert lines[-1]["eval_count"] == whole.json()["eval_count"] == 5


async def test_bodies_both_ways() -> None:
    body = b"x" * 3_000_000
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        upload = await client.post(f"{upstream.url}/upload", content=body)
        known = await client.get(f"{upstream.url}/bytes/100000")
        chunked = await client.get(f"{upstream.url}/bytes/100000?chunked")
        echo = await client.put(f"{upstream.url}/echo/a%2Fb?c=d", content=b"e")
        embedded = await client.post(f"{upstream.url}/api/embed", json={"input": ["a", "b"]})
    assert upload.json() == {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert known.content == chunked.content and len(known.content) == 100_000
    assert "content-length" in known.headers and "content-length" not in chunked.headers
    assert echo.json()["target"] == "/echo/a%2Fb?c=d" and echo.json()["body"] == "e"
    assert ["host", f"127.0.0.1:{upstream.port}"] in echo.json()["headers"]
    assert len(embedded.json()["embeddings"]) == 2


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_goes_away_between_two_pieces_is_seen_at_once(tls: bool) -> None:
    server = client_side = None
    if tls:
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        client_side = ssl.create_default_context()
        authority.configure_trust(client_side)
    async with open_upstream(tls=server) as upstream:
        upstream.behaviour = Behaviour(pause=NEVER)
        async with (
            httpx2.AsyncClient(verify=client_side or True) as client,
            client.stream("POST", f"{upstream.url}/api/chat", json={}) as response,
        ):
            await anext(response.aiter_raw())
        left = time.monotonic()
        call = upstream.requests[0]
        with trio.fail_after(5):
            await call.closed.wait()
        assert call.closed_at is not None and abs(call.closed_at - left) < 0.5
        assert not call.finished.is_set()


async def test_a_client_that_has_its_answer_did_not_go_away() -> None:
    async with open_upstream() as upstream:
        async with httpx2.AsyncClient() as client:
            for _ in range(2):
                await client.get(f"{upstream.url}/v1/models")
        assert upstream.connections == 1
        with trio.fail_after(5):
            while upstream.open:
                await trio.sleep(0.01)
    assert all(c.finished.is_set() and not c.closed.is_set() for c in upstream.requests)


async def raw(upstream: Upstream, request: bytes) -> bytes:
    """Return all that is sent on a connection, with its reset noted at the end."""
    received = b""
    stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
    with trio.fail_after(5):
        async with stream:
            await stream.send_all(request)
            try:
                async for data in stream:
                    received += data
            except trio.BrokenResourceError:
                received += b"RESET"
    return received


GET = b"GET /bytes/70000?chunked HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def test_cut_connections() -> None:
    async with open_upstream() as upstream:
        upstream.answers.extend(
            [
                Behaviour(cut="before_head"),
                Behaviour(cut="before_head", reset=True),
                Behaviour(cut="head"),
                Behaviour(cut="body"),
                Behaviour(cut="last_chunk"),
                Behaviour(raw=b"garbage"),
                Behaviour(),
            ]
        )
        nothing, reset, head, body, last_chunk, garbage, whole = [
            await raw(upstream, GET) for _ in range(7)
        ]
    assert (nothing, reset, garbage) == (b"", b"RESET", b"garbage")
    assert head.startswith(b"HTTP/1.1 200") and b"\r\n\r\n" not in head
    assert len(head) < 65536 < len(body) < 70000 < len(last_chunk) < len(whole)
    assert whole == last_chunk + b"0\r\n\r\n"


async def test_a_body_of_announced_length_is_cut_in_its_middle() -> None:
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        upstream.behaviour = Behaviour(cut="body")
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(f"{upstream.url}/v1/models")


async def test_informational_responses_and_trailers() -> None:
    async with open_upstream() as upstream:
        upstream.behaviour = Behaviour(informational=(103,), trailers=(("x-digest", "1"),))
        answer = await raw(upstream, GET)
    assert answer.startswith(b"HTTP/1.1 103") and b"HTTP/1.1 200" in answer
    assert answer.endswith(b"0\r\nx-digest: 1\r\n\r\n")


async def test_each_piece_is_a_packet_of_its_own() -> None:
    async with open_upstream() as upstream:
        upstream.behaviour = Behaviour(pieces=(b"one", b"two"), pause=0.05)
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        async with stream:
            await stream.send_all(b"GET /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            packets = [bytes(data) async for data in stream]
    assert [packet for packet in packets if b"one" in packet and b"two" in packet] == []


async def test_an_early_answer_does_not_wait_for_the_body() -> None:
    async with open_upstream() as upstream:
        upstream.behaviour = Behaviour(early=True, status=413)
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        async with stream:
            await stream.send_all(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 413")


async def test_a_continue_is_sent_to_whoever_expects_it() -> None:
    head = b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    async with open_upstream() as upstream:
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        async with stream:
            await stream.send_all(head)
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
                await stream.send_all(b"ok")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_an_upgraded_connection_echoes() -> None:
    head = b"GET /upgrade HTTP/1.1\r\nhost: a\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n"
    async with open_upstream() as upstream:
        stream = await trio.open_tcp_stream("127.0.0.1", upstream.port)
        async with stream:
            await stream.send_all(head)
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
                await stream.send_all(b"ping")
                assert await stream.receive_some() == b"ping"


async def test_redirects_and_slow_answers() -> None:
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        moved = await client.get(f"{upstream.url}/redirect")
        assert moved.status_code == 302 and moved.headers["location"] == f"{upstream.url}/echo"
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(f"{upstream.url}/slow/5", timeout=0.1)
        upstream.behaviour = Behaviour(gzip=True)
        packed = await client.get(f"{upstream.url}/v1/models")
        assert packed.headers["content-encoding"] == "gzip" and packed.json()["data"]


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.upstream", "--chunks", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            answer = httpx2.post(f"{url}/api/chat", json={})
        finally:
            process.terminate()
    assert len(answer.content.splitlines()) == 3
