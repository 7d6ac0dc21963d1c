import gzip
from typing import Any

import httpx2
import msgspec
import pytest
import structlog
import trio

from sidecar import metrics
from sidecar.http.application import Application
from sidecar.http.messages import Request, Response
from sidecar.http.routing import Route


def counted(route: str, method: str, status: int) -> float:
    labels = {"route": route, "method": method, "status": str(status)}
    return metrics.REGISTRY.get_sample_value("telemetry_cache_http_requests_total", labels) or 0


def assert_problem(response: httpx2.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body.keys() == {"type", "title", "status", "detail"}


async def test_a_body_reaches_its_handler_and_comes_back(server: Any) -> None:
    body = bytes(range(256)) * 800
    response = await server.client.post("/echo", content=body)
    assert response.status_code == 200
    assert response.content == body
    assert response.headers["content-length"] == str(len(body))


async def test_a_chunked_compressed_body_is_decoded(server: Any) -> None:
    body = gzip.compress(b"text " * 5000)

    async def pieces() -> Any:
        for start in range(0, len(body), 10):
            yield body[start : start + 10]

    response = await server.client.post(
        "/echo", content=pieces(), headers={"content-encoding": "gzip"}
    )
    assert response.content == b"text " * 5000


async def test_the_request_is_decoded_as_a_handler_expects(server: Any) -> None:
    response = await server.client.get(
        "/a%20bout/%C3%A9?a=%20b&c", headers=[("X-One", "1"), ("x-one", "2")]
    )
    method, path, query, headers = response.json()
    assert (method, path, query) == ("GET", "/a bout/é", "a=%20b&c")
    assert headers["x-one"] == "1, 2"


async def test_head_answers_as_get_without_the_body(talk: Any) -> None:
    await talk.say(b"HEAD /hello HTTP/1.1\r\nhost: h\r\n\r\n" * 2)
    for _ in range(2):
        status, headers, body = await talk.hear(b"HEAD")
        assert (status, headers[b"content-length"], body) == (200, b"5", b"")


async def test_no_content_has_no_length(server: Any) -> None:
    response = await server.client.delete("/nothing")
    assert response.status_code == 204
    assert "content-length" not in response.headers


async def test_an_unknown_path_is_not_found(server: Any) -> None:
    assert_problem(await server.client.get("/nowhere"), 404)


async def test_another_method_is_told_which_are_allowed(server: Any) -> None:
    response = await server.client.put("/hello", content=b"body")
    assert_problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD"


async def test_a_failing_handler_is_a_500_that_says_nothing_of_the_payload(server: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        response = await server.client.post("/failing", content=b"hunter2")
    assert_problem(response, 500)
    assert "hunter2" not in response.text
    assert "hunter2" not in str(logs)
    assert logs[0]["error"] == "ValueError"
    assert any(place.startswith("conftest:") for place in logs[0]["places"])
    assert (await server.client.get("/hello")).status_code == 200


async def test_a_header_that_cannot_be_sent_is_a_logged_500(served: Any, route_of: Any) -> None:
    async def handler(request: Request) -> Response:
        return Response(headers={"x-snowman": "\u2603"})

    server = await served(Application([route_of("GET", "/snow", handler)]))
    with structlog.testing.capture_logs() as logs:
        assert (await server.client.get("/snow")).status_code == 500
    assert logs[0]["error"] == "UnicodeEncodeError"


async def test_answered_requests_are_counted_by_route_method_and_status(server: Any) -> None:
    before = [
        counted("/hello", "GET", 200),
        counted("other", "GET", 404),
        counted("/hello", "other", 405),
        counted("other", "other", 501),
    ]
    await server.client.get("/hello")
    await server.client.get("/some/scanner/path")
    await server.client.request("PROPFIND", "/hello")
    assert (await server.client.request("BREW", "/hello")).status_code == 501
    after = [
        counted("/hello", "GET", 200),
        counted("other", "GET", 404),
        counted("/hello", "other", 405),
        counted("other", "other", 501),
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1]
    sample = "telemetry_cache_http_request_duration_seconds_count"
    assert (metrics.REGISTRY.get_sample_value(sample, {"route": "/hello"}) or 0) >= 1


async def test_pipelined_requests_are_answered_in_order(talk: Any) -> None:
    wanted = [b"%d" % i for i in range(50)]
    await talk.say(
        b"".join(
            b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (len(b), b)
            for b in wanted
        )
    )
    assert [(await talk.hear())[2] for _ in wanted] == wanted


async def test_a_short_body_that_is_not_read_leaves_the_connection_usable(talk: Any) -> None:
    body = b"x" * 60_000
    await talk.say(
        b"POST /deaf HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
    status, headers, _ = await talk.hear()
    assert (status, headers.get(b"connection")) == (415, None)
    await talk.say(b"GET /hello HTTP/1.1\r\nhost: h\r\n\r\n")
    assert (await talk.hear())[2] == b"hello"


@pytest.mark.parametrize(
    "framing", [b"content-length: 10000000", b"transfer-encoding: chunked"], ids=["long", "chunked"]
)
async def test_a_long_body_that_is_not_read_is_refused_and_the_connection_closed(
    talk: Any, framing: bytes
) -> None:
    await talk.say(b"POST /deaf HTTP/1.1\r\nhost: h\r\n%s\r\n\r\n" % framing)
    status, headers, body = await talk.hear()
    assert (status, headers[b"connection"]) == (415, b"close")
    assert msgspec.json.decode(body)["status"] == 415
    assert await talk.ended()


async def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(talk: Any) -> None:
    size = 5_000_000
    await talk.say(b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
    await talk.say(b"x" * size)
    status, headers, _ = await talk.hear()
    assert (status, headers[b"connection"]) == (413, b"close")


async def test_a_client_that_goes_away_in_mid_body_harms_no_other(server: Any) -> None:
    async with await server.connect() as stream:
        await stream.send_all(b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf")
    assert (await server.client.get("/hello")).status_code == 200


async def fallback(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    if scope["path"] == "/broken":
        raise ValueError("hunter2")
    body = scope["path"].encode() + b" " + message["body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def test_every_other_path_is_the_fallbacks(served: Any, routes: list[Route]) -> None:
    server = await served(Application(routes, fallback=fallback))
    before = counted("other", "POST", 202)
    response = await server.client.post("/cold", content=b"body")
    assert (response.status_code, response.text) == (202, "/cold body")
    assert (await server.client.get("/hello")).text == "hello"
    assert counted("other", "POST", 202) == before + 1


async def test_a_broken_fallback_and_a_large_body_for_it_are_problems(
    served: Any, routes: list[Route]
) -> None:
    server = await served(Application(routes, fallback=fallback))
    with structlog.testing.capture_logs() as logs:
        assert_problem(await server.client.get("/broken"), 500)
    assert "hunter2" not in str(logs)
    assert_problem(await server.client.post("/cold", content=bytes(100_000)), 413)


async def test_an_upgrade_is_answered_without_one(talk: Any) -> None:
    for _ in range(2):
        await talk.say(
            b"POST /echo HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"content-length: 4\r\n\r\nping"
        )
        status, _, body = await talk.hear()
        assert (status, body) == (200, b"ping")


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_and_harms_no_other(
    talk: Any, server: Any, head: bytes
) -> None:
    await talk.say(head + b"\r\n\r\n")
    with trio.fail_after(10):
        answer = await talk.stream.receive_some(65536)
    assert answer.startswith(b"HTTP/1.1 4")
    assert (await server.client.get("/hello")).status_code == 200
